"""What the machine and its container offer, read from files like Linux's."""

from __future__ import annotations

import pytest

from pintpot.hardware import cpu, memory

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function: writes the files of a machine."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(cpu, "_CGROUP_CPU_MAX", tmp_path / "cpu.max")

    def write(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text, encoding="ascii")

    return write


MEMINFO = f"MemTotal: {8 << 20} kB\nMemFree: 1 kB\nSwapTotal: {2 << 20} kB\n"


def test_memory_of_a_machine(machine):
    machine(meminfo=MEMINFO)
    assert memory.memory_limit_bytes() == 10 * GIB


def test_memory_of_a_container(machine):
    machine(meminfo=MEMINFO, memory_max=f"{3 * GIB}\n", memory_swap_max="0\n")
    assert memory.memory_limit_bytes() == 3 * GIB
    machine(memory_max="max\n", memory_swap_max="max\n")
    assert memory.memory_limit_bytes() == 10 * GIB


@pytest.mark.parametrize("text", ["", "nonsense", "MemTotal: x kB\nSwapTotal: y kB\n", "MemTotal: 5 kB\n"])
def test_unknown_memory(machine, text):
    machine(meminfo=text)
    assert memory.memory_limit_bytes() is None


def test_no_such_files(machine):
    assert memory.memory_limit_bytes() is None
    assert cpu.quota_cpus() is None


def test_cpu_quota(machine, monkeypatch):
    monkeypatch.setattr(cpu, "available_cpus", lambda: frozenset(range(64)))
    monkeypatch.setattr(cpu, "_SYS_CPU", cpu.Path("/nosuch"))
    machine(cpu_max="150000 100000\n")
    assert cpu.quota_cpus() == 1.5
    assert cpu.default_threads() == 1
    machine(cpu_max="max 100000\n")
    assert cpu.default_threads() == 64
