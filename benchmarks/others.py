"""How much of the machine something else used meanwhile: what makes a measurement worthless.

A program whose threads wait for each other by spinning (llama.cpp's do) loses far more than the CPU time it
is denied, so that a busy machine does not only slow both programs down: it changes their ratio.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

_STAT = Path("/proc/stat")


class OthersWatch:
    """From its making on: which share of the CPUs' time other programs used, or the hypervisor withheld."""

    def __init__(self) -> None:
        self._begin = time.perf_counter(), _busy_seconds(), _own_seconds()

    def share(self) -> float | None:
        """0 to 1; None where the system does not say. Processes started from here must have ended."""
        start, busy, own = self._begin
        now = _busy_seconds()
        if busy is None or now is None:
            return None
        others = (now - busy) - (_own_seconds() - own)
        share = others / (time.perf_counter() - start) / (os.cpu_count() or 1)
        return min(1.0, max(0.0, share))  # the system counts in hundredths of a second


def _busy_seconds(stat: Path = _STAT) -> float | None:
    """CPU seconds since boot that were not idle, of all CPUs together, stolen ones included (proc(5))."""
    if not stat.exists():
        return None
    fields = stat.read_text(encoding="utf-8").splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """CPU seconds of this process and of those it started that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
