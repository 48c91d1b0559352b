"""What a policy of the hot set, or an oracle, makes of recorded routing: hits, misses and uploads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.expert_traces import Conversation, Trace
from pintpot.kernels.api import I32
from pintpot.runtime.hotset import HotSet, Phase, Policy

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
UNCAPPED: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of all answers together; per selection unless said otherwise."""

    hit_rate: float
    upload_rate: float  # experts uploaded while answering
    prompt_uploads: float  # between a prompt and its answer: experts of a layer, each prompt
    no_miss_rate: float  # of layers and tokens, those that found all their experts

    @property
    def ram_reads(self) -> float:
        """Experts read from RAM: the missing, which the CPU computes, and the uploaded."""
        return 1.0 - self.hit_rate + self.upload_rate


@dataclass(slots=True)
class _Tally:
    hits: int = 0
    selections: int = 0
    uploads: int = 0
    prompt_uploads: int = 0
    full: int = 0
    steps: int = 0

    def count(self, resident: npt.NDArray[np.bool_]) -> None:
        """A token's selections, bool [n_layers, n_used]."""
        self.hits += int(resident.sum())
        self.selections += resident.size
        self.full += int(resident.all(axis=1).sum())
        self.steps += len(resident)

    def outcome(self, trace: Trace) -> Outcome:
        return Outcome(
            self.hits / self.selections,
            self.uploads / self.selections,
            self.prompt_uploads / (len(trace.conversations) * trace.n_layers),
            self.full / self.steps,
        )


_Adjust: TypeAlias = Callable[[HotSet, int], None]  # before a plan, with the number of answer tokens seen


def simulate(trace: Trace, policy: Policy, n_slots: int, max_swaps: int) -> Outcome:
    """The hot set as it runs: at most `max_swaps` a token, as many as gain enough after a prompt."""
    return _simulate(trace, policy, n_slots, max_swaps, lambda _: lambda _hot, _t: None)


def simulate_foresight(trace: Trace, policy: Policy, n_slots: int, max_swaps: int) -> Outcome:
    """The same with the rates of what comes instead of what was: an oracle with a cap on swaps."""

    def adjust(conversation: Conversation) -> _Adjust:
        future = _future_rates(conversation.answer, trace.n_expert, policy.half_life_tokens)

        def foresee(hot: HotSet, n_seen: int) -> None:
            hot.rates[:] = future[n_seen]

        return foresee

    return _simulate(trace, policy, n_slots, max_swaps, adjust)


def _simulate(
    trace: Trace, policy: Policy, n_slots: int, max_swaps: int, adjust: Callable[[Conversation], _Adjust]
) -> Outcome:
    hot = HotSet(trace.profile, [n_slots] * trace.n_layers, trace.n_used, policy)
    rows = np.arange(trace.n_layers)[:, None]
    tally = _Tally()
    for conversation in trace.conversations:
        prepare = adjust(conversation)
        hot.observe(conversation.prompt, Phase.PREFILL)
        prepare(hot, 0)
        tally.prompt_uploads += _swap(hot, UNCAPPED, Phase.PREFILL)
        for t in range(conversation.answer.shape[1]):
            ids = conversation.answer[:, t]
            tally.count(hot.slot_of[rows, ids] >= 0)
            hot.observe(ids[:, None], Phase.DECODE)
            prepare(hot, t + 1)
            tally.uploads += _swap(hot, max_swaps, Phase.DECODE)
    return tally.outcome(trace)


def _swap(hot: HotSet, max_swaps: int, phase: Phase) -> int:
    swaps = hot.plan_swaps(max_swaps, phase)
    for swap in swaps:
        hot.commit(swap)
    return len(swaps)


def _future_rates(answer: I32, n_expert: int, half_life_tokens: float) -> F32:
    """Selections a token from each token on, later ones counting less: [n_tokens + 1, n_layers, n_expert]."""
    n_layers, n_tokens, _ = answer.shape
    decay = 0.5 ** (1.0 / half_life_tokens)
    rows = np.arange(n_layers)[:, None]
    rates = np.zeros((n_tokens + 1, n_layers, n_expert), np.float32)
    for t in range(n_tokens - 1, -1, -1):
        rates[t] = rates[t + 1] * decay
        rates[t, rows, answer[:, t]] += 1.0 - decay
    return rates


def simulate_belady(trace: Trace, n_slots: int) -> Outcome:
    """Most hits of all that upload missed experts only, as many as they like: an expert enters when it is
    used again sooner than the resident that is used again last. After a prompt all that it used may enter."""
    tally = _Tally()
    for layer in range(trace.n_layers):
        _belady_layer(trace, layer, n_slots, tally)
    return tally.outcome(trace)


def _belady_layer(trace: Trace, layer: int, n_slots: int, tally: _Tally) -> None:
    following, due = _next_uses(
        np.concatenate([c.answer[layer] for c in trace.conversations]), trace.n_expert
    )
    resident = np.zeros(trace.n_expert, np.bool_)
    resident[np.argsort(-trace.profile[layer], kind="stable")[:n_slots]] = True
    steps = iter(following)
    for conversation in trace.conversations:
        prompted = np.unique(conversation.prompt[layer])
        tally.prompt_uploads += _keep_the_soonest(resident, prompted, due, n_slots)
        for used in conversation.answer[layer]:
            found = resident[used]
            tally.count(found[None])
            due[used] = next(steps)
            if not found.all():
                tally.uploads += _keep_the_soonest(resident, used, due, n_slots)


def _keep_the_soonest(resident: npt.NDArray[np.bool_], offered: I32, due: F64, n_slots: int) -> int:
    """Of the residents and the `offered`, those due soonest become resident; returns how many enter."""
    candidates = np.union1d(np.flatnonzero(resident), offered)
    kept = candidates[np.argsort(due[candidates], kind="stable")[:n_slots]]
    n_entered = len(kept) - int(resident[kept].sum())
    resident[:] = False
    resident[kept] = True
    return n_entered


def _next_uses(ids: I32, n_expert: int) -> tuple[F64, F64]:
    """Steps at which each selection's expert is chosen again, as `ids` [n_tokens, n_used], and at which each
    expert is chosen first, [n_expert]; inf for never."""
    following = np.empty(ids.shape)
    due = np.full(n_expert, math.inf)
    for t in range(len(ids) - 1, -1, -1):
        following[t] = due[ids[t]]
        due[ids[t]] = t
    return following, due
