"""One option of each group, least total cost, at most so many bytes: a multiple-choice knapsack.

Groups are the tensors of a model and their options quantized types, or layers and numbers of experts in
VRAM. Small instances are solved exactly: group by group, of all partial choices those are kept that no other
beats in both bytes and cost. Where these get too many, the linear relaxation is solved: on the lower convex
hull of each group's (bytes, cost) points, steps are taken in order of cost saved per byte (Sinha and
Zoltners, "The multiple-choice knapsack problem", Operations Research 27, 1979). What room is left when steps
no longer fit is filled with whatever single change saves most, until none does. Groups are often one and the
same object, such as the layers of a model: those take their steps together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final, Generic, Protocol, TypeVar

T = TypeVar("T")

_MOST_PARTIAL: Final = 4096  # partial choices looked at for a group: milliseconds


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """A choice open to one group: what it takes and what it costs (any unit common to all groups)."""

    kind: T
    nbytes: int
    cost: float


class Group(Generic[T]):
    """The options of a group, at least one; what solving derives of them is found once for the object."""

    def __init__(self, options: Iterable[Option[T]]) -> None:
        self.options = tuple(options)

    @cached_property
    def least_bytes(self) -> int:
        """Of the smallest option."""
        return min(option.nbytes for option in self.options)

    @cached_property
    def cheapest(self) -> Option[T]:
        """The option of least cost, whatever it takes."""
        return min(self.options, key=lambda option: option.cost)

    @cached_property
    def useful(self) -> list[Option[T]]:
        """Options that no other beats in both bytes and cost, from the smallest to the cheapest."""
        return _undominated(self.options)

    @cached_property
    def hull(self) -> list[Option[T]]:
        """The options on the lower convex hull of (bytes, cost), from the smallest to the cheapest."""
        hull: list[Option[T]] = []
        for option in self.useful:
            while len(hull) > 1 and _gain(hull, len(hull) - 2) <= _gain([hull[-1], option], 0):
                hull.pop()
            hull.append(option)
        return hull


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


def least_bytes(groups: Sequence[Group[T]]) -> int:
    """Bytes of the smallest options."""
    return sum(group.least_bytes for group in groups)


def choose(groups: Sequence[Group[T]], budget_bytes: int) -> Choice[T]:
    """The options of least total cost in at most `budget_bytes`, exactly where there are few to look at.

    Raises ValueError when even the smallest options are too large (see `least_bytes`).
    """
    least = least_bytes(groups)
    if least > budget_bytes:
        raise ValueError(f"the smallest options need {least} bytes, {budget_bytes} are allowed")
    return _exact(groups, budget_bytes) or relaxed(groups, budget_bytes)


@dataclass(frozen=True, slots=True)
class _Part(Generic[T]):
    """Options of groups that are one and the same: `n_large` of them take `large`, the others `small`."""

    nbytes: int
    cost: float
    members: list[int]
    small: Option[T]
    large: Option[T]
    n_large: int


@dataclass(frozen=True, slots=True)
class _Partial(Generic[T]):
    """Options of the first groups, as a chain from the last of them."""

    nbytes: int
    cost: float
    part: _Part[T] | None = None
    before: _Partial[T] | None = None


def _parts(group: Group[T], members: list[int]) -> Iterator[tuple[int, list[_Part[T]]]]:
    """(how many groups, what may be chosen for them): together for groups of two options, else one by one."""
    small, large, n = group.useful[0], group.useful[-1], len(members)
    if len(group.useful) > 2:
        for i in members:
            yield 1, [_Part(o.nbytes, o.cost, [i], o, o, 1) for o in group.useful]
        return
    yield n, [
        _Part(
            (n - k) * small.nbytes + k * large.nbytes, (n - k) * small.cost + k * large.cost,
            members, small, large, k,
        )
        for k in range(n + 1 if len(group.useful) == 2 else 1)
    ]  # fmt: skip


def _exact(groups: Sequence[Group[T]], budget_bytes: int) -> Choice[T] | None:
    """The cheapest choice; None when there are too many partial ones to look at."""
    spare = budget_bytes - least_bytes(groups)
    frontier: list[_Partial[T]] = [_Partial(0, 0.0)]
    for group, members in _alike(groups):
        for n, parts in _parts(group, members):
            spare += n * group.least_bytes  # what these groups and those before them may take
            if len(frontier) * len(parts) > _MOST_PARTIAL:
                return None
            grown = [
                _Partial(f.nbytes + p.nbytes, f.cost + p.cost, p, f)
                for f in frontier
                for p in parts
                if f.nbytes + p.nbytes <= spare
            ]
            frontier = _undominated(grown)
    picked: dict[int, Option[T]] = {}
    last: _Partial[T] | None = frontier[-1]
    while last is not None and last.part is not None:
        part = last.part
        picked |= dict.fromkeys(part.members[: part.n_large], part.large)
        picked |= dict.fromkeys(part.members[part.n_large :], part.small)
        last = last.before
    return Choice(tuple(picked[i] for i in range(len(groups))))


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


def _alike(groups: Sequence[Group[T]]) -> list[tuple[Group[T], list[int]]]:
    """The distinct groups, each with the indices at which it stands."""
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(id(group), []).append(i)
    return [(groups[same[0]], same) for same in members.values()]


def _steps(hulls: Sequence[Sequence[Option[T]]]) -> list[tuple[float, int, int]]:
    """(-gain, i, k): what the step from option k of hull i to the next saves a byte, most first.

    Along a hull gains fall, so that the steps of each come in its order.
    """
    return sorted((-_gain(hull, k), i, k) for i, hull in enumerate(hulls) for k in range(len(hull) - 1))


class Savings(Generic[T]):
    """What the relaxation saves for every budget: no choice saves more over the smallest options."""

    def __init__(self, groups: Sequence[Group[T]]) -> None:
        alike = _alike(groups)
        steps = _steps([group.hull for group, _ in alike])
        sizes = [
            len(members) * (group.hull[k + 1].nbytes - group.hull[k].nbytes)
            for group, members, k in ((*alike[i], k) for _, i, k in steps)
        ]
        self._gains = [-gain for gain, _, _ in steps]
        self._nbytes = list(accumulate(sizes, initial=0))
        self._saved = list(
            accumulate((gain * n for gain, n in zip(self._gains, sizes, strict=True)), initial=0.0)
        )

    def within(self, extra_bytes: int) -> float:
        """Cost saved at most by `extra_bytes` more than the smallest options take."""
        k = bisect_right(self._nbytes, extra_bytes) - 1
        rest = (extra_bytes - self._nbytes[k]) * self._gains[k] if k < len(self._gains) else 0.0
        return self._saved[k] + rest


def relaxed(groups: Sequence[Group[T]], budget_bytes: int) -> Choice[T]:
    """The relaxation's choice, rounded down and filled up: as `choose`, for instances of any size."""
    alike = _alike(groups)
    at = [0] * len(alike)
    climbing = [len(members) for _, members in alike]  # the first so many have taken all steps so far
    left = budget_bytes - sum(group.hull[0].nbytes for group in groups)
    picked: dict[int, Option[T]] = {}
    for _, i, k in _steps([group.hull for group, _ in alike]):
        group, members = alike[i]
        extra = group.hull[k + 1].nbytes - group.hull[k].nbytes
        n = min(climbing[i], left // extra)
        picked |= dict.fromkeys(members[n : climbing[i]], group.hull[k])  # steps of others may still fit
        left -= n * extra
        climbing[i], at[i] = n, k + 1
    for (group, members), n, k in zip(alike, climbing, at, strict=True):
        picked |= dict.fromkeys(members[:n], group.hull[k])
    options = [picked[i] for i in range(len(groups))]
    _fill(options, groups, left)
    return Choice(tuple(options))


def _gain(hull: Sequence[Option[T]], k: int) -> float:
    """Cost saved per byte by the step from option k to the next."""
    return (hull[k].cost - hull[k + 1].cost) / (hull[k + 1].nbytes - hull[k].nbytes)


def _fill(picked: list[Option[T]], groups: Sequence[Group[T]], left: int) -> None:
    """Uses up `left` bytes: the change of one group that saves most, as long as there is one."""
    while True:
        best: tuple[float, int, Option[T]] | None = None
        seen: set[tuple[int, int]] = set()
        for i, group in enumerate(groups):
            here = picked[i]
            if (id(group), id(here)) in seen:
                continue
            seen.add((id(group), id(here)))
            most = left + here.nbytes
            for option in group.useful:
                saved = here.cost - option.cost
                if option.nbytes <= most and saved > 0 and (best is None or saved > best[0]):
                    best = (saved, i, option)
        if best is None:
            return
        _, i, option = best
        left -= option.nbytes - picked[i].nbytes
        picked[i] = option
