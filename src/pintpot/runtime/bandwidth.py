"""Measures this machine's bandwidths and remembers them."""

from __future__ import annotations

import datetime
import os
from dataclasses import replace

from pintpot.hardware.bandwidth import Measured, remember, with_measured
from pintpot.hardware.machine import Hardware
from pintpot.kernels.bandwidth import gpu_bandwidths, ram_read_bytes_s

# Several times the last-level cache, but passes short enough to find quiet moments between other programs.
_CACHES = 8
_LEAST_BYTES, _MOST_BYTES = 256 << 20, 2 << 30


def measure_bandwidth(hardware: Hardware) -> Hardware:
    """The machine with rates measured now, which are remembered for the next `probe`.

    RAM is read with 1, 2, 4, ... threads up to one a core, a second each, from a buffer of 8 times the
    last-level cache (256 MiB to 2 GiB, and at most an eighth of what is available). Where the cache folder
    cannot be written, the figures hold for this value only, and a note says so.
    """
    cores, load = hardware.cpu.cores, _load()
    threads = sorted({*(2**k for k in range(cores.bit_length()) if 2**k <= cores), cores})
    n_bytes = min(max(_LEAST_BYTES, _CACHES * (hardware.cpu.l3_bytes or 0)), _MOST_BYTES)
    n_bytes = max(8, min(n_bytes, hardware.memory.available_bytes // 8))
    measured = Measured(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        ram_bytes_s=ram_read_bytes_s(threads, n_bytes),
        gpus=gpu_bandwidths(),
    )
    result = with_measured(hardware, measured)
    if load > cores / 2:
        note = f"bandwidths were measured while the load was {load:.1f}: measure again when nothing else runs"
        result = replace(result, notes=(*result.notes, note))
    try:
        remember(hardware.cpu, hardware.memory, measured)
    except OSError as error:
        note = f"{error.filename or 'cache folder'}: bandwidths are not remembered ({error.strerror})"
        result = replace(result, notes=(*result.notes, note))
    return result


def _load() -> float:
    """Programs that ran at a time over the last minute; 0 where the system does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
