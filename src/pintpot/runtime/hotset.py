"""The hot set: which experts of every MoE layer lie in VRAM slots, and which give way to others.

Every expert has a rate, its selections a token: it starts as the profile's, and of what is observed each
token counts half of what a token `half_life_tokens` later does. An expert may take another's slot where the
difference of their rates pays the upload back within `payback_tokens`. These two numbers are a policy: the
ends of the scale are LRU and LFU (Lee et al., LRFU, IEEE Trans. Computers 50(12), 2001), and a policy that
never swaps keeps the profile's experts. docs/experts.md has the study that chose ADAPTIVE.

All layers are kept together: a step costs one pass over arrays, and swaps go where they gain most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

I32: TypeAlias = npt.NDArray[np.int32]
F64: TypeAlias = npt.NDArray[np.float64]

_FLOOR: Final = 1e-150  # of the profile: below it, rates keep the profile's order and are normal numbers


class Phase(IntEnum):
    """What a step computes."""

    PREFILL = 0
    DECODE = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """When an expert takes the slot of another.

    A swap must save one selection within `payback_tokens`, or `prompt_payback_tokens` when it is made between
    a prompt and its answer: 0 for never, inf for as soon as its rate is higher.
    """

    name: str
    half_life_tokens: float
    payback_tokens: float
    prompt_payback_tokens: float

    def least_gain(self, phase: Phase) -> float:
        """Selections a token by which the expert that enters must exceed the one that leaves."""
        payback = self.prompt_payback_tokens if phase is Phase.PREFILL else self.payback_tokens
        return 1.0 / payback if payback else math.inf


STATIC: Final = Policy("static", math.inf, 0, 0)
LRU: Final = Policy("lru", 1, math.inf, math.inf)  # what was used last outweighs all that was used before
LFU: Final = Policy("lfu", 256, math.inf, math.inf)
ADAPTIVE: Final = Policy("adaptive", 64, 40, 64)


@dataclass(frozen=True, slots=True)
class Swap:
    """`expert_in` is to lie in `slot` of `layer` (counting MoE layers) instead of `expert_out`."""

    layer: int
    slot: int
    expert_in: int
    expert_out: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Selections found in VRAM, and not."""

    hits: int = 0
    misses: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / max(1, self.hits + self.misses)


