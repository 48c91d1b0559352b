"""What the CPU offers to this process."""

from __future__ import annotations

import os
from pathlib import Path

from pintpot.hardware.files import read_text

_SYS_CPU = Path("/sys/devices/system/cpu")
_CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def available_cpus() -> frozenset[int]:
    """Logical CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def quota_cpus() -> float | None:
    """CPUs' worth of time the cgroup (container) allows; None when it sets no limit."""
    parts = (read_text(_CGROUP_CPU_MAX) or "").split()
    if len(parts) != 2 or not all(p.isdigit() for p in parts) or parts[1] == "0":
        return None
    return int(parts[0]) / int(parts[1])


def default_threads() -> int:
    """One thread a physical core that this process may use: hyperthreads share the vector units."""
    cpus = available_cpus()
    cores = {read_text(_SYS_CPU / f"cpu{c}/topology/thread_siblings_list") or str(c) for c in cpus}
    quota = quota_cpus()
    n = len(cores) if quota is None else min(len(cores), int(quota))
    return max(1, n)
