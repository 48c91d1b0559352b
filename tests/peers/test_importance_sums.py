"""The importance matrices of pintpot and llama.cpp for the same tokens: the same tensors, counts and sums.

F32 models, f32 cache, no flash attention. Activations agree to about 1e-6 (Gemma's to 3e-4: llama.cpp takes
GELU from a table of half-precision values), so do sums of their squares.
"""

from __future__ import annotations

import numpy as np
import pytest
from cases import SHAPES, prompt
from llama_imatrix import ImatrixOracle

from pintpot.llm import load
from pintpot.quantization.collect import Collector

ERROR = 1e-4  # of the largest sum of a tensor
GEMMA_ERROR = 2e-3
NAMES = [
    "llama-fused",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "qwen35",
    "qwen35moe",
    "qwen35moe-fused-mtp",
    "gemma4",
    "gpt-oss",
]
N_TOKENS = 64


@pytest.mark.parametrize("name", NAMES)
def test_same_sums(name, model_file) -> None:
    path = model_file(name, "F32")
    tokens = prompt(SHAPES[name], N_TOKENS)
    llm = load(path, ctx=N_TOKENS, threads=2, cache_type_k="f32", cache_type_v="f32")
    assert not llm.tokenizer.vocab.add_bos
    with Collector(llm.engine, tokens, chunk_tokens=N_TOKENS) as collector:
        list(collector.run())
        ours = collector.imatrix().tensors
    oracle = ImatrixOracle(path, N_TOKENS)
    oracle.read(tokens)
    # A vector in our engine and in the file, never quantized; its inputs are those of ffn_gate_inp.
    theirs = {n: sums for n, sums in oracle.sums.items() if "ffn_gate_inp_shexp" not in n}
    assert set(ours) == set(theirs)
    tolerance = GEMMA_ERROR if name.startswith("gemma4") else ERROR
    for tensor, (squares, counts) in theirs.items():
        np.testing.assert_array_equal(ours[tensor].counts, counts, err_msg=tensor)
        error = np.abs(ours[tensor].sum2 - squares).max() / squares.max()
        assert error <= tolerance, tensor
