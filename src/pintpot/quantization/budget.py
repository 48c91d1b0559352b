"""Which type each tensor gets under a budget of bytes: a multiple-choice knapsack.

Every tensor has options, each with its bytes and the error it costs; one option a tensor, least total
error, at most so many bytes. The linear relaxation is solved exactly: on the lower convex hull of each
tensor's (bytes, error) points, steps are taken in order of error saved per byte (Sinha and Zoltners, "The
multiple-choice knapsack problem", Operations Research 27, 1979). The first step that no longer fits gives
the bound; what room is left is filled with whatever single change saves most, until none does.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """A type one tensor may get: the tensor's size in it, and the error that costs (any common unit)."""

    kind: T
    nbytes: int
    error: float


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """One option a tensor. `bound`: no choice within the budget has less error than this."""

    options: tuple[Option[T], ...]
    bound: float

    @property
    def nbytes(self) -> int:
        return sum(option.nbytes for option in self.options)

    @property
    def error(self) -> float:
        return sum(option.error for option in self.options)


def least_bytes(tensors: Sequence[Sequence[Option[T]]]) -> int:
    """Bytes of the smallest options."""
    return sum(min(option.nbytes for option in options) for options in tensors)


def choose(tensors: Sequence[Sequence[Option[T]]], budget_bytes: int) -> Choice[T]:
    """The options of least total error in at most `budget_bytes`.

    Raises ValueError when even the smallest options are too large (see `least_bytes`).
    """
    distinct = {id(options): options for options in tensors}  # layers that are alike share one sequence
    hull_of = {key: _lower_hull(options) for key, options in distinct.items()}
    hulls = [hull_of[id(options)] for options in tensors]
    at = [0] * len(hulls)
    left = budget_bytes - sum(hull[0].nbytes for hull in hulls)
    if left < 0:
        raise ValueError(f"the smallest options need {budget_bytes - left} bytes, {budget_bytes} are allowed")
    error = sum(hull[0].error for hull in hulls)
    bound: float | None = None
    steps = [(-_gain(hull, 0), i) for i, hull in enumerate(hulls) if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        gain, i = heapq.heappop(steps)
        here, there = hulls[i][at[i]], hulls[i][at[i] + 1]
        extra = there.nbytes - here.nbytes
        if extra > left:
            if bound is None:
                bound = error + gain * left
            continue  # this tensor stays; cheaper steps of others may still fit
        at[i] += 1
        left -= extra
        error += there.error - here.error
        if at[i] + 1 < len(hulls[i]):
            heapq.heappush(steps, (-_gain(hulls[i], at[i]), i))
    picked = [hull[k] for hull, k in zip(hulls, at, strict=True)]
    _fill(picked, tensors, left)
    found = sum(option.error for option in picked)
    return Choice(tuple(picked), found if bound is None else min(bound, found))


def _gain(hull: Sequence[Option[T]], k: int) -> float:
    """Error saved per byte by the step from option k to the next."""
    return (hull[k].error - hull[k + 1].error) / (hull[k + 1].nbytes - hull[k].nbytes)


def _lower_hull(options: Sequence[Option[T]]) -> list[Option[T]]:
    """The options on the lower convex hull of (bytes, error), from the smallest to the most exact."""
    hull: list[Option[T]] = []
    for option in sorted(options, key=lambda o: (o.nbytes, o.error)):
        if hull and option.error >= hull[-1].error:
            continue  # larger and no better
        while len(hull) > 1 and _gain(hull, len(hull) - 2) <= _gain([hull[-1], option], 0):
            hull.pop()
        hull.append(option)
    return hull


def _fill(picked: list[Option[T]], tensors: Sequence[Sequence[Option[T]]], left: int) -> None:
    """Uses up `left` bytes: the change of one tensor that saves most, as long as there is one."""
    while True:
        best: tuple[float, int, Option[T]] | None = None
        for i, options in enumerate(tensors):
            for option in options:
                saved = picked[i].error - option.error
                fits = option.nbytes - picked[i].nbytes <= left
                if fits and saved > 0 and (best is None or saved > best[0]):
                    best = (saved, i, option)
        if best is None:
            return
        _, i, option = best
        left -= option.nbytes - picked[i].nbytes
        picked[i] = option