class HotSet:
    """Slots of all MoE layers. Not thread-safe: steps, plans and commits take turns.

    Residents change in `evict` and `commit` only, which the caller puts between steps.

    Attributes:
        slot_of: int32 [n_layers, n_expert], the slot an expert lies in, -1 for none. Always the same array.
        rates: float64 [n_layers, n_expert], selections a token as estimated now.
        hits, misses: int64 [len(Phase), n_layers].
        n_swaps: experts uploaded since the start.
    """

    def __init__(self, profile: npt.ArrayLike, n_slots: Sequence[int], n_used: int, policy: Policy) -> None:
        """`profile`: [n_layers, n_expert], how often experts were chosen in other text (any unit; zeros where
        nothing is known); the most frequent are resident. `n_slots` of each layer; `n_used` experts a token.
        """
        counts = np.asarray(profile, np.float64)
        if counts.ndim != 2 or len(n_slots) != len(counts):
            raise ValueError(f"a profile of shape {counts.shape} for {len(n_slots)} layers of slots")
        n_layers, n_expert = counts.shape
        if not all(0 <= n <= n_expert for n in n_slots):
            raise ValueError(f"slots of a layer: expected 0 to {n_expert}, got {list(n_slots)}")
        if not (np.all(np.isfinite(counts)) and np.all(counts >= 0)):
            raise ValueError("the profile holds negative or infinite counts")
        self.policy = policy
        self.n_used = n_used
        self.slot_of = np.full((n_layers, n_expert), -1, np.int32)
        total = counts.sum(axis=1, keepdims=True)
        even = np.full_like(counts, n_used / n_expert)
        self.rates = np.divide(n_used * counts, total, out=even, where=total > 0)
        for layer, n in enumerate(n_slots):
            likeliest = np.argsort(-self.rates[layer], kind="stable")[:n]
            self.slot_of[layer, likeliest] = np.arange(n, dtype=np.int32)
        self.hits = np.zeros((len(Phase), n_layers), np.int64)
        self.misses = np.zeros((len(Phase), n_layers), np.int64)
        self.n_swaps = 0
        self._floor = (self.rates + _FLOOR) * _FLOOR
        self._decay = 0.5 ** (1.0 / policy.half_life_tokens)
        self._first = np.arange(n_layers, dtype=np.int32)[:, None, None] * np.int32(n_expert)
        self._may_enter = self.slot_of < 0
        self._may_leave = self.slot_of >= 0
        self._pending: set[Swap] = set()

    def residents(self, layer: int) -> I32:
        """The expert in each slot, int32 [n_slots], without those evicted."""
        experts = np.flatnonzero(self.slot_of[layer] >= 0).astype(np.int32)
        return experts[np.argsort(self.slot_of[layer, experts])]

    def counts(self, phase: Phase) -> Counts:
        """Of all layers since the start."""
        return Counts(int(self.hits[phase].sum()), int(self.misses[phase].sum()))

    def observe(self, ids: I32, phase: Phase, first_layer: int = 0) -> None:
        """Counts a step's selections, int32 [n_layers, n_tokens, n_used], against the residents, and learns
        from them. Fewer layers than there are begin at `first_layer`: the last one of a prompt's step may
        have computed fewer tokens than the others."""
        n_layers, n_tokens, _ = ids.shape
        if not ids.size:
            return
        layers = slice(first_layer, first_layer + n_layers)
        flat = (ids + self._first[:n_layers]).reshape(-1)
        slots = self.slot_of[layers].reshape(-1).take(flat).reshape(n_layers, -1)
        hits = np.count_nonzero(slots >= 0, axis=1)
        self.hits[phase, layers] += hits
        self.misses[phase, layers] += slots.shape[1] - hits
        if self._decay < 1.0:
            self._learn(flat, n_tokens, layers)

    def _learn(self, flat: I32, n_tokens: int, layers: slice) -> None:
        rates = self.rates[layers]
        weights = None
        if n_tokens > 1:
            later = np.arange(n_tokens - 1, -1, -1)[:, None]
            weights = np.broadcast_to(self._decay**later, (len(rates), n_tokens, self.n_used)).reshape(-1)
        chosen = np.bincount(flat, weights, minlength=rates.size).reshape(rates.shape)
        rates *= self._decay**n_tokens
        rates += (1.0 - self._decay) * chosen
        np.maximum(rates, self._floor[layers], out=rates)

    def plan_swaps(self, max_swaps: int, phase: Phase = Phase.DECODE) -> list[Swap]:
        """At most `max_swaps` that gain enough, best first; `phase` PREFILL: between a prompt and its answer.

        They are pending, and not planned again, until they are committed or cancelled.
        """
        least = self.policy.least_gain(phase)
        if max_swaps < 1 or math.isinf(least):
            return []
        enter = np.where(self._may_enter, self.rates, -math.inf)
        leave = np.where(self._may_leave, self.rates, math.inf)
        gains = enter.max(axis=1) - leave.min(axis=1)
        # Of a layer that is not among the max_swaps best no swap is.
        layers = np.argsort(-gains, kind="stable")[:max_swaps]
        found: list[tuple[float, Swap]] = []
        for layer in layers[gains[layers] > least].tolist():
            entering = np.argsort(-enter[layer], kind="stable")[:max_swaps]
            leaving = np.argsort(leave[layer], kind="stable")[:max_swaps]
            by_pair = enter[layer, entering] - leave[layer, leaving]
            n = int(np.count_nonzero(by_pair > least))
            slots = self.slot_of[layer, leaving[:n]].tolist()
            pairs = zip(by_pair[:n].tolist(), slots, entering[:n].tolist(), leaving[:n].tolist(), strict=True)
            found += [(gain, Swap(layer, slot, new, old)) for gain, slot, new, old in pairs]
        found.sort(key=lambda pair: -pair[0])
        swaps = [swap for _, swap in found[:max_swaps]]
        for swap in swaps:
            self._may_enter[swap.layer, swap.expert_in] = False
            self._may_leave[swap.layer, swap.expert_out] = False
        self._pending.update(swaps)
        return swaps

    def evict(self, swap: Swap) -> None:
        """The outgoing expert is no longer resident: for uploads into its slot that go on during steps."""
        self._check_pending(swap)
        self.slot_of[swap.layer, swap.expert_out] = -1

    def commit(self, swap: Swap) -> None:
        """The incoming expert lies in the slot: the next step finds it there."""
        self._check_pending(swap)
        self._pending.remove(swap)
        self.slot_of[swap.layer, swap.expert_out] = -1
        self.slot_of[swap.layer, swap.expert_in] = swap.slot
        self._may_enter[swap.layer, swap.expert_out] = True
        self._may_leave[swap.layer, swap.expert_in] = True
        self.n_swaps += 1

    def cancel(self, swap: Swap) -> None:
        """Nothing was uploaded and the outgoing expert not evicted: the swap may be planned again."""
        self._check_pending(swap)
        if self.slot_of[swap.layer, swap.expert_out] < 0:
            raise ValueError(f"{swap}: its slot is being overwritten, so that it can only be committed")
        self._pending.remove(swap)
        self._may_enter[swap.layer, swap.expert_in] = True
        self._may_leave[swap.layer, swap.expert_out] = True

    def _check_pending(self, swap: Swap) -> None:
        if swap not in self._pending:
            raise ValueError(f"{swap}: is not pending")
