"""RAM, swap, and the programs that hold much of it."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from pintpot.hardware.cgroup import memory_limit
from pintpot.hardware.machine import Memory, Process
from pintpot.hardware.tree import Tree

_HELD_MUCH_BYTES = 256 << 20
_SHOWN = 10


def read_memory(tree: Tree, notes: list[str]) -> Memory:
    """Memory from /proc/meminfo and the cgroups; without /proc the size alone, from sysconf."""
    table = tree.table("/proc/meminfo")
    total, available = tree.kib(table, "MemTotal"), tree.kib(table, "MemAvailable")
    if total is None:
        total = _sysconf_bytes()
        notes.append(
            "/proc/meminfo: not readable; "
            + ("memory in use is unknown" if total else "memory size is unknown, give it with --ram")
        )
    elif available is None:
        notes.append("/proc/meminfo: no MemAvailable; all memory is taken as available")
    limit = memory_limit(tree, notes)
    available = total if available is None else available
    for bound in (limit.limit_bytes, limit.room_bytes):
        available = available if bound is None else min(available, bound)
    swap_total, swap_free = tree.kib(table, "SwapTotal") or 0, tree.kib(table, "SwapFree") or 0
    return Memory(
        total_bytes=total,
        available_bytes=available,
        limit_bytes=limit.limit_bytes,
        swap_total_bytes=swap_total,
        swap_used_bytes=max(0, swap_total - swap_free),
        swap_rotational=_swap_rotational(tree),
    )


def memory_limit_bytes(tree: Tree | None = None) -> int | None:
    """RAM and swap of the machine, or of the cgroup (container) where that allows less; None: unknown."""
    tree = tree or Tree()
    table = tree.table("/proc/meminfo")
    ram, swap = tree.kib(table, "MemTotal"), tree.kib(table, "SwapTotal")
    if ram is None or swap is None:
        return None
    limit = memory_limit(tree, [])
    ram = ram if limit.limit_bytes is None else min(ram, limit.limit_bytes)
    swap = swap if limit.swap_bytes is None else min(swap, limit.swap_bytes)
    return ram + swap if limit.both_bytes is None else min(ram + swap, limit.both_bytes)


def _sysconf_bytes() -> int:
    """RAM where there is no /proc: macOS and the BSDs know it; 0 elsewhere."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _swap_rotational(tree: Tree) -> bool | None:
    """Whether any swap lies on a disk that turns."""
    kinds = []
    for line in tree.lines("/proc/swaps")[1:]:
        fields = line.split()
        if len(fields) > 1:
            path = fields[0].replace("\\040", " ")
            kinds.append(rotational(tree, path if fields[1] == "file" else None, PurePosixPath(path).name))
    known = [kind for kind in kinds if kind is not None]
    return any(known) if known else None


def mount_of(tree: Tree, path: str) -> tuple[str, str] | None:
    """(device number, file system type) that an absolute path lies on, from /proc/self/mountinfo."""
    best = None
    for line in tree.lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and kind:
            point = fields[4].replace("\\040", " ")
            longer = best is None or len(point) >= len(best[0])  # a later mount hides an earlier one
            if longer and PurePosixPath(path).is_relative_to(point):
                best = (point, fields[2], kind[0])
    return best and (best[1], best[2])


def rotational(tree: Tree, path: str | None, device: str = "") -> bool | None:
    """Whether a file's disk, or a block device by its name in /dev, turns; None: nobody says."""
    folder = f"/sys/class/block/{device}"
    if path is not None:
        mount = mount_of(tree, path)
        folder = f"/sys/dev/block/{mount[0]}" if mount else ""
    # A partition has no queue of its own: its folder lies in the disk's.
    for queue in (f"{folder}/queue", f"{folder}/../queue"):
        number = tree.number(f"{queue}/rotational") if folder else None
        if number is not None:
            return bool(number)
    return None


def read_processes(tree: Tree, own_pid: int) -> tuple[Process, ...]:
    """Programs other than this one that hold 256 MiB or more, biggest first, at most 10.

    Held is what cannot be dropped and read again from a file: anonymous and shared memory, and swap.
    """
    found = []
    for pid in tree.names("/proc", "[0-9]*"):
        if not pid.isdecimal() or int(pid) == own_pid:
            continue
        status = tree.table(f"/proc/{pid}/status")
        held = sum(tree.kib(status, key) or 0 for key in ("RssAnon", "RssShmem", "VmSwap"))
        if held >= _HELD_MUCH_BYTES:
            found.append(Process(status.get("Name", "?"), int(pid), held))
    return tuple(sorted(found, key=lambda p: -p.nbytes)[:_SHOWN])


def is_wsl(tree: Tree) -> bool:
    """Whether this is Linux inside Windows (WSL): its kernel's release names Microsoft."""
    release = tree.text("/proc/sys/kernel/osrelease") or tree.text("/proc/version") or ""
    return "microsoft" in release.lower()
