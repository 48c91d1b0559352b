"""What the CPU offers to this process."""

from __future__ import annotations

import os
import platform

from pintpot.hardware.cgroup import cpu_quota
from pintpot.hardware.machine import CPU
from pintpot.hardware.tree import Tree

_SYS_CPU = "/sys/devices/system/cpu"

# What csrc/cpu_features.cpp asks for, in the words of /proc/cpuinfo.
_ISA_FLAGS = {
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
    "avx2": {"avx2", "fma", "f16c", "bmi2"},
}


def available_cpus() -> frozenset[int]:
    """Logical CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def default_threads(tree: Tree | None = None, cpus: frozenset[int] | None = None) -> int:
    """One thread a physical core that this process may use: hyperthreads share the vector units."""
    tree, cpus = tree or Tree(), cpus or available_cpus()
    cores = {tree.text(f"{_SYS_CPU}/cpu{c}/topology/thread_siblings_list") or str(c) for c in cpus}
    quota = cpu_quota(tree)
    n = len(cores) if quota is None else min(len(cores), int(quota))
    return max(1, n)


def read_cpu(tree: Tree, cpus: frozenset[int], notes: list[str]) -> CPU:
    """The CPU from /proc/cpuinfo and /sys; what is missing goes into `notes`."""
    info = tree.table("/proc/cpuinfo")  # of the last logical CPU, which is like the others
    name = info.get("model name") or info.get("Model") or platform.processor() or platform.machine()
    if not info:
        notes.append("/proc/cpuinfo: not readable; CPU name and instruction set are unknown")
    caches = {level: _cache_bytes(tree, level, cpus) for level in (2, 3)}
    return CPU(
        name=name or "unknown CPU",
        cores=default_threads(tree, cpus),
        threads=len(cpus),
        isa=_isa(info),
        l2_bytes=caches[2],
        l3_bytes=caches[3],
        numa_nodes=max(1, len(tree.names("/sys/devices/system/node", "node[0-9]*"))),
    )


def _isa(info: dict[str, str]) -> str:
    flags = set(info.get("flags", "").split())
    if not flags >= _ISA_FLAGS["avx2"]:
        return "scalar"
    return "avx512" if flags >= _ISA_FLAGS["avx512"] else "avx2"


def _cache_bytes(tree: Tree, level: int, cpus: frozenset[int]) -> int | None:
    """All caches of a level that these CPUs use, each once."""
    sizes = {}
    for cpu in cpus:
        folder = f"{_SYS_CPU}/cpu{cpu}/cache"
        for index in tree.names(folder, "index*"):
            if tree.number(f"{folder}/{index}/level") == level:
                size = _size(tree.text(f"{folder}/{index}/size") or "")
                if size:
                    sizes[tree.text(f"{folder}/{index}/shared_cpu_list") or str(cpu)] = size
    return sum(sizes.values()) or None


def _size(text: str) -> int:
    """Bytes of `1024K` or `32M`, as /sys writes cache sizes; 0 if it is neither."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    if text[:-1].isdecimal() and text[-1:] in units:
        return int(text[:-1]) * units[text[-1]]
    return 0
