"""Timing the engine the way it is used: prefill and decode at a given depth of context."""

from __future__ import annotations

import numpy as np

from pintpot.runtime.engine import Engine, Request
from pintpot.runtime.sampler import SamplingParams

_GREEDY = SamplingParams(temperature=0, top_k=0, top_p=1, min_p=0)


def _random_tokens(engine: Engine, n: int, rng: np.random.Generator) -> list[int]:
    return [int(t) for t in rng.integers(0, engine.model.spec.n_vocab, n)]


def _finish(engine: Engine, prompt: list[int], n_tokens: int) -> tuple[float, float]:
    """Seconds until the first token, and from there to the last."""
    sequence = engine.submit(Request(tuple(prompt), params=_GREEDY, max_tokens=n_tokens, ignore_eos=True))
    while sequence.finish_reason is None:
        engine.step()
    return sequence.timings.prompt_seconds, sequence.timings.decode_seconds


def measure_prefill(engine: Engine, n_tokens: int, depth: int, rng: np.random.Generator) -> float:
    """Tokens a second for `n_tokens` random prompt tokens after `depth` cached ones."""
    past = _random_tokens(engine, depth, rng)
    if past:
        _finish(engine, past, 1)
    seconds, _ = _finish(engine, past + _random_tokens(engine, n_tokens, rng), 1)
    return n_tokens / seconds


def measure_decode(engine: Engine, n_tokens: int, depth: int, rng: np.random.Generator) -> float:
    """Tokens a second for `n_tokens` greedy tokens, sampling included, after `depth` (or 1) others."""
    _, seconds = _finish(engine, _random_tokens(engine, max(depth, 1), rng), n_tokens + 1)
    return n_tokens / seconds
