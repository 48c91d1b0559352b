"""What stands in the way of running models here, each with what to do about it (`pintpot doctor`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pintpot.hardware.disk import Disk
from pintpot.hardware.machine import CPU, GPU, Hardware, Process
from pintpot.hardware.paging import Paging
from pintpot.hardware.tree import Tree

_GIB = 1 << 30
_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"

# From here on a person waits: loading 20 GB takes more than 40 s, 13 s.
_SLOW_DISK_BYTES_S = 0.5e9
_FAIR_DISK_BYTES_S = 1.5e9
_FASTEST_TURNING_BYTES_S = 0.35e9  # virtual disks call themselves turning, whatever lies below
_LITTLE_ROOM_BYTES = 20 * _GIB
# Faults a second that wait for a disk; a token of a big model is milliseconds.
_FAULTS_NOTED_S, _FAULTS_STALL_S = 20, 500
_SWAP_NOTED_BYTES_S, _SWAP_STALL_BYTES_S = 1e6, 50e6


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it is, and what to do (empty when all is well)."""

    name: str
    status: Status
    text: str
    fix: str = ""


def examine(hardware: Hardware, paging: Paging | None, disk: Disk, tree: Tree) -> list[Check]:
    """All findings, in the order a person would ask."""
    return [
        *_gpus(hardware),
        _cpu(hardware.cpu, tree),
        *_memory(hardware),
        *_swap(hardware),
        _programs(hardware),
        _bandwidth(hardware),
        _huge_pages(tree),
        _disk(disk),
        *_spilling(paging),
        *_wsl(hardware),
        *(Check("note", Status.WARN, note) for note in hardware.notes),
    ]


def _size(n: float) -> str:
    return f"{n / _GIB:.1f} GiB"


def _rate(n: float | None) -> str:
    return "unknown" if n is None else f"{n / 1e9:.3g} GB/s"


def _listed(processes: tuple[Process, ...]) -> str:
    listed = [f"{p.name} (pid {p.pid}) {_size(p.nbytes)}" for p in processes[:4]]
    more = len(processes) - len(listed)
    return ", ".join([*listed, f"{more} more"] if more else listed)


def _gpus(hardware: Hardware) -> Iterator[Check]:
    if not hardware.gpus:
        yield Check("GPU", Status.OK, "none seen; models run on the CPU")
    for gpu in hardware.gpus:
        link = f"PCIe {gpu.pcie_gen}.0 x{gpu.pcie_width}, " if gpu.pcie_gen and gpu.pcie_width else ""
        yield Check(
            "GPU",
            Status.OK,
            f"{gpu.name}, driver {gpu.driver or 'unknown'}, {_size(gpu.vram_free_bytes)} of "
            f"{_size(gpu.vram_total_bytes)} free, {_rate(gpu.bandwidth_bytes_s)} ({gpu.bandwidth_source}), "
            f"{link}{_rate(gpu.pcie_bytes_s)} ({gpu.pcie_source})",
        )
        yield from _vram(gpu, hardware.wsl)


def _vram(gpu: GPU, wsl: bool) -> Iterator[Check]:
    used = gpu.vram_total_bytes - gpu.vram_free_bytes
    if used > 0.97 * gpu.vram_total_bytes:
        spills = "; the driver moves what does not fit to RAM, many times slower" if wsl else ""
        yield Check(
            "VRAM",
            Status.PROBLEM,
            f"{gpu.name}: full ({_size(used)} used){spills}",
            "end one of its programs, or offload less (lower -ngl, or --n-cpu-moe)",
        )
    elif used > max(_GIB, 0.1 * gpu.vram_total_bytes):
        holders = _listed(gpu.processes) or "the driver does not say by whom"
        yield Check(
            "VRAM",
            Status.WARN,
            f"{gpu.name}: {_size(used)} in use: {holders}",
            "close what is not needed (browsers and other model servers first), or move the desktop to "
            "integrated graphics",
        )


def _cpu(cpu: CPU, tree: Tree) -> Check:
    text = f"{cpu.name}, {cpu.cores} cores ({cpu.threads} threads), {cpu.isa}"
    x86 = "flags" in tree.table("/proc/cpuinfo")
    if cpu.isa == "scalar" and x86:
        fix = (
            "a CPU with AVX2 runs models many times faster; in a virtual machine, pass the host's CPU through"
        )
        return Check("CPU", Status.WARN, f"{text}: no AVX2", fix)
    return Check("CPU", Status.OK, text)


def _memory(hardware: Hardware) -> Iterator[Check]:
    m = hardware.memory
    text = f"{_size(m.available_bytes)} of {_size(m.total_bytes)} available"
    if m.limit_bytes is not None and m.limit_bytes < m.total_bytes:
        yield Check(
            "memory limit",
            Status.WARN,
            f"this container or service may use {_size(m.limit_bytes)} of {_size(m.total_bytes)}",
            "raise it (docker run --memory, systemd MemoryMax=) if models should have more",
        )
    if m.total_bytes and m.available_bytes < 0.05 * m.total_bytes:
        yield Check("RAM", Status.PROBLEM, text, "end programs that hold memory (see below)")
    elif m.available_bytes < 0.25 * m.total_bytes:
        yield Check("RAM", Status.WARN, text, "end programs that hold memory (see below)")
    else:
        yield Check("RAM", Status.OK, text)


