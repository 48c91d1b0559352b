"""Two programs beside each other: runs that alternate, ratios of each round, medians."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Samples: TypeAlias = dict[str, list[float]]  # by the name of the test
Program: TypeAlias = Callable[[], Samples]

OURS, THEIRS = "pintpot", "llama_cpp"
MEMORY = "memory"  # read once a round beside the programs: bytes a second


def alternate(programs: Mapping[str, Program], rounds: int) -> dict[str, Samples]:
    """Runs every program once a round and gathers samples: test -> program -> samples.

    The order swaps every round, so that drift of a shared machine hits all alike.
    """
    found: dict[str, Samples] = {}
    for round_ in range(rounds):
        order = list(programs) if round_ % 2 == 0 else list(programs)[::-1]
        for name in order:
            for test, samples in programs[name]().items():
                found.setdefault(test, {program: [] for program in programs})[name] += samples
    return found


def compared(samples: Mapping[str, Sequence[float]], *, lower_is_better: bool = False) -> dict[str, Any]:
    """Medians of both programs, and the median, least and greatest of the ratios of the rounds.

    A ratio above 1 says that pintpot is the better one, whichever way is better.
    """
    ours, theirs = samples[OURS], samples[THEIRS]
    ratios = [b / a if lower_is_better else a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        f"{OURS}_median": statistics.median(ours),
        f"{THEIRS}_median": statistics.median(theirs),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }
