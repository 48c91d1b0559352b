"""A machine described in words, to plan for one that is not at hand.

Units: KB, MB, GB, TB are powers of 1000 and KiB, MiB, GiB, TiB powers of 1024, in sizes and (with /s) rates.
A card's name takes the size on its box (`RTX 5060 Ti 16GB`), which memory chips count in GiB.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

from pintpot.errors import UsageError
from pintpot.hardware.bandwidth import assumed_ram_bandwidth
from pintpot.hardware.catalog import find_gpu, match_gpu, unified_memory_bytes
from pintpot.hardware.machine import CPU, GPU, Hardware, Memory

_UNITS = {f"{p}b": 1000**i for i, p in enumerate("kmgt", 1)}
_UNITS |= {f"{p}ib": 1024**i for i, p in enumerate("kmgt", 1)}
_SYSTEM_BYTES = 2 << 30  # what an idle desktop keeps for itself


def parse_bytes(flag: str, text: str) -> int:
    """Bytes of `32GiB`, `24 GB`, `512MiB`. Raises UsageError that names `flag`."""
    value = _parse(text.strip())
    if value is None:
        raise UsageError(f"{flag} {text!r}: expected a size such as 32GiB (2^30) or 24GB (10^9)")
    return int(value)


def parse_rate(flag: str, text: str) -> float:
    """Bytes a second of `60GB/s`. Raises UsageError that names `flag`."""
    plain = text.strip()
    value = _parse(plain[:-2]) if plain.lower().endswith("/s") else None
    if value is None:
        raise UsageError(f"{flag} {text!r}: expected a rate such as 60GB/s (10^9) or 56GiB/s (2^30)")
    return value


def _parse(text: str) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]i?b)", text, re.ASCII | re.IGNORECASE)
    if match is None:
        return None
    value = float(match[1]) * _UNITS[match[2].lower()]
    return value if math.isfinite(value) and value >= 1 else None


def describe(
    gpu: str | None = None,
    vram: str | None = None,
    ram: str | None = None,
    ram_bandwidth: str | None = None,
    cores: int | None = None,
    base: Hardware | None = None,
) -> Hardware:
    """`base` with what the flags --gpu, --vram, --ram, --ram-bandwidth and --cores say instead.

    gpu is a name of the catalog, or `none`; vram is for the first GPU. A described machine is idle: VRAM is
    all free, and of RAM all but 2 GiB. Without base, ram must be given (or follow from a GPU with unified
    memory), and a processor with 8 cores and AVX2 is assumed. Raises UsageError: one line, with the flag.
    """
    if cores is not None and cores < 1:
        raise UsageError(f"--cores {cores}: expected 1 or more")
    gpus = _described_gpus(gpu, vram, base)
    notes = list(base.notes) if base else []
    unified = next((n for n in map(unified_memory_bytes, gpus) if n), None) if gpu else None
    if ram is not None:
        memory = _idle(parse_bytes("--ram", ram))
    elif unified:
        memory = _idle(unified)
    elif base:
        memory = base.memory
    else:
        raise UsageError("--ram: needed to describe a machine, such as --ram 32GiB")
    cpu = base.cpu if base else CPU("described CPU", cores=8, threads=8, isa="avx2")
    if base is None and cores is None:
        notes.append("CPU: 8 cores with AVX2 are assumed; --cores says otherwise")
    if cores is not None:
        cpu = replace(cpu, cores=cores, threads=cores)
    hardware = Hardware(
        cpu=cpu,
        memory=memory,
        gpus=gpus,
        processes=base.processes if base and ram is None else (),
        wsl=base.wsl if base else False,
        notes=tuple(notes),
    )
    return _with_ram_bandwidth(hardware, ram_bandwidth, base, unified is not None)


def _with_ram_bandwidth(
    hardware: Hardware, flag: str | None, base: Hardware | None, unified: bool
) -> Hardware:
    if flag is not None:
        rate, source = parse_rate("--ram-bandwidth", flag), "flag"
    elif unified and hardware.gpus[0].bandwidth_bytes_s:
        rate, source = hardware.gpus[0].bandwidth_bytes_s, "catalog: memory shared with the GPU"
    elif base:
        rate, source = base.ram_bandwidth_bytes_s, base.ram_bandwidth_source
    else:
        rate, source = assumed_ram_bandwidth(hardware.cpu)
    return replace(hardware, ram_bandwidth_bytes_s=rate, ram_bandwidth_source=source)


def _idle(total_bytes: int) -> Memory:
    return Memory(total_bytes, max(total_bytes - _SYSTEM_BYTES, total_bytes // 2))


def _described_gpus(name: str | None, vram: str | None, base: Hardware | None) -> tuple[GPU, ...]:
    gpus = base.gpus if base else ()
    if name is not None and name.strip().lower() == "none":
        if vram is not None:
            raise UsageError(f"--vram {vram}: there is no GPU to have it (--gpu none)")
        return ()
    nbytes = None if vram is None else parse_bytes("--vram", vram)
    if name is not None:
        try:
            gpus = (find_gpu(name),)
        except UsageError as error:
            by_size = None if nbytes is None else match_gpu(name, nbytes)  # an ambiguous name
            if by_size is None:
                raise UsageError(f"--gpu: {error}") from None
            gpus = (by_size,)
    if nbytes is None:
        return gpus
    if not gpus:
        raise UsageError(f"--vram {vram}: there is no GPU here to have it; name one with --gpu")
    return (replace(gpus[0], vram_total_bytes=nbytes, vram_free_bytes=nbytes), *gpus[1:])
