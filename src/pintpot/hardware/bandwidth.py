"""How fast memory is read: measured once per machine and remembered, assumed until then.

Measuring takes native code and, for GPUs, torch, so the functions that do it are handed in
(`pintpot.runtime.bandwidth` does); what they find is kept in `bandwidth.json` of the cache folder.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pintpot.hardware.machine import CPU, GPU, Hardware, Memory
from pintpot.store.folders import cache_dir
from pintpot.store.remembered import read_remembered, write_remembered

_FORMAT = 1

# Rules of thumb, to be replaced by a measurement: the share of the theoretical rate that reading reaches, and
# the most that one core asks for (two Zen 5 cores read 65-77 GB/s of DDR5).
_EFFICIENCY = 0.8
_CORE_BYTES_S = 35e9


@dataclass(frozen=True)
class _Platform:
    """What a CPU's name says about its memory: channels of 64 bits and mega-transfers a second."""

    pattern: str
    memory: str
    channels: int
    mt_s: int

    @property
    def bytes_s(self) -> float:
        return self.channels * 8 * self.mt_s * 1e6


# The makers' specifications (ark.intel.com, amd.com) for all slots filled with the fastest official memory;
# platforms that take two generations count as the slower. First match wins.
_PLATFORMS = (
    _Platform(r"EPYC.* 9\d\d5", "DDR5-6000", 12, 6000),
    _Platform(r"EPYC.* 9\d\d4", "DDR5-4800", 12, 4800),
    _Platform(r"EPYC.* 7\d\d[123]", "DDR4-3200", 8, 3200),
    _Platform(r"Threadripper PRO [79]", "DDR5-5200", 8, 5200),
    _Platform(r"Threadripper PRO", "DDR4-3200", 8, 3200),
    _Platform(r"Threadripper [79]", "DDR5-5200", 4, 5200),
    _Platform(r"Threadripper", "DDR4-3200", 4, 3200),
    _Platform(r"Ryzen AI MAX", "LPDDR5X-8000", 4, 8000),
    _Platform(r"Ryzen AI", "DDR5-5600", 2, 5600),
    _Platform(r"Ryzen \d (PRO )?[789]\d\d\d", "DDR5-5200", 2, 5200),
    _Platform(r"Ryzen \d (PRO )?6\d\d\d", "DDR5-4800", 2, 4800),
    _Platform(r"Ryzen", "DDR4-3200", 2, 3200),
    _Platform(r"Xeon.*(Platinum|Gold|Silver).* [3-9][45]\d\d|Xeon.* w[3579]-[23]4", "DDR5-4800", 8, 4800),
    _Platform(r"Xeon.*(Platinum|Gold|Silver).* [3-9]3\d\d", "DDR4-3200", 8, 3200),
    _Platform(r"Xeon.*(Platinum|Gold|Silver)", "DDR4-2933", 6, 2933),
    _Platform(r"Core.* Ultra", "DDR5-5600", 2, 5600),
)
_ORDINARY = _Platform("", "DDR4-3200", 2, 3200)


def assumed_ram_bandwidth(cpu: CPU) -> tuple[float, str]:
    """Bytes a second to expect of a processor whose memory was not measured, and in words whence."""
    platform = next((p for p in _PLATFORMS if re.search(p.pattern, cpu.name, re.IGNORECASE)), None)
    chosen = platform or _ORDINARY
    why = "from the CPU's name" if platform else "the CPU's name tells nothing"
    rate, share = (
        chosen.bytes_s * _EFFICIENCY,
        f"{_EFFICIENCY:.0%} of {chosen.channels} channels {chosen.memory}",
    )
    if cpu.cores * _CORE_BYTES_S < rate:
        rate, share = cpu.cores * _CORE_BYTES_S, f"what {cpu.cores} cores can ask for"
    return rate, f"assumed: {share} ({why}); `pintpot doctor --measure` measures it"


@dataclass(frozen=True)
class GPUBandwidth:
    """Bytes a second: VRAM as read, and pinned RAM to the GPU."""

    vram_bytes_s: float
    pcie_bytes_s: float


@dataclass(frozen=True)
class Measured:
    """What was measured on a machine. ram_bytes_s: by number of threads; gpus: by the driver's name."""

    date: str  # ISO 8601, of the day
    ram_bytes_s: Mapping[int, float]
    gpus: Mapping[str, GPUBandwidth] = field(default_factory=dict)


def machine_id(cpu: CPU, memory: Memory) -> str:
    """The same for the same CPU, usable cores and memory size (in GiB: kernels differ in what they keep)."""
    text = f"{cpu.name}|{cpu.cores}|{round(memory.total_bytes / 2**30)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recall(cpu: CPU, memory: Memory, folder: Path | None = None) -> Measured | None:
    """What was measured on this machine before; None if nothing, or nothing usable, is remembered."""
    entry = read_remembered(_path(folder), _FORMAT).get(machine_id(cpu, memory))
    try:
        return None if entry is None else _from_json(entry)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def remember(cpu: CPU, memory: Memory, measured: Measured, folder: Path | None = None) -> Path:
    """Writes atomically, beside what is known of other machines. Raises OSError where it cannot."""
    path = _path(folder)
    machines = read_remembered(path, _FORMAT)
    machines[machine_id(cpu, memory)] = {
        "cpu": cpu.name,
        "cores": cpu.cores,
        "memory_bytes": memory.total_bytes,
        "date": measured.date,
        "ram_bytes_s": {str(n): rate for n, rate in measured.ram_bytes_s.items()},
        "gpus": {
            name: {"vram_bytes_s": g.vram_bytes_s, "pcie_bytes_s": g.pcie_bytes_s}
            for name, g in measured.gpus.items()
        },
    }
    write_remembered(path, _FORMAT, machines)
    return path


def with_measured(hardware: Hardware, measured: Measured | None) -> Hardware:
    """The machine with measured rates in place of assumed ones."""
    if measured is None:
        rate, source = assumed_ram_bandwidth(hardware.cpu)
        return replace(hardware, ram_bandwidth_bytes_s=rate, ram_bandwidth_source=source)
    threads, rate = max(measured.ram_bytes_s.items(), key=lambda item: item[1])
    return replace(
        hardware,
        ram_bandwidth_bytes_s=rate,
        ram_bandwidth_source=f"measured {measured.date} with {threads} threads",
        gpus=tuple(_measured_gpu(gpu, measured) for gpu in hardware.gpus),
    )


def _measured_gpu(gpu: GPU, measured: Measured) -> GPU:
    rates = measured.gpus.get(gpu.name)
    if rates is None:
        return gpu
    source = f"measured {measured.date}"
    return replace(
        gpu,
        bandwidth_bytes_s=rates.vram_bytes_s,
        bandwidth_source=source,
        pcie_bytes_s=rates.pcie_bytes_s,
        pcie_source=source,
    )


def _path(folder: Path | None) -> Path:
    return (folder or cache_dir()) / "bandwidth.json"


def _from_json(entry: dict[str, Any]) -> Measured:
    ram = {int(n): _rate(rate) for n, rate in entry["ram_bytes_s"].items()}
    if not ram:
        raise ValueError("no RAM bandwidth")
    gpus = {
        str(name): GPUBandwidth(_rate(g["vram_bytes_s"]), _rate(g["pcie_bytes_s"]))
        for name, g in entry["gpus"].items()
    }
    return Measured(str(entry["date"]), ram, gpus)


def _rate(value: Any) -> float:
    rate = float(value)
    if not math.isfinite(rate) or rate <= 0:
        raise ValueError("not a rate")
    return rate
