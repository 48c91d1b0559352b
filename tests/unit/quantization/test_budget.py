"""The knapsack against brute force."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pintpot.gguf import GGMLType
from pintpot.quantization.budget import Option, choose

options = st.builds(Option, st.just(GGMLType.Q4_K), st.integers(1, 40), st.floats(0, 10))
instances = st.lists(st.lists(options, min_size=1, max_size=4), min_size=1, max_size=5)


def best_error(tensors: list[list[Option]], budget: int) -> float | None:
    totals = [
        sum(o.error for o in picks) for picks in product(*tensors) if sum(o.nbytes for o in picks) <= budget
    ]
    return min(totals, default=None)


@given(tensors=instances, budget=st.integers(1, 200))
def test_within_budget_and_between_bound_and_optimum(tensors: list[list[Option]], budget: int) -> None:
    best = best_error(tensors, budget)
    if best is None:
        with pytest.raises(ValueError, match="smallest options need"):
            choose(tensors, budget)
        return
    choice = choose(tensors, budget)
    assert choice.nbytes <= budget
    assert all(o in list(options) for o, options in zip(choice.options, tensors, strict=True))
    assert choice.bound <= best + 1e-9
    assert best <= choice.error + 1e-9


@given(tensors=instances)
def test_with_room_for_everything_nothing_is_lost(tensors: list[list[Option]]) -> None:
    choice = choose(tensors, 10_000)
    assert choice.error == pytest.approx(sum(min(o.error for o in options) for options in tensors))
    assert choice.bound == pytest.approx(choice.error)


@given(tensors=instances, budget=st.integers(20, 200))
def test_gap_is_less_than_one_step(tensors: list[list[Option]], budget: int) -> None:
    """What a choice loses against the bound is at most the one step that did not fit."""
    if best_error(tensors, budget) is None:
        return
    choice = choose(tensors, budget)
    largest_step = max(max(o.error for o in t) - min(o.error for o in t) for t in tensors)
    assert choice.error - choice.bound <= largest_step + 1e-9


def test_convex_options_of_equal_size_are_solved_exactly() -> None:
    sizes = (10, 20, 30)
    tensors = [[Option(GGMLType.Q4_K, s, w / s) for s in sizes] for w in (1.0, 5.0, 20.0, 3.0)]
    for budget in range(40, 130, 10):
        choice = choose(tensors, budget)
        assert choice.error == pytest.approx(best_error(tensors, budget))
        assert choice.nbytes in (budget, 120)
