"""Synthetic expert routing with the skew and locality of published traces.

The logit of expert e in a layer is

    sqrt(a) g_e + sqrt(b) p_e(prompt) + sqrt(c) AR1_e(rho) + sqrt(d) eps

all standard normal: what the expert is worth everywhere, for this prompt, for this stretch of text, and
for this token. The k largest are used. With the parameters below a static profile of 40% of the experts
catches 61-72% of selections and a recency/frequency policy 86-92%, as in published traces.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class RoutingMix:
    """Variances of the four terms (they sum to about 1) and the AR(1) coefficient a token."""

    everywhere: float
    prompt: float
    local: float
    token: float
    rho: float


MIX_128 = RoutingMix(0.227, 0.265, 0.247, 0.262, 0.893)
MIX_256 = RoutingMix(0.17, 0.22, 0.20, 0.41, 0.9)


def routing_mix(n_expert: int) -> RoutingMix:
    """The mix fitted to models of about this many experts."""
    return MIX_256 if n_expert >= 192 else MIX_128


def simulate_routing(
    n_expert: int,
    n_used: int,
    n_layers: int,
    n_tokens: int,
    *,
    n_prompts: int = 1,
    mix: RoutingMix | None = None,
    seed: int = 0,
) -> npt.NDArray[np.int32]:
    """Experts chosen by each token, best first: int32 [n_tokens, n_layers, n_used].

    Tokens fall into `n_prompts` stretches of equal length, each a prompt of its own (new p_e and a fresh
    AR(1) state). The global preference g_e depends on (seed, layer) only, so that runs with the same seed
    and different lengths share it.
    """
    mix = mix or routing_mix(n_expert)
    chosen = np.empty((n_tokens, n_layers, n_used), np.int32)
    bounds = np.linspace(0, n_tokens, n_prompts + 1).astype(int)
    for layer in range(n_layers):
        everywhere = np.random.default_rng([seed, layer, 0]).standard_normal(n_expert)
        rng = np.random.default_rng([seed, layer, 1])
        for start, stop in pairwise(bounds.tolist()):
            steady = np.sqrt(mix.everywhere) * everywhere
            steady += np.sqrt(mix.prompt) * rng.standard_normal(n_expert)
            local = rng.standard_normal(n_expert)
            for t in range(start, stop):
                noise = rng.standard_normal((2, n_expert))
                local = mix.rho * local + np.sqrt(1.0 - mix.rho**2) * noise[0]
                logits = steady + np.sqrt(mix.local) * local + np.sqrt(mix.token) * noise[1]
                top = np.argpartition(logits, -n_used)[-n_used:]
                chosen[t, layer] = top[np.argsort(-logits[top])]
    return chosen


def static_hit_rate(routes: npt.NDArray[np.int32], resident: npt.NDArray[np.int64]) -> float:
    """Share of selections caught by experts `resident` [n_layers, n_slots] that never change."""
    n_layers = routes.shape[1]
    hits = [np.isin(routes[:, layer], resident[layer]).mean() for layer in range(n_layers)]
    return float(np.mean(hits))


def most_used(routes: npt.NDArray[np.int32], n_expert: int, n_slots: int) -> npt.NDArray[np.int64]:
    """The n_slots experts each layer chose most often: int64 [n_layers, n_slots]."""
    n_layers = routes.shape[1]
    counts = [np.bincount(routes[:, layer].ravel(), minlength=n_expert) for layer in range(n_layers)]
    return np.argsort(-np.stack(counts), axis=1, kind="stable")[:, :n_slots]


def adaptive_hit_rate(
    routes: npt.NDArray[np.int32], n_expert: int, n_slots: int, *, decay: float = 0.95
) -> float:
    """Share of selections caught by a recency/frequency cache of `n_slots` experts a layer: before each
    token it holds the experts with the largest exponentially decayed use counts, provided they were
    loaded (a miss loads the expert, evicting the resident one with the smallest count)."""
    n_tokens, n_layers, _ = routes.shape
    hits = total = 0
    for layer in range(n_layers):
        score = np.zeros(n_expert)
        resident = np.zeros(n_expert, bool)
        resident[:n_slots] = True
        for t in range(n_tokens):
            used = routes[t, layer]
            hits += int(resident[used].sum())
            total += len(used)
            score *= decay
            score[used] += 1.0
            for expert in used[~resident[used]]:
                worst = np.flatnonzero(resident)[np.argmin(score[resident])]
                resident[worst], resident[expert] = False, True
    return hits / total
