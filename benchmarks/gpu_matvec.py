"""Decode's products on an accelerator, each kind by itself: bytes a second beside a copy within its memory.

Matrices of one kind are taken from several layers in turn, so that no cache holds them. What is timed is what
the engine does: launches from Python are part of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from pintpot.gguf import GGUFFile
from pintpot.gguf.types import GGMLType
from pintpot.kernels.accelerator import Accelerator
from pintpot.kernels.hybrid import HybridOps, RoutedExperts
from pintpot.quantization.plan import matrices
from pintpot.runtime.loader import FileTensors

_LAYER = re.compile(r"^blk\.\d+\.")
_ROUNDS = 5


def copy_bytes_s(device: str, n_bytes: int) -> float:
    """A copy within the device's memory: bytes read and written, a second."""
    source, target = (torch.empty(n_bytes, dtype=torch.uint8, device=device).fill_(1) for _ in range(2))
    return 2 * n_bytes / _seconds(device, [partial(target.copy_, source)])


def dense_products(
    file: GGUFFile, accelerator: Accelerator, device: str, most_bytes: int
) -> list[dict[str, Any]]:
    """Every kind of quantized matrix but experts, times one vector; of each kind at most `most_bytes`."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, info in file.tensors.items():
        n_mats, rows, _ = matrices(info)
        if n_mats == 1 and rows > 1 and info.ggml_type != GGMLType.F32 and not name.startswith("token_embd"):
            kinds.setdefault((_LAYER.sub("", name), info.type_name), []).append(name)
    return [_dense_row(file, accelerator, device, kind, names, most_bytes) for kind, names in kinds.items()]


def _dense_row(
    file: GGUFFile,
    accelerator: Accelerator,
    device: str,
    kind: tuple[str, str],
    names: Sequence[str],
    most_bytes: int,
) -> dict[str, Any]:
    n_mats, rows, cols = matrices(file.tensors[names[0]])
    x = accelerator.upload(np.random.default_rng(0).standard_normal((1, cols), dtype=np.float32))
    n_bytes, calls = 0, []
    for name in names:
        view = FileTensors(file).matrix(name, rows, cols, n_mats)
        calls.append(partial(accelerator.linear, x, accelerator.matrix(view)))
        n_bytes += rows * view.row_bytes
        if n_bytes >= most_bytes:
            break
    row = {"kernel": kind[0], "type": kind[1], "rows": rows, "cols": cols, "matrices": len(calls)}
    return row | {"bytes_s": n_bytes / _seconds(device, calls)}


def expert_products(ops: HybridOps, device: str, expert_bytes: Sequence[int], n_embd: int) -> dict[str, Any]:
    """The routed experts of one token, all of them in slots, layer after layer: `expert_bytes` by layer.

    A shared expert is computed with them, and not counted.
    """
    routed = [layer for layer in ops.layers.values() if layer.slots.n_slots >= layer.n_used]
    if not routed:
        return {}
    x = ops.accelerator.upload(np.random.default_rng(0).standard_normal((1, n_embd), dtype=np.float32))
    calls = [partial(_slots, ops.accelerator, x, layer) for layer in routed]
    n_bytes = sum(layer.n_used * expert_bytes[layer.index] for layer in routed)
    return {
        "kernel": "experts in slots",
        "matrices": len(calls),
        "bytes_s": n_bytes / _seconds(device, calls),
    }


def _slots(accelerator: Accelerator, x: Any, layer: RoutedExperts) -> Any:
    slots = np.arange(layer.n_used, dtype=np.int32)[None]
    return accelerator.slot_experts(x, layer.device, slots, np.full(slots.shape, 0.1, np.float32))


def _seconds(device: str, calls: Sequence[Callable[[], object]]) -> float:
    """All calls once: the best of some rounds, after one that compiles."""
    best = float("inf")
    for round_ in range(_ROUNDS + 1):
        start = time.perf_counter()
        for call in calls:
            call()
        if device == "cuda":
            torch.cuda.synchronize()
        if round_:
            best = min(best, time.perf_counter() - start)
    return best
