"""From logits to the next token: penalties, truncation, temperature, and log-probabilities.

The order is llama.cpp's: logit bias, penalties, top-k, typical, top-p, min-p, temperature, draw.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.errors import UsageError

F32: TypeAlias = npt.NDArray[np.float32]

_MIN_TEMPERATURE = 1e-6  # below it only the likeliest token is left anyway
_BLOCK = 64  # values a block in the two-stage top-k


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens; defaults are llama.cpp's. `temperature` 0 is greedy."""

    temperature: float = 0.8
    top_k: int = 40  # 0: off
    top_p: float = 0.95  # 1: off
    min_p: float = 0.05  # 0: off
    typical_p: float = 1.0  # 1: off
    repeat_penalty: float = 1.0  # 1: off
    repeat_last_n: int = 64  # tokens the penalties look back; -1: all, 0: off
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None  # None: different every time
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0, math.inf)
        _check("top-k", self.top_k, 0, math.inf)
        _check("top-p", self.top_p, 0.0, 1.0)
        _check("min-p", self.min_p, 0.0, 1.0)
        _check("typical-p", self.typical_p, 0.0, 1.0)
        _check("repeat-penalty", self.repeat_penalty, 1e-6, math.inf)
        _check("repeat-last-n", self.repeat_last_n, -1, math.inf)
        _check("frequency-penalty", self.frequency_penalty, -100.0, 100.0)
        _check("presence-penalty", self.presence_penalty, -100.0, 100.0)
        for token, bias in self.logit_bias.items():
            if math.isnan(bias) or bias == math.inf:
                raise UsageError(f"logit-bias of token {token} is {bias}: expected a number or -inf")
        if self.seed is not None:
            _check("seed", self.seed, 0, 2**64 - 1)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high or math.isinf(value):
        limit = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise UsageError(f"{name} is {value}: expected a number {limit}")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of a token under the model's own distribution (before any sampling rule)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most likely tokens, best first


def top_indices(values: F32, k: int) -> npt.NDArray[np.intp]:
    """Indices of the k largest values, largest first, ties by lowest index.

    The k largest lie in the k blocks with the largest maxima, so that only those are searched: 20 times
    less than a partition of a 250,000-token vocabulary.
    """
    n = values.shape[0]
    if k >= n:
        return np.argsort(-values, kind="stable")
    n_blocks = n // _BLOCK
    if n_blocks > 4 * k:
        maxima = values[: n_blocks * _BLOCK].reshape(n_blocks, _BLOCK).max(axis=1)
        # Every block that ties with the k-th maximum stays in: ties go to the lowest index.
        threshold = np.partition(maxima, n_blocks - k)[n_blocks - k]
        blocks = np.flatnonzero(maxima >= threshold)
        inside = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        candidates = np.concatenate([inside, np.arange(n_blocks * _BLOCK, n)])
    else:
        candidates = np.arange(n)
    order = np.argsort(-values[candidates], kind="stable")[:k]
    return candidates[order]


def _softmax(logits: F32) -> npt.NDArray[np.float64]:
    p = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(p / p.sum())


def token_logprob(logits: F32, token: int, n_top: int) -> TokenLogprob:
    """Log-probability of `token` and of the `n_top` most likely ones. `logits`: float32 [n_vocab]."""
    top = float(logits.max())
    log_sum = top + math.log(float(np.exp(logits - top, dtype=np.float64).sum()))
    best = top_indices(logits, n_top) if n_top else ()
    return TokenLogprob(
        token, float(logits[token]) - log_sum, tuple((int(i), float(logits[i]) - log_sum) for i in best)
    )


class Sampler:
    """Chooses the tokens of one sequence. Two with the same seed and history choose the same."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._rng = np.random.default_rng(params.seed)

    def sample(self, logits: F32, history: Sequence[int]) -> int:
        """The next token. `logits`: float32 [n_vocab], left as they are; `history`: prompt and answer."""
        p = self.params
        logits = self._adjusted(logits, history)
        if p.temperature == 0:
            return int(logits.argmax())
        if 0 < p.top_k < logits.shape[0]:
            tokens = top_indices(logits, p.top_k)
        else:
            tokens = np.argsort(-logits, kind="stable")
        kept = logits[tokens]
        if p.typical_p < 1:
            order = _typical(kept, p.typical_p)
            tokens, kept = tokens[order], kept[order]
        if p.top_p < 1:
            cut = int(np.searchsorted(np.cumsum(_softmax(kept)), p.top_p)) + 1
            tokens, kept = tokens[:cut], kept[:cut]
        if p.min_p > 0:
            cut = int(np.count_nonzero(kept >= kept[0] + math.log(p.min_p)))
            tokens, kept = tokens[:cut], kept[:cut]
        cumulative = np.cumsum(_softmax((kept - kept[0]) / np.float32(max(p.temperature, _MIN_TEMPERATURE))))
        drawn = int(np.searchsorted(cumulative, self._rng.random() * cumulative[-1], side="right"))
        return int(tokens[min(drawn, len(tokens) - 1)])

    def _adjusted(self, logits: F32, history: Sequence[int]) -> F32:
        p = self.params
        n = len(history) if p.repeat_last_n < 0 else p.repeat_last_n
        penalize = n > 0 and (p.repeat_penalty != 1 or p.frequency_penalty != 0 or p.presence_penalty != 0)
        if not penalize and not p.logit_bias:
            return logits
        logits = logits.copy()
        for token, bias in p.logit_bias.items():
            if 0 <= token < logits.shape[0]:
                logits[token] += bias
        if penalize:
            counts = Counter(history[-n:])
            seen = np.fromiter(counts.keys(), np.int64, len(counts))
            times = np.fromiter(counts.values(), np.float32, len(counts))
            values = logits[seen]
            values = np.where(values > 0, values / p.repeat_penalty, values * p.repeat_penalty)
            logits[seen] = values - times * p.frequency_penalty - p.presence_penalty
        return logits


def _typical(logits: F32, typical_p: float) -> npt.NDArray[np.intp]:
    """Locally typical sampling (Meister et al. 2022, arXiv:2202.00666): the tokens whose surprise is nearest
    the entropy until their mass reaches typical_p. Returns their places in descending order of logit."""
    probs = _softmax(logits)
    surprise = -np.log(np.maximum(probs, 1e-300))
    order = np.argsort(np.abs(surprise - float((probs * surprise).sum())), kind="stable")
    cut = int(np.searchsorted(np.cumsum(probs[order]), typical_p)) + 1
    return np.sort(order[:cut])
