"""Limits that a control group (container, systemd slice) sets, of version 1 or 2, at any depth.

A limit may stand in any group from the process's own up to the root, so all are looked at. Inside a container
the group's path in /proc/self/cgroup may lie outside what is mounted; then the mount itself is the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from pintpot.hardware.tree import Tree

_V1_NO_LIMIT = 1 << 60  # version 1 writes "no limit" as the largest multiple of a page


@dataclass(frozen=True)
class MemoryLimit:
    """The tightest limits, and the room left below all of them; None where no group limits that."""

    limit_bytes: int | None  # RAM
    room_bytes: int | None  # RAM
    swap_bytes: int | None  # swap alone (version 2)
    both_bytes: int | None  # RAM and swap together (version 1)


@dataclass(frozen=True)
class _Group:
    folder: str
    version: int


def _mounts(tree: Tree, controller: str) -> dict[int, tuple[str, str]]:
    """Version to (root inside the hierarchy, mount point), from /proc/self/mountinfo (proc(5))."""
    found = {}
    for line in tree.lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or not kind:
            continue
        if kind[0] == "cgroup2":
            found[2] = (fields[3], fields[4])
        elif kind[0] == "cgroup" and controller in kind[-1].split(","):
            found[1] = (fields[3], fields[4])
    return found


def _own_path(tree: Tree, controller: str, version: int) -> str | None:
    for line in tree.lines("/proc/self/cgroup"):
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if (version == 2 and not names) or (version == 1 and controller in names.split(",")):
            return path
    return None


def _groups(tree: Tree, controller: str) -> list[_Group]:
    """The process's group and all above it that can be seen."""
    groups = []
    for version, (root, mount) in _mounts(tree, controller).items():
        own = _own_path(tree, controller, version)
        if own is None:
            continue
        below = PurePosixPath()
        if ".." not in PurePosixPath(own).parts and PurePosixPath(own).is_relative_to(root):
            below = PurePosixPath(own).relative_to(root)
        groups += [_Group(str(PurePosixPath(mount) / p), version) for p in (below, *below.parents)]
    return list(dict.fromkeys(groups))


def memory_limit(tree: Tree, notes: list[str]) -> MemoryLimit:
    """What memory.max / memory.limit_in_bytes and their swap files allow.

    File pages that a group has cached and not used lately count as room. A limit that is there and cannot be
    read leaves a note, and counts as none.
    """
    groups = _groups(tree, "memory")
    limits, rooms = [], []
    for group in groups:
        name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
        limit = _limit(tree, group, name)
        if limit is None and _is_unreadable(tree, f"{group.folder}/{name}"):
            notes.append(
                f"{group.folder}/{name}: not readable; less memory may be allowed than is planned with"
            )
        used = tree.number(f"{group.folder}/memory.{'current' if group.version == 2 else 'usage_in_bytes'}")
        if limit is not None:
            limits.append(limit)
            if used is not None:
                rooms.append(max(0, limit - used + _cached_bytes(tree, group)))
    swap = [_limit(tree, g, "memory.swap.max") for g in groups if g.version == 2]
    both = [_limit(tree, g, "memory.memsw.limit_in_bytes") for g in groups if g.version == 1]
    return MemoryLimit(
        limit_bytes=min(limits, default=None),
        room_bytes=min(rooms, default=None),
        swap_bytes=min((n for n in swap if n is not None), default=None),
        both_bytes=min((n for n in both if n is not None), default=None),
    )


def _limit(tree: Tree, group: _Group, name: str) -> int | None:
    limit = tree.number(f"{group.folder}/{name}")
    return None if limit is None or limit >= _V1_NO_LIMIT else limit


def _is_unreadable(tree: Tree, path: str) -> bool:
    """Whether a limit is there that says neither a number nor that there is none (the root has no file)."""
    text = tree.text(path)
    return tree.has(path) if text is None else not (text.isdecimal() or text == "max")


def _cached_bytes(tree: Tree, group: _Group) -> int:
    key = "inactive_file" if group.version == 2 else "total_inactive_file"
    pairs = (line.split() for line in tree.lines(f"{group.folder}/memory.stat"))
    return next((int(p[1]) for p in pairs if len(p) == 2 and p[0] == key and p[1].isdecimal()), 0)


def cpu_quota(tree: Tree) -> float | None:
    """CPUs' worth of time allowed (cpu.max, or cpu.cfs_quota_us / cpu.cfs_period_us); None: no limit."""
    quotas = []
    for group in _groups(tree, "cpu"):
        if group.version == 2:
            parts = (tree.text(f"{group.folder}/cpu.max") or "").split()
        else:
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            parts = [tree.text(f"{group.folder}/{name}") or "" for name in files]
        if len(parts) == 2 and all(p.isdecimal() and int(p) for p in parts):
            quotas.append(int(parts[0]) / int(parts[1]))
    return min(quotas, default=None)
