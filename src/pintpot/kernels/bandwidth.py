"""Measures how fast this machine's memories are read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from pintpot import _native
from pintpot.hardware.bandwidth import GPUBandwidth

_COPY_BYTES = 256 << 20
_REPEATS = 10


def ram_read_bytes_s(threads: Sequence[int], n_bytes: int, seconds: float = 1.0) -> dict[int, float]:
    """Bytes a second that RAM gives to each number of threads: the best of the passes that fit `seconds`.

    n_bytes are allocated and should be several times the last-level cache. The best pass counts because
    whatever else runs can only slow one down.
    """
    # Written, and not with zeros: untouched or zero pages may all be one page in the cache.
    data = np.arange(n_bytes // 8, dtype=np.uint64)
    rates = {}
    for n in threads:
        engine = _native.Engine(n)
        best, spent, passes = 0.0, 0.0, 0
        while passes < 3 or spent < seconds:
            start = time.perf_counter()
            _native.read_words(engine, data)
            took = time.perf_counter() - start
            best, spent, passes = max(best, data.nbytes / took), spent + took, passes + 1
        rates[n] = best
    return rates


def gpu_bandwidths() -> dict[str, GPUBandwidth]:
    """Both rates of every CUDA GPU by its name; empty where torch or CUDA are missing.

    VRAM is measured by copying inside it (every byte is read and written), PCIe by copying pinned memory to
    the GPU; CUDA events time both.
    """
    try:
        import torch
    except (ImportError, OSError):
        return {}
    if not torch.cuda.is_available():
        return {}
    return {
        torch.cuda.get_device_name(index): _gpu_bandwidth(torch, index)
        for index in range(torch.cuda.device_count())
    }


def _gpu_bandwidth(torch: Any, index: int) -> GPUBandwidth:
    with torch.cuda.device(index):
        # A quarter of what is free at most: two buffers, on a card that is in use.
        n_bytes = min(_COPY_BYTES, torch.cuda.mem_get_info()[0] // 4)
        source, target = (torch.empty(n_bytes, dtype=torch.uint8, device="cuda") for _ in range(2))
        pinned = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
        vram = _best_seconds(torch, lambda: target.copy_(source))
        pcie = _best_seconds(torch, lambda: target.copy_(pinned, non_blocking=True))
    return GPUBandwidth(vram_bytes_s=2 * n_bytes / vram, pcie_bytes_s=n_bytes / pcie)


def _best_seconds(torch: Any, copy: Any) -> float:
    copy()
    best = float("inf")
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        copy()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return best
