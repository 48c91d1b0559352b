"""Planned caches against what llama.cpp says that it allocates: full, sliding-window, shared, recurrent."""

from __future__ import annotations

import re

import pytest
from cases import SHAPES
from llama_oracle import FLASH_ON, TYPE_F16, TYPE_Q8_0, LlamaCpp

from pintpot.gguf import GGUFFile
from pintpot.planner.memory import CacheSettings, cache_bytes
from pintpot.planner.profile import LLAMA_CPP
from pintpot.spec import AttentionLayer, ModelSpec
from pintpot.spec.cache import KVType

TYPES = {KVType.F16: TYPE_F16, KVType.Q8_0: TYPE_Q8_0}
_SAID = re.compile(r"llama_(?:kv_cache|memory_recurrent): size = +([\d.]+) MiB \(")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("n_ctx", "n_ubatch"), [(3000, 64), (4096, 512), (8000, 1000)])
@pytest.mark.parametrize("name", SHAPES)
def test_cache_bytes(name, n_ctx, n_ubatch, kind, model_file) -> None:
    """Bytes as llama.cpp prints them, to a hundredth of a MiB, of each of its caches."""
    path = model_file(name, "Q8_0")
    with LlamaCpp(
        path, n_ctx=n_ctx, n_ubatch=n_ubatch, kv_type=TYPES[kind], flash=FLASH_ON, swa_full=False
    ) as oracle:
        said = _SAID.findall(oracle.log)
    spec = ModelSpec.from_gguf(GGUFFile.open(path))
    planned = cache_bytes(spec, CacheSettings(n_ctx, kind, kind, n_ubatch), LLAMA_CPP.cache_steps)
    windowed = [
        isinstance(layer.mixer, AttentionLayer) and layer.mixer.window is not None for layer in spec.layers
    ]
    caches = [
        sum(kv for kv, w in zip(planned.kv, windowed, strict=True) if not w),
        sum(kv for kv, w in zip(planned.kv, windowed, strict=True) if w),
        sum(planned.state),
    ]
    assert said == [f"{nbytes / (1 << 20):.2f}" for nbytes in caches if nbytes]
