"""One option of each group, least total cost, at most so many bytes: a multiple-choice knapsack.

Groups are the tensors of a model and their options quantized types, or layers and numbers of experts in
VRAM. Small instances are solved exactly: group by group, of all partial choices those are kept that no other
beats in both bytes and cost. Where these get too many, the linear relaxation is solved: on the lower convex
hull of each group's (bytes, cost) points, steps are taken in order of cost saved per byte (Sinha and
Zoltners, "The multiple-choice knapsack problem", Operations Research 27, 1979). The first step that no
longer fits gives the bound; what room is left is filled with whatever single change saves most, until none
does.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Generic, Protocol, TypeVar

T = TypeVar("T")

_MOST_PARTIAL: Final = 4096  # partial choices kept at once; milliseconds a group


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """A choice open to one group: what it takes and what it costs (any unit common to all groups)."""

    kind: T
    nbytes: int
    cost: float


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """One option a group. `bound`: no choice within the budget costs less than this."""

    options: tuple[Option[T], ...]
    bound: float

    @property
    def nbytes(self) -> int:
        return sum(option.nbytes for option in self.options)

    @property
    def cost(self) -> float:
        return sum(option.cost for option in self.options)


def least_bytes(groups: Sequence[Sequence[Option[T]]]) -> int:
    """Bytes of the smallest options."""
    return sum(min(option.nbytes for option in options) for options in groups)


def choose(groups: Sequence[Sequence[Option[T]]], budget_bytes: int) -> Choice[T]:
    """The options of least total cost in at most `budget_bytes`; exact where `Choice.bound` is its cost.

    Raises ValueError when even the smallest options are too large (see `least_bytes`).
    """
    least = least_bytes(groups)
    if least > budget_bytes:
        raise ValueError(f"the smallest options need {least} bytes, {budget_bytes} are allowed")
    return _exact(groups, budget_bytes) or relaxed(groups, budget_bytes)


@dataclass(frozen=True, slots=True)
class _Partial(Generic[T]):
    """Options of the first groups, as a chain from the last of them."""

    nbytes: int
    cost: float
    option: Option[T] | None = None
    before: _Partial[T] | None = None


def _exact(groups: Sequence[Sequence[Option[T]]], budget_bytes: int) -> Choice[T] | None:
    """The cheapest choice; None when there are too many partial ones to look at."""
    spare = budget_bytes - least_bytes(groups)
    frontier: list[_Partial[T]] = [_Partial(0, 0.0)]
    for options in groups:
        least = min(option.nbytes for option in options)
        spare += least  # what this group and those before it may take
        useful = _undominated(options)
        if len(frontier) * len(useful) > _MOST_PARTIAL:
            return None
        grown = [
            _Partial(p.nbytes + o.nbytes, p.cost + o.cost, o, p)
            for p in frontier
            for o in useful
            if p.nbytes + o.nbytes <= spare
        ]
        frontier = _undominated(grown)
    last: _Partial[T] | None = frontier[-1]
    picked: list[Option[T]] = []
    while last is not None and last.option is not None:
        picked.append(last.option)
        last = last.before
    return Choice(tuple(reversed(picked)), frontier[-1].cost)


class _Priced(Protocol):
    @property
    def nbytes(self) -> int: ...
    @property
    def cost(self) -> float: ...


P = TypeVar("P", bound=_Priced)


def _undominated(found: Sequence[P]) -> list[P]:
    """Those that no other beats in both bytes and cost, from the smallest to the cheapest."""
    kept: list[P] = []
    for one in sorted(found, key=lambda f: (f.nbytes, f.cost)):
        if not kept or one.cost < kept[-1].cost:
            kept.append(one)
    return kept


class Savings(Generic[T]):
    """What the relaxation saves for every budget: no choice saves more over the smallest options."""

    def __init__(self, groups: Sequence[Sequence[Option[T]]]) -> None:
        hulls = _hulls(groups)
        steps = sorted(
            (-_gain(hull, k), hull[k + 1].nbytes - hull[k].nbytes)
            for hull in hulls
            for k in range(len(hull) - 1)
        )
        self._gains = [-gain for gain, _ in steps]
        self._nbytes = list(accumulate((nbytes for _, nbytes in steps), initial=0))
        self._saved = list(accumulate((-gain * nbytes for gain, nbytes in steps), initial=0.0))

    def within(self, extra_bytes: int) -> float:
        """Cost saved at most by `extra_bytes` more than the smallest options take."""
        k = bisect_right(self._nbytes, extra_bytes) - 1
        rest = (extra_bytes - self._nbytes[k]) * self._gains[k] if k < len(self._gains) else 0.0
        return self._saved[k] + rest


def relaxed(groups: Sequence[Sequence[Option[T]]], budget_bytes: int) -> Choice[T]:
    """The relaxation's choice, rounded down and filled up: as `choose`, for instances of any size."""
    hulls = _hulls(groups)
    at = [0] * len(hulls)
    left = budget_bytes - sum(hull[0].nbytes for hull in hulls)
    cost = sum(hull[0].cost for hull in hulls)
    bound: float | None = None
    steps = [(-_gain(hull, 0), i) for i, hull in enumerate(hulls) if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        gain, i = heapq.heappop(steps)
        here, there = hulls[i][at[i]], hulls[i][at[i] + 1]
        extra = there.nbytes - here.nbytes
        if extra > left:
            if bound is None:
                bound = cost + gain * left
            continue  # this group stays; cheaper steps of others may still fit
        at[i] += 1
        left -= extra
        cost += there.cost - here.cost
        if at[i] + 1 < len(hulls[i]):
            heapq.heappush(steps, (-_gain(hulls[i], at[i]), i))
    picked = [hull[k] for hull, k in zip(hulls, at, strict=True)]
    _fill(picked, groups, left)
    found = sum(option.cost for option in picked)
    return Choice(tuple(picked), found if bound is None else min(bound, found))


def _gain(hull: Sequence[Option[T]], k: int) -> float:
    """Cost saved per byte by the step from option k to the next."""
    return (hull[k].cost - hull[k + 1].cost) / (hull[k + 1].nbytes - hull[k].nbytes)


def _hulls(groups: Sequence[Sequence[Option[T]]]) -> list[list[Option[T]]]:
    known: dict[int, list[Option[T]]] = {}  # groups are often one and the same
    for options in groups:
        if id(options) not in known:
            known[id(options)] = _lower_hull(options)
    return [known[id(options)] for options in groups]


def _lower_hull(options: Sequence[Option[T]]) -> list[Option[T]]:
    """The options on the lower convex hull of (bytes, cost), from the smallest to the cheapest."""
    hull: list[Option[T]] = []
    for option in _undominated(options):
        while len(hull) > 1 and _gain(hull, len(hull) - 2) <= _gain([hull[-1], option], 0):
            hull.pop()
        hull.append(option)
    return hull


def _fill(picked: list[Option[T]], groups: Sequence[Sequence[Option[T]]], left: int) -> None:
    """Uses up `left` bytes: the change of one group that saves most, as long as there is one."""
    while True:
        best: tuple[float, int, Option[T]] | None = None
        for i, options in enumerate(groups):
            for option in options:
                saved = picked[i].cost - option.cost
                fits = option.nbytes - picked[i].nbytes <= left
                if fits and saved > 0 and (best is None or saved > best[0]):
                    best = (saved, i, option)
        if best is None:
            return
        _, i, option = best
        left -= option.nbytes - picked[i].nbytes
        picked[i] = option
