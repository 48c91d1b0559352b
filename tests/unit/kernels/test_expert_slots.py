"""Slots are a one-to-one assignment, and a step's selections go to one of three places each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pintpot.kernels.expert_slots import EMPTY, ExpertCounts, ExpertSlots

N_EXPERT, N_USED = 9, 3


def slots_with(experts: list[int], n_slots: int) -> ExpertSlots:
    slots = ExpertSlots(N_EXPERT, n_slots)
    for slot, expert in enumerate(experts):
        slots.assign(slot, expert)
    return slots


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, N_EXPERT - 1)), max_size=30))
def test_slots_and_experts_are_each_others_inverse(changes: list[tuple[int, int]]) -> None:
    slots = ExpertSlots(N_EXPERT, 4)
    for slot, expert in changes:
        if slots.slot_of[expert] in (EMPTY, slot):
            slots.assign(slot, expert)
        else:
            with pytest.raises(ValueError, match="already lies in slot"):
                slots.assign(slot, expert)
    for slot, expert in enumerate(slots.expert_in):
        assert expert == EMPTY or slots.slot_of[expert] == slot
    for expert, slot in enumerate(slots.slot_of):
        assert slot == EMPTY or slots.expert_in[slot] == expert


@settings(max_examples=200)
@given(
    resident=st.lists(st.integers(0, N_EXPERT - 1), unique=True, max_size=5),
    n_tokens=st.integers(1, 20),
    stream_tokens=st.integers(1, 24),
    seed=st.integers(0, 1000),
)
def test_every_selection_goes_to_one_place(
    resident: list[int], n_tokens: int, stream_tokens: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = np.array([rng.permutation(N_EXPERT)[:N_USED] for _ in range(n_tokens)], np.int32)
    split = slots_with(resident, 5).split(ids, stream_tokens)
    streamed = np.isin(ids, split.streamed)
    assert np.array_equal(split.slots >= 0, np.isin(ids, resident))
    assert np.array_equal((split.slots >= 0).astype(int) + (split.cpu_ids >= 0) + streamed, np.ones_like(ids))
    assert np.array_equal(split.cpu_ids[split.cpu_ids >= 0], ids[split.cpu_ids >= 0])
    assert (split.n_hits, split.n_streamed) == (np.isin(ids, resident).sum(), streamed.sum())
    assert split.n_cpu == np.count_nonzero(split.cpu_ids >= 0)
    tokens = [int((ids == expert).sum()) for expert in split.streamed]
    assert tokens == sorted(tokens, reverse=True)
    cold = {e for e in range(N_EXPERT) if e not in resident}
    assert set(split.streamed) == {e for e in cold if (ids == e).sum() >= stream_tokens}


def test_counts_are_differences_and_sums() -> None:
    before = ExpertCounts(hits=3, misses=5, streamed=1, uploads=2, upload_bytes=20, stream_bytes=7)
    after = ExpertCounts(hits=9, misses=7, streamed=2, uploads=2, upload_bytes=20, stream_bytes=17)
    step = after.since(before)
    assert step == ExpertCounts(hits=6, misses=2, streamed=1, stream_bytes=10)
    assert step.hit_share == 0.75
    assert ExpertCounts().hit_share == 0.0
    before.add(step)
    assert before == after
