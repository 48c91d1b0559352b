"""Bytes of one memory: every allocation is counted against a limit before it is made."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from pintpot.errors import AcceleratorMemoryError


class Kind(StrEnum):
    """What memory is for, as a plan names it (`planner.placement.Usage`)."""

    DENSE = "dense"
    EXPERTS = "experts"
    CACHE = "cache"
    BUFFERS = "buffers"


class MemoryBudget:
    """At most `limit_bytes` at once: `used_bytes` now, of which kind in `by_kind`; `peak_bytes` at most."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        self.name = name
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.peak_bytes = 0
        self.by_kind: Counter[Kind] = Counter()

    @property
    def free_bytes(self) -> int:
        return self.limit_bytes - self.used_bytes

    def take(self, n_bytes: int, kind: Kind, what: str) -> None:
        """Counts an allocation. Raises AcceleratorMemoryError, and counts nothing, where it does not fit."""
        if n_bytes > self.free_bytes:
            raise AcceleratorMemoryError(
                f"{self.name}: {what} needs {n_bytes:,} bytes, {self.used_bytes:,} of {self.limit_bytes:,} "
                "are taken: allow more (--vram), a smaller context (-c) or batch (-b), or fewer layers (-ngl)"
            )
        self.used_bytes += n_bytes
        self.by_kind[kind] += n_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)

    def give(self, n_bytes: int, kind: Kind) -> None:
        """Counts bytes that were freed."""
        self.used_bytes -= n_bytes
        self.by_kind[kind] -= n_bytes

    def reserve(self, n_bytes: int, kind: Kind, what: str) -> MemoryBudget:
        """A part of this memory, taken whole, with an account of its own."""
        self.take(n_bytes, kind, what)
        return MemoryBudget(f"{self.name}, {what}", n_bytes)
