"""f16 and q8_0 caches against llama.cpp's of the same type, over a long prompt and decoding.

llama.cpp runs with flash attention, which it requires for quantized values. Weights are F32, so that what
differs is the cache and how attention reads it: llama.cpp's CPU flash attention keeps queries (and, with an
f16 cache, sums of values) in half precision, pintpot in float32. Measured, mean KL divergence over positions:
f16 up to 1.2e-7, and 1.2e-5 where a tie of experts falls the other way (gemma4-moe); q8_0 up to 1.9e-4
(gpt-oss).
"""

from __future__ import annotations

import numpy as np
import pytest
from cases import ARCHITECTURES, kl_divergence, prompt
from llama_oracle import FLASH_ON, TYPE_F16, TYPE_Q8_0, LlamaCpp
from ours import Ours

from pintpot.spec.cache import KVType

KL = {KVType.F16: 1e-4, KVType.Q8_0: 1e-3}
TYPES = {KVType.F16: TYPE_F16, KVType.Q8_0: TYPE_Q8_0}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_distributions(name, kind, model_file, ops) -> None:
    """A prompt of 300 tokens in one batch, each position compared, then 20 tokens of decoding."""
    tokens = prompt(ARCHITECTURES[name], 320, seed=5)
    path = model_file(name, "F32")

    def distributions(model):
        return np.concatenate([model.step(tokens[:300]), *(model.step([t]) for t in tokens[300:])])

    with LlamaCpp(path, kv_type=TYPES[kind], flash=FLASH_ON) as oracle:
        expected = distributions(oracle)
    divergence = kl_divergence(expected, distributions(Ours(path, ops, kv_type=kind)))
    assert divergence.mean() <= KL[kind]
