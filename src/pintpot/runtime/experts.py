"""Which experts are in the accelerator's slots: the first ones, and changes between steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pintpot.kernels.api import I32
from pintpot.kernels.expert_slots import ExpertCounts
from pintpot.kernels.hybrid import HybridOps


class HotSet(Protocol):
    """Decides what is resident. Pure bookkeeping: it never sees a weight."""

    def initial(self, layer: int, n_expert: int, n_slots: int) -> Sequence[int]:
        """The experts that a layer's slots hold at first, at most `n_slots`."""

    def observe(self, layer: int, ids: I32) -> None:
        """The routing of a step, int32 [n_tokens, n_expert_used]."""

    def updates(self) -> Sequence[tuple[int, int, int]]:
        """(layer, slot, expert) changes for now, a few at most."""


class StaticHotSet:
    """The first experts of every layer, for good."""

    def initial(self, layer: int, n_expert: int, n_slots: int) -> Sequence[int]:  # noqa: ARG002
        return range(min(n_slots, n_expert))

    def observe(self, layer: int, ids: I32) -> None:
        """Nothing depends on it."""

    def updates(self) -> Sequence[tuple[int, int, int]]:
        return ()


class ResidentExperts:
    """Carries out what a hot set decides for a loaded model."""

    def __init__(self, ops: HybridOps, hot_set: HotSet) -> None:
        """Fills the slots."""
        self._ops = ops
        self._hot_set = hot_set
        for layer, routed in ops.layers.items():
            experts = hot_set.initial(layer, len(routed.slots.slot_of), routed.slots.n_slots)
            for slot, expert in enumerate(experts):
                ops.place_expert(layer, slot, expert)
        ops.observe = hot_set.observe

    @property
    def counts(self) -> ExpertCounts:
        """Totals since the model was loaded."""
        return self._ops.counts

    def after_step(self) -> None:
        """Makes the changes that are due. Called when no step runs."""
        for layer, slot, expert in self._hot_set.updates():
            self._ops.place_expert(layer, slot, expert)
