"""Caches on an accelerator, filled without computing: random keys and values, stored as a step does."""

from __future__ import annotations

import numpy as np

from pintpot.kernels.api import Segment
from pintpot.kernels.hybrid import HybridOps
from pintpot.runtime.engine import Engine
from pintpot.spec.cache import KVLayout

_TOKENS = 4096  # at a time


def fill_caches(engine: Engine, depth: int) -> int:
    """Slot 0 of every cache on the accelerator holds `depth` tokens; returns how many caches there are.

    Caches in RAM keep what they have: zero pages at first.
    """
    ops = engine.model.ops
    if not isinstance(ops, HybridOps):
        return 0
    rng, filled = np.random.default_rng(0), set()
    for there, cache in zip(ops.residence.mixers, engine.state.layers, strict=True):
        layout = getattr(cache, "layout", None)
        if not there or not isinstance(layout, KVLayout) or id(cache) in filled:
            continue
        filled.add(id(cache))
        for past in range(0, depth, _TOKENS):
            n = min(_TOKENS, depth - past)
            k, v = (
                rng.standard_normal((n, layout.n_head_kv * width), dtype=np.float32)
                for width in (layout.head_dim_k, layout.head_dim_v)
            )
            heads = [
                ops.accelerator.upload(x).reshape(n, layout.n_head_kv, width)
                for x, width in ((k, layout.head_dim_k), (v, layout.head_dim_v))
            ]
            cache.store(ops.accelerator.batch([Segment(0, past, n)]), *heads)
    return len(filled)
