"""Measures this machine's bandwidths and remembers them."""

from __future__ import annotations

import datetime
import os
from dataclasses import replace

from pintpot.hardware.bandwidth import Measured, remember, with_measured
from pintpot.hardware.machine import Hardware
from pintpot.kernels.bandwidth import gpu_bandwidths, ram_read_bytes_s

_MOST_BYTES = 1 << 30
_LEAST_BYTES = 64 << 20


def measure_bandwidth(hardware: Hardware) -> Hardware:
    """The machine with rates measured now, which are remembered for the next `probe`.

    RAM is read with 1, 2, 4, ... threads up to one a core, from a buffer of 1 GiB or an eighth of what is
    available. Where the cache folder cannot be written, the figures hold for this value only, and a note says
    so.
    """
    cores, load = hardware.cpu.cores, _load()
    threads = sorted({*(2**k for k in range(cores.bit_length()) if 2**k <= cores), cores})
    n_bytes = max(_LEAST_BYTES, min(_MOST_BYTES, hardware.memory.available_bytes // 8))
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
