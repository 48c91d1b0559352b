"""Reads this machine. Whatever fails costs that one fact and leaves a note; nothing here raises.

Only files and the GPU's management library are read, nothing is measured: it takes some milliseconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pintpot.hardware.bandwidth import recall, with_measured
from pintpot.hardware.cpu import available_cpus, read_cpu
from pintpot.hardware.drm import read_drm
from pintpot.hardware.machine import CPU, GPU, Hardware, Memory, Process
from pintpot.hardware.memory import is_wsl, read_memory, read_processes
from pintpot.hardware.nvidia import load_nvml, read_nvidia
from pintpot.hardware.tree import Tree

__all__ = ["CPU", "GPU", "Hardware", "Memory", "Process", "probe", "probe_below"]


def probe() -> Hardware:
    """This machine, now."""
    return probe_below(Tree(), load_nvml(), available_cpus())


def probe_below(
    tree: Tree, nvml: Any | None, cpus: frozenset[int], cache_folder: Path | None = None
) -> Hardware:
    """The machine that these files, this NVML module and these CPUs show (tests hand in their own)."""
    notes: list[str] = []
    cpu = read_cpu(tree, cpus, notes)
    memory = read_memory(tree, notes)
    hardware = Hardware(
        cpu=cpu,
        memory=memory,
        gpus=(*read_nvidia(nvml, tree, notes), *read_drm(tree, notes)),
        processes=read_processes(tree, os.getpid()),
        wsl=is_wsl(tree),
        notes=tuple(notes),
    )
    return with_measured(hardware, recall(cpu, memory, cache_folder))
