"""What memory this process could have at most."""

from __future__ import annotations

from pathlib import Path

from pintpot.hardware.files import read_text

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def memory_limit_bytes() -> int | None:
    """RAM and swap of the machine, or of the cgroup (container) where that allows less; None: unknown."""
    lines = (read_text(_MEMINFO) or "").splitlines()
    kib = {key: value.split()[0] for key, _, value in (line.partition(":") for line in lines) if value}
    ram, swap = (kib.get(key, "") for key in ("MemTotal", "SwapTotal"))
    if not ram.isdigit() or not swap.isdigit():
        return None
    return _capped(int(ram) * 1024, "memory.max") + _capped(int(swap) * 1024, "memory.swap.max")


def _capped(nbytes: int, limit: str) -> int:
    text = read_text(_CGROUP / limit) or ""
    return min(nbytes, int(text)) if text.isdigit() else nbytes