def _swap(hardware: Hardware) -> Iterator[Check]:
    m = hardware.memory
    text = f"{_size(m.swap_used_bytes)} of {_size(m.swap_total_bytes)} used"
    if not m.swap_total_bytes:
        yield Check("swap", Status.OK, "none; weights are mapped from their file and need no swap")
    elif m.swap_rotational:
        yield Check("swap", Status.WARN, f"{text}, on a disk that turns", "put swap on an SSD, or use zram")
    elif m.swap_used_bytes > max(_GIB, 0.25 * m.swap_total_bytes):
        yield Check("swap", Status.WARN, text, "close programs, then `sudo swapoff -a && sudo swapon -a`")
    else:
        yield Check("swap", Status.OK, text)


def _programs(hardware: Hardware) -> Check:
    held = sum(p.nbytes for p in hardware.processes)
    if not held:
        return Check("programs", Status.OK, "none holds 256 MiB or more")
    text = f"{_size(held)} held by {len(hardware.processes)}: {_listed(hardware.processes)}"
    if held > 0.25 * hardware.memory.total_bytes:
        return Check("programs", Status.WARN, text, "end those not needed: models could have their memory")
    return Check("programs", Status.OK, text)


def _bandwidth(hardware: Hardware) -> Check:
    text = f"{_rate(hardware.ram_bandwidth_bytes_s)} ({hardware.ram_bandwidth_source})"
    return Check("RAM bandwidth", Status.OK, text)


def _huge_pages(tree: Tree) -> Check:
    text = tree.text(_HUGE_PAGES)
    if text is None:
        return Check("huge pages", Status.OK, "this system does not say")
    mode = next((w.strip("[]") for w in text.split() if w.startswith("[")), text)
    if mode == "never":
        fix = f"echo madvise | sudo tee {_HUGE_PAGES}"
        return Check("huge pages", Status.WARN, "off: caches and scratch memory cost more TLB misses", fix)
    return Check("huge pages", Status.OK, mode)


def _disk(disk: Disk) -> Check:
    room = "room unknown" if disk.free_bytes is None else f"{_size(disk.free_bytes)} free"
    kind = {True: "turning disk", False: "solid state", None: "kind unknown"}[disk.rotational]
    if disk.rotational and (disk.read_bytes_s or 0) > _FASTEST_TURNING_BYTES_S:
        kind = "virtual disk"
    speed = f"reads {_rate(disk.read_bytes_s)}" if disk.read_bytes_s else "speed not measured"
    text = f"{disk.folder}: {speed}, {room} ({disk.filesystem or 'file system unknown'}, {kind})"
    if disk.read_bytes_s is not None and disk.read_bytes_s < _SLOW_DISK_BYTES_S:
        fix = "keep models on an NVMe drive inside the machine; doctor --dir FOLDER tests another place"
        return Check("disk", Status.WARN, text, fix)
    if disk.free_bytes is not None and disk.free_bytes < _LITTLE_ROOM_BYTES:
        return Check("disk", Status.WARN, text, "make room: one model takes 5 to 40 GB")
    if disk.read_bytes_s is not None and disk.read_bytes_s < _FAIR_DISK_BYTES_S:
        return Check("disk", Status.OK, f"{text}; 20 GB load in {20e9 / disk.read_bytes_s:.0f} s")
    return Check("disk", Status.OK, text)


def _spilling(paging: Paging | None) -> Iterator[Check]:
    if paging is None:
        yield Check("spilling", Status.OK, "this system does not count it")
        return
    if paging.swap_in_bytes_s > _SWAP_NOTED_BYTES_S:
        stalls = paging.swap_in_bytes_s > _SWAP_STALL_BYTES_S
        yield Check(
            "swapping",
            Status.PROBLEM if stalls else Status.WARN,
            f"{paging.swap_in_bytes_s / 1e6:.0f} MB/s come back from swap: memory is short",
            "end programs, or run a smaller quantization or context (-c)",
        )
    for run in paging.runs:
        text = f"{run.name} (pid {run.pid})"
        if run.major_faults_s > _FAULTS_NOTED_S:
            stalls = run.major_faults_s > _FAULTS_STALL_S
            yield Check(
                "spilling",
                Status.PROBLEM if stalls else Status.WARN,
                f"{text} waits for the disk {run.major_faults_s:.0f} times a second: its weights do not stay "
                "in RAM (normal while a model loads)",
                "free RAM, offload more to the GPU, or take a smaller quantization",
            )
        else:
            yield Check("spilling", Status.OK, f"{text} runs from memory")
    if not paging.runs:
        yield Check("spilling", Status.OK, "no model is running")


def _wsl(hardware: Hardware) -> Iterator[Check]:
    if hardware.wsl:
        yield Check(
            "WSL",
            Status.WARN,
            f"Linux inside Windows: it is given {_size(hardware.memory.total_bytes)} of the machine's RAM, "
            "and files below /mnt are read slowly",
            "set memory= under [wsl2] in %UserProfile%\\.wslconfig; keep models inside WSL's own disk",
        )
