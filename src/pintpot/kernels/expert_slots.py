"""Which experts of a MoE layer lie on the accelerator, and what that means for a step's routing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from pintpot.kernels.api import I32

EMPTY: Final = -1


@dataclass(slots=True)
class ExpertCounts:
    """Selections (a token and one of its experts) and copies, since the model was loaded.

    Every selection is a hit or a miss: its expert had a slot, or not. `streamed` are misses whose experts
    were carried to the accelerator for one step; the CPU computed the others.
    """

    hits: int = 0
    misses: int = 0
    streamed: int = 0
    uploads: int = 0  # experts written into slots after the first ones
    upload_bytes: int = 0
    stream_bytes: int = 0

    def since(self, earlier: ExpertCounts) -> ExpertCounts:
        """What was counted after `earlier`."""
        names = [field.name for field in fields(self)]
        return ExpertCounts(**{name: getattr(self, name) - getattr(earlier, name) for name in names})

    def add(self, more: ExpertCounts) -> None:
        """Counts `more` too."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(more, field.name))

    @property
    def hit_share(self) -> float:
        """Hits of all selections; 0 before the first."""
        total = self.hits + self.misses
        return self.hits / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """A step's routing by who computes it. `slots` and `cpu_ids` are int32 [n_tokens, n_expert_used],
    negative where the other side, or the stream, computes the selection."""

    slots: I32
    cpu_ids: I32
    streamed: tuple[int, ...]  # experts, the one with most tokens first
    n_hits: int
    n_streamed: int

    @property
    def n_cpu(self) -> int:
        return self.slots.size - self.n_hits - self.n_streamed


class ExpertSlots:
    """The slots of one layer. `slot_of` int32 [n_expert] and `expert_in` int32 [n_slots] are each other's
    inverse; EMPTY says none."""

    def __init__(self, n_expert: int, n_slots: int) -> None:
        self.slot_of: I32 = np.full(n_expert, EMPTY, np.int32)
        self.expert_in: I32 = np.full(n_slots, EMPTY, np.int32)

    @property
    def n_slots(self) -> int:
        return len(self.expert_in)

    def assign(self, slot: int, expert: int) -> None:
        """`expert` lies in `slot` from now on, and nothing else does. Raises ValueError where it lies in
        another slot already."""
        if self.slot_of[expert] not in (EMPTY, slot):
            raise ValueError(f"expert {expert} already lies in slot {self.slot_of[expert]}, not in {slot}")
        self.vacate(slot)
        self.expert_in[slot] = expert
        self.slot_of[expert] = slot

    def vacate(self, slot: int) -> None:
        """Nothing lies in `slot` from now on."""
        if self.expert_in[slot] != EMPTY:
            self.slot_of[self.expert_in[slot]] = EMPTY
            self.expert_in[slot] = EMPTY

    def split(self, ids: I32, stream_tokens: int) -> Split:
        """The routing `ids` [n_tokens, n_expert_used] of a step. Experts without a slot that are chosen by at
        least `stream_tokens` of its tokens are streamed."""
        slots = self.slot_of[ids]
        cold = slots < 0
        cpu_ids = np.where(cold, ids, np.int32(EMPTY))
        streamed: list[int] = []
        n_streamed = 0
        if len(ids) >= stream_tokens:
            tokens = np.bincount(ids[cold], minlength=len(self.slot_of))
            streamed = [int(e) for e in np.argsort(-tokens, kind="stable") if tokens[e] >= stream_tokens]
            n_streamed = int(tokens[streamed].sum())
            cpu_ids[np.isin(cpu_ids, streamed)] = EMPTY
        return Split(slots, cpu_ids, tuple(streamed), int(slots.size - np.count_nonzero(cold)), n_streamed)
