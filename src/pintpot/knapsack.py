"""One option of each group, least total cost, at most so many bytes: a multiple-choice knapsack.

Groups are the tensors of a model and their options quantized types, or layers and numbers of experts in
VRAM. Small instances are solved exactly: group by group, of all partial choices those are kept that no other
beats in both bytes and cost. Where these get too many, the linear relaxation is solved: on the lower convex
hull of each group's (bytes, cost) points, steps are taken in order of cost saved per byte (Sinha and
Zoltners, "The multiple-choice knapsack problem", Operations Research 27, 1979). What room is left when steps
no longer fit is filled with whatever single change saves most, until none does. Groups are often one and the
same list of options, such as the layers of a model: those take their steps together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
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
    """One option a group."""

    options: tuple[Option[T], ...]

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
    """The options of least total cost in at most `budget_bytes`, exactly where there are few to look at.

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
    return Choice(tuple(reversed(picked)))


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


@dataclass(frozen=True, slots=True)
class _Alike(Generic[T]):
    """Groups of one list of options, by their indices, and its lower convex hull."""

    members: list[int]
    hull: list[Option[T]]


def _alike(groups: Sequence[Sequence[Option[T]]]) -> list[_Alike[T]]:
    members: dict[int, list[int]] = {}
    for i, options in enumerate(groups):
        members.setdefault(id(options), []).append(i)
    return [_Alike(same, _lower_hull(groups[same[0]])) for same in members.values()]


def _steps(alike: Sequence[_Alike[T]]) -> list[tuple[float, int, int]]:
    """(-gain, kind, k): what the step from option k of a kind's hull to the next saves a byte, most first.

    Along a hull gains fall, so that the steps of a kind come in its order.
    """
    return sorted(
        (-_gain(kind.hull, k), i, k) for i, kind in enumerate(alike) for k in range(len(kind.hull) - 1)
    )


class Savings(Generic[T]):
    """What the relaxation saves for every budget: no choice saves more over the smallest options."""

    def __init__(self, groups: Sequence[Sequence[Option[T]]]) -> None:
        alike = _alike(groups)
        steps = _steps(alike)
        sizes = [
            len(alike[i].members) * (alike[i].hull[k + 1].nbytes - alike[i].hull[k].nbytes)
            for _, i, k in steps
        ]
        self._gains = [-gain for gain, _, _ in steps]
        self._nbytes = list(accumulate(sizes, initial=0))
        self._saved = list(accumulate(map(mul, self._gains, sizes), initial=0.0))

    def within(self, extra_bytes: int) -> float:
        """Cost saved at most by `extra_bytes` more than the smallest options take."""
        k = bisect_right(self._nbytes, extra_bytes) - 1
        rest = (extra_bytes - self._nbytes[k]) * self._gains[k] if k < len(self._gains) else 0.0
        return self._saved[k] + rest


def relaxed(groups: Sequence[Sequence[Option[T]]], budget_bytes: int) -> Choice[T]:
    """The relaxation's choice, rounded down and filled up: as `choose`, for instances of any size."""
    alike = _alike(groups)
    at = [0] * len(alike)
    climbing = [len(kind.members) for kind in alike]  # the first so many of a kind have taken all its steps
    left = budget_bytes - sum(kind.hull[0].nbytes * len(kind.members) for kind in alike)
    picked: dict[int, Option[T]] = {}
    for _, i, k in _steps(alike):
        members, hull = alike[i].members, alike[i].hull
        extra = hull[k + 1].nbytes - hull[k].nbytes
        n = min(climbing[i], left // extra)
        picked |= dict.fromkeys(members[n : climbing[i]], hull[k])  # cheaper steps of others may still fit
        left -= n * extra
        climbing[i], at[i] = n, k + 1
    for kind, n, k in zip(alike, climbing, at, strict=True):
        picked |= dict.fromkeys(kind.members[:n], kind.hull[k])
    options = [picked[i] for i in range(len(groups))]
    _fill(options, groups, left)
    return Choice(tuple(options))


def _gain(hull: Sequence[Option[T]], k: int) -> float:
    """Cost saved per byte by the step from option k to the next."""
    return (hull[k].cost - hull[k + 1].cost) / (hull[k + 1].nbytes - hull[k].nbytes)


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
        seen: set[tuple[int, int]] = set()
        for i, options in enumerate(groups):
            here = picked[i]
            if (id(options), id(here)) in seen:
                continue
            seen.add((id(options), id(here)))
            most = left + here.nbytes
            for option in options:
                saved = here.cost - option.cost
                if option.nbytes <= most and saved > 0 and (best is None or saved > best[0]):
                    best = (saved, i, option)
        if best is None:
            return
        _, i, option = best
        left -= option.nbytes - picked[i].nbytes
        picked[i] = option
