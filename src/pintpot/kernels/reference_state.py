"""The reference backend's caches: plain tensors, filled with NaN until written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pintpot.kernels.api import Segment
from pintpot.spec.cache import DeltaStateLayout, KVLayout, KVType

Q8_BLOCK = 32  # values that share a scale in Q8_0


def _rounded(x: Tensor, kind: KVType) -> Tensor:
    """x as it comes back from a cache of this type."""
    if kind is KVType.F32:
        return x
    if kind is KVType.F16:
        return x.to(torch.float16).to(x.dtype)
    blocks = x.reshape(*x.shape[:-1], -1, Q8_BLOCK)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    stored = scale.to(torch.float16).to(x.dtype)
    q = torch.where(scale > 0, blocks / scale, torch.zeros_like(blocks)).round()
    return (q * stored).reshape(x.shape)


class ReferenceKVCache:
    """Keys and values of one layer; `type_k` and `type_v` decide how they are rounded."""

    def __init__(self, layout: KVLayout, dtype: torch.dtype) -> None:
        self.layout = layout
        shape = (layout.n_slots, layout.capacity, layout.n_head_kv)
        self.k = torch.full((*shape, layout.head_dim_k), math.nan, dtype=dtype)
        self.v = torch.full((*shape, layout.head_dim_v), math.nan, dtype=dtype)

    @property
    def nbytes(self) -> int:
        return self.k.nbytes + self.v.nbytes

    def store(self, batch: Sequence[Segment], k: Tensor, v: Tensor) -> None:
        """Writes the batch's tokens; k, v [n_tokens, n_head_kv, head_dim]."""
        start = 0
        for s in batch:
            at = torch.arange(s.past, s.past + s.n) % self.layout.capacity
            self.k[s.slot, at] = _rounded(k[start : start + s.n], self.layout.type_k)
            self.v[s.slot, at] = _rounded(v[start : start + s.n], self.layout.type_v)
            start += s.n

    def load(self, slot: int, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values of positions [first, stop), [n, n_head_kv, head_dim]."""
        at = torch.arange(first, stop) % self.layout.capacity
        return self.k[slot, at], self.v[slot, at]

    def copy_slot(self, src: int, dst: int, n_tokens: int) -> None:
        """Makes slot `dst` hold the `n_tokens` tokens of slot `src` (all that its ring still has)."""
        n = min(n_tokens, self.layout.capacity)
        self.k[dst, :n] = self.k[src, :n]
        self.v[dst, :n] = self.v[src, :n]


class ReferenceDeltaState:
    """Recurrent state of one gated delta net layer."""

    def __init__(self, layout: DeltaStateLayout, dtype: torch.dtype) -> None:
        self.conv = torch.zeros(layout.n_slots, layout.conv_kernel - 1, layout.conv_dim, dtype=dtype)
        self.memory = torch.zeros(
            layout.n_slots, layout.n_head_v, layout.head_dim_k, layout.head_dim_v, dtype=dtype
        )

    @property
    def nbytes(self) -> int:
        return self.conv.nbytes + self.memory.nbytes

    def reset(self, slot: int) -> None:
        self.conv[slot] = 0
        self.memory[slot] = 0

    def copy_slot(self, src: int, dst: int) -> None:
        self.conv[dst] = self.conv[src]
        self.memory[dst] = self.memory[src]

    def save(self, slot: int) -> bytes:
        both = torch.cat((self.conv[slot].flatten(), self.memory[slot].flatten()))
        return both.numpy().tobytes()

    def restore(self, slot: int, saved: bytes | bytearray | memoryview) -> None:
        dtype: npt.DTypeLike = np.float64 if self.conv.dtype == torch.float64 else np.float32
        both = torch.from_numpy(np.frombuffer(saved, dtype).copy())
        n_conv = self.conv[slot].numel()
        self.conv[slot] = both[:n_conv].view(self.conv[slot].shape)
        self.memory[slot] = both[n_conv:].view(self.memory[slot].shape)
