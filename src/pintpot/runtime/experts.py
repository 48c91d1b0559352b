"""The experts in the accelerator's slots: a hot set decides which, and is carried out between steps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from pintpot.errors import AcceleratorError, AcceleratorMemoryError, PintpotError, UsageError
from pintpot.kernels.api import I32
from pintpot.kernels.expert_slots import ExpertCounts
from pintpot.kernels.hybrid import HybridOps
from pintpot.runtime.hotset import ADAPTIVE, LFU, LRU, STATIC, HotSet, Phase, Policy

POLICIES: Final = {policy.name: policy for policy in (ADAPTIVE, STATIC, LRU, LFU)}
_KEPT: Final = 0.85  # of a layer's slots, when the accelerator's memory turns out smaller
_SELECTIONS_A_SWAP: Final = 40  # of a token: the cap of the study in docs/experts.md, 8 of 40 layers' 320

Profile = Mapping[int, npt.NDArray[np.float64]]  # by layer, how often each expert was chosen


def parse_policy(name: str) -> Policy:
    """The policy called `name`. Raises UsageError."""
    try:
        return POLICIES[name.lower()]
    except KeyError:
        raise UsageError(f"--expert-policy {name!r}: expected {', '.join(POLICIES)}") from None


def _checked(counts: npt.NDArray[np.float64], layer: int, n_expert: int) -> npt.NDArray[np.float64]:
    if len(counts) != n_expert:
        raise UsageError(
            f"--expert-profile: layer {layer} has {len(counts)} experts in it and {n_expert} in the model: "
            "it was made of another model"
        )
    return counts


class ResidentExperts:
    """Fills the slots of a loaded model, learns from its routing, and swaps."""

    def __init__(self, ops: HybridOps, policy: Policy = ADAPTIVE, profile: Profile | None = None) -> None:
        """The likeliest experts of `profile` are resident at first; a layer that it does not know begins with
        its first ones."""
        self._ops = ops
        self._layers = sorted(ops.layers)
        self._step: list[tuple[int, I32]] = []  # (place in _layers, routing)
        self._hot: HotSet | None = None
        self.lost: AcceleratorError | None = None  # why the accelerator computes nothing any more
        self.notes: list[str] = []  # what changed since the model was loaded, in lines for the user
        if not self._layers:
            return
        n_expert = len(ops.layers[self._layers[0]].slots.slot_of)
        counts = np.zeros((len(self._layers), n_expert))
        for k, layer in enumerate(self._layers):
            if profile is not None and layer in profile:
                counts[k] = _checked(profile[layer], layer, n_expert)
        slots = [ops.layers[layer].slots.n_slots for layer in self._layers]
        self._n_used = ops.layers[self._layers[0]].n_used
        self._hot = HotSet(counts, slots, self._n_used, policy)
        self._fill(self._hot)
        self._places = {layer: k for k, layer in enumerate(self._layers)}

    def _fill(self, hot: HotSet) -> None:
        for k, layer in enumerate(self._layers):
            for slot, expert in enumerate(hot.residents(k).tolist()):
                self._ops.place_expert(layer, slot, expert)

    def explain(self, error: BaseException) -> PintpotError | None:
        """What the accelerator failed with, in one line; None where `error` is none of its own."""
        told = self._ops.accelerator.explain(error)
        if isinstance(told, AcceleratorError):
            self.lost = told
        return told

    def make_room(self, shortage: PintpotError) -> bool:
        """After the accelerator's memory ran out in a step: fewer slots in every layer, with the likeliest
        experts. False where there are none left to give. Between steps."""
        hot = self._hot
        self._ops.observe = None
        self._step.clear()
        before = slots = [self._ops.layers[layer].slots.n_slots for layer in self._layers]
        while hot is not None and any(slots):
            slots = [int(n * _KEPT) for n in slots]
            self._hot = hot = HotSet(hot.rates, slots, self._n_used, hot.policy)
            try:
                for layer, n in zip(self._layers, slots, strict=True):
                    self._ops.resize_slots(layer, n)
                self._fill(hot)
            except Exception as error:
                told = self.explain(error) or error
                if not isinstance(told, AcceleratorMemoryError):
                    raise told from error
                continue
            there = f"{sum(slots):,} experts on the accelerator instead of {sum(before):,}"
            self.notes.append(f"went on with {there}: {shortage}")
            return True
        return False

    @property
    def counts(self) -> ExpertCounts:
        """Totals since the model was loaded."""
        return self._ops.counts

    def before_step(self) -> None:
        """From now on routing is of a step to learn from; what runs outside of steps is not."""
        self._step.clear()
        if self._hot is not None:
            self._ops.observe = self._observe

    def _observe(self, layer: int, ids: I32) -> None:
        self._step.append((self._places[layer], ids))

    def after_step(
        self,
        phase: Phase,
        *,
        prompt_done: bool,
        learned: npt.NDArray[np.bool_],
        learned_rows: npt.NDArray[np.bool_],
    ) -> None:
        """Learns from the tokens `learned` of a step (`learned_rows`: of those that the last layer computed
        where it computed fewer), and makes the swaps that are due: a few a token while text is generated, all
        that pay between a prompt and its answer, none while a prompt is read. Called when no step runs."""
        hot = self._hot
        if hot is None:
            return
        self._ops.observe = None
        for _, group in groupby(self._step, lambda routed: len(routed[1])):
            layers = list(group)
            of = learned if len(layers[0][1]) == len(learned) else learned_rows
            hot.observe(np.stack([ids for _, ids in layers])[:, of], phase, layers[0][0])
        self._step.clear()
        if prompt_done:
            self._swap(hot, sum(layer.slots.n_slots for layer in self._ops.layers.values()), Phase.PREFILL)
        elif phase is Phase.DECODE:
            selections = self._n_used * len(self._layers)
            self._swap(hot, max(1, round(selections / _SELECTIONS_A_SWAP)), Phase.DECODE)

    def _swap(self, hot: HotSet, at_most: int, phase: Phase) -> None:
        for swap in hot.plan_swaps(at_most, phase):
            self._ops.place_expert(self._layers[swap.layer], swap.slot, swap.expert_in)
            hot.commit(swap)
