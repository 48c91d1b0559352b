"""A budget is never exceeded, and what is refused changes nothing."""

from __future__ import annotations

import pytest

from pintpot.errors import AcceleratorMemoryError, MemoryLimitError
from pintpot.kernels.memory import Kind, MemoryBudget


def test_every_byte_counts() -> None:
    memory = MemoryBudget("card", 100)
    memory.take(60, Kind.DENSE, "tensor a")
    memory.take(40, Kind.CACHE, "cache")
    assert (memory.used_bytes, memory.free_bytes, memory.peak_bytes) == (100, 0, 100)
    memory.give(60, Kind.DENSE)
    memory.take(1, Kind.EXPERTS, "slot")
    assert (memory.used_bytes, memory.peak_bytes) == (41, 100)
    assert dict(memory.by_kind) == {Kind.DENSE: 0, Kind.CACHE: 40, Kind.EXPERTS: 1}


def test_what_does_not_fit_is_named_and_not_counted() -> None:
    memory = MemoryBudget("card", 1000)
    memory.take(900, Kind.DENSE, "tensor a")
    with pytest.raises(
        AcceleratorMemoryError, match="card: tensor b needs 101 bytes, 900 of 1,000 are taken"
    ):
        memory.take(101, Kind.EXPERTS, "tensor b")
    assert memory.used_bytes == memory.peak_bytes == 900
    assert issubclass(AcceleratorMemoryError, MemoryLimitError)


def test_a_part_has_an_account_of_its_own() -> None:
    memory = MemoryBudget("card", 100)
    part = memory.reserve(30, Kind.BUFFERS, "a step's arrays")
    part.take(30, Kind.BUFFERS, "x")
    assert memory.used_bytes == 30
    with pytest.raises(AcceleratorMemoryError, match="card, a step's arrays: y needs 1 bytes"):
        part.take(1, Kind.BUFFERS, "y")
