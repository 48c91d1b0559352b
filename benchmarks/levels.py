"""A kernel at several instruction-set levels, which take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pintpot import _native

_LEAST_S = 0.01  # of a turn, in calls of what is timed


def alternate_levels(
    step: Callable[[], None], levels: Sequence[_native.Isa], *, rounds: int, threads: int
) -> dict[_native.Isa, list[float]]:
    """Seconds of a step by level, a value a round; one thread is timed by its own clock."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    seconds: dict[_native.Isa, list[float]] = {level: [] for level in levels}
    before = _native.active_isa()
    for turn in range(rounds + 1):  # the first warms up
        first = turn % len(levels)
        for level in (*levels[first:], *levels[:first]):
            _native.set_isa(level)
            calls, start = 0, clock()
            while calls == 0 or clock() - start < _LEAST_S:
                step()
                calls += 1
            if turn > 0:
                seconds[level].append((clock() - start) / calls)
    _native.set_isa(before)
    return seconds
