"""Whether memory is short right now: swapping, and model runs that read their weights from disk again.

The counters are the kernel's: pswpin and pswpout of /proc/vmstat (pages), and majflt of /proc/PID/stat (field
12 of proc(5)), which counts page faults that had to wait for a disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pintpot.hardware.tree import Tree

_RUNNERS = ("pintpot", "llama-", "ollama", "koboldcpp", "lm-studio", "lms", "llamafile")


@dataclass(frozen=True)
class Run:
    """A program that runs a language model, and its page faults that had to wait for a disk."""

    name: str
    pid: int
    major_faults_s: float


@dataclass(frozen=True)
class Paging:
    """What moved between memory and disk in a second."""

    swap_in_bytes_s: float
    swap_out_bytes_s: float
    runs: tuple[Run, ...]


def watch_paging(
    tree: Tree, own_pid: int, seconds: float = 1.0, sleep: Callable[[float], None] = time.sleep
) -> Paging | None:
    """Looks twice, `seconds` apart; None where the kernel does not count (no /proc/vmstat)."""
    page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
    swap, faults = _swap_pages(tree), _faults(tree, own_pid)
    if swap is None:
        return None
    start = time.monotonic()
    sleep(seconds)
    took = max(seconds, time.monotonic() - start)
    swap_after, faults_after = _swap_pages(tree) or swap, _faults(tree, own_pid)
    runs = [
        Run(name, pid, (n - faults[pid][1]) / took)
        for pid, (name, n) in faults_after.items()
        if pid in faults
    ]
    moved_in, moved_out = (b - a for a, b in zip(swap, swap_after, strict=True))
    return Paging(moved_in * page / took, moved_out * page / took, tuple(runs))


def _swap_pages(tree: Tree) -> tuple[int, int] | None:
    pairs = (line.split() for line in tree.lines("/proc/vmstat"))
    counts = {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].isdecimal()}
    return (counts.get("pswpin", 0), counts.get("pswpout", 0)) if counts else None


def _faults(tree: Tree, own_pid: int) -> dict[int, tuple[str, int]]:
    """Program and major faults so far of every model run but this process."""
    found = {}
    for pid in tree.names("/proc", "[0-9]*"):
        if not pid.isdecimal() or int(pid) == own_pid:
            continue
        runner = _runner(tree, pid)
        stat = tree.text(f"/proc/{pid}/stat") or ""
        fields = stat.rpartition(")")[2].split()  # a program's name may hold blanks and parentheses
        if runner and len(fields) > 9 and fields[9].isdecimal():
            found[int(pid)] = (runner, int(fields[9]))
    return found


def _runner(tree: Tree, pid: str) -> str | None:
    """The program's name if it runs language models: its own, or that of the script Python was given."""
    words = (tree.text(f"/proc/{pid}/cmdline") or "").split("\0")
    names = [PurePosixPath(word).name for word in words[:3]]
    if names and not names[0].startswith("python"):
        names = names[:1]
    return next((name for name in names if name.startswith(_RUNNERS)), None)
