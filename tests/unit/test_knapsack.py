"""The knapsack against brute force."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pintpot.knapsack import Group, Option, Savings, choose, least_bytes, relaxed

options = st.builds(Option, st.just(0), st.integers(1, 40), st.floats(0, 10))
instances = st.lists(st.builds(Group, st.lists(options, min_size=1, max_size=4)), min_size=1, max_size=5)


def best_cost(groups: list[Group], budget: int) -> float | None:
    totals = [
        sum(o.cost for o in picks)
        for picks in product(*(group.options for group in groups))
        if sum(o.nbytes for o in picks) <= budget
    ]
    return min(totals, default=None)


def bound(groups: list[Group], budget: int) -> float:
    """No choice costs less: the cheapest of the smallest options, less what the relaxation saves."""
    smallest = sum(min((o.nbytes, o.cost) for o in group.options)[1] for group in groups)
    return smallest - Savings(groups).within(budget - least_bytes(groups))


@given(groups=instances, budget=st.integers(1, 200))
def test_within_budget_and_between_bound_and_optimum(groups: list[Group], budget: int) -> None:
    best = best_cost(groups, budget)
    if best is None:
        with pytest.raises(ValueError, match="smallest options need"):
            choose(groups, budget)
        return
    choice = relaxed(groups, budget)
    assert choice.nbytes <= budget
    assert all(o in group.options for o, group in zip(choice.options, groups, strict=True))
    assert bound(groups, budget) <= best + 1e-9
    assert best <= choice.cost + 1e-9


@given(groups=instances, budget=st.integers(20, 200))
def test_small_instances_are_solved_exactly(groups: list[Group], budget: int) -> None:
    best = best_cost(groups, budget)
    if best is None:
        return
    choice = choose(groups, budget)
    assert choice.nbytes <= budget
    assert all(o in group.options for o, group in zip(choice.options, groups, strict=True))
    assert choice.cost == pytest.approx(best)


@given(kinds=instances, order=st.lists(st.integers(0, 4), min_size=1, max_size=9), budget=st.integers(0, 400))
def test_groups_that_are_one_object_take_steps_together(kinds, order, budget: int) -> None:
    groups = [kinds[i % len(kinds)] for i in order]
    budget += least_bytes(groups)
    choice = relaxed(groups, budget)
    assert choice.nbytes <= budget
    assert all(o in group.options for o, group in zip(choice.options, groups, strict=True))
    assert bound(groups, budget) == pytest.approx(bound([Group(group.options) for group in groups], budget))
    largest_step = max(max(o.cost for o in g.options) - g.cheapest.cost for g in groups)
    assert choice.cost - bound(groups, budget) <= largest_step + 1e-9


@given(groups=instances, extra=st.integers(0, 200))
def test_no_choice_saves_more_than_the_relaxation(groups: list[Group], extra: int) -> None:
    least = least_bytes(groups)
    smallest = best_cost(groups, least)
    best = best_cost(groups, least + extra)
    assert smallest is not None
    assert best is not None
    assert smallest - best <= Savings(groups).within(extra) + 1e-9


@given(
    kinds=st.lists(st.lists(options, min_size=1, max_size=3), min_size=1, max_size=3),
    order=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    extra=st.integers(0, 200),
)
def test_small_instances_of_groups_alike_are_solved_exactly(kinds, order, extra: int) -> None:
    distinct = [Group(kind) for kind in kinds]
    groups = [distinct[i % len(distinct)] for i in order]
    budget = least_bytes(groups) + extra
    choice = choose(groups, budget)
    assert choice.nbytes <= budget
    assert all(o in group.options for o, group in zip(choice.options, groups, strict=True))
    assert choice.cost == pytest.approx(best_cost(groups, budget))


def test_many_groups_of_few_sizes_are_exact() -> None:
    """Layers placed whole: 2^40 choices, few that differ in bytes."""
    groups = [Group([Option(0, 0, 1.0), Option(1, 30 if i % 3 else 40, 0.0)]) for i in range(40)]
    choice = choose(groups, 505)
    assert choice.cost == 40 - 16  # 16 of size 30


def test_large_instances_are_near_their_bound() -> None:
    groups = [
        Group(Option(k, k * (97 + i), (1 - k / 200) ** 2 * (1 + i % 5)) for k in range(200))
        for i in range(12)
    ]
    choice = choose(groups, 60_000)
    assert choice.nbytes <= 60_000
    least = bound(groups, 60_000)
    assert least <= choice.cost <= least * 1.01


@given(groups=instances)
def test_with_room_for_everything_nothing_is_lost(groups: list[Group]) -> None:
    choice = choose(groups, 10_000)
    assert choice.cost == pytest.approx(sum(group.cheapest.cost for group in groups))


@given(groups=instances, budget=st.integers(20, 200))
def test_gap_is_less_than_one_step(groups: list[Group], budget: int) -> None:
    """What a choice loses against the bound is at most the one step that did not fit."""
    if best_cost(groups, budget) is None:
        return
    choice = relaxed(groups, budget)
    largest_step = max(max(o.cost for o in g.options) - g.cheapest.cost for g in groups)
    assert choice.cost - bound(groups, budget) <= largest_step + 1e-9


def test_convex_options_of_equal_size_are_solved_exactly() -> None:
    sizes = (10, 20, 30)
    groups = [Group(Option(0, s, w / s) for s in sizes) for w in (1.0, 5.0, 20.0, 3.0)]
    for budget in range(40, 130, 10):
        choice = relaxed(groups, budget)
        assert choice.cost == pytest.approx(best_cost(groups, budget))
        assert choice.nbytes in (budget, 120)
