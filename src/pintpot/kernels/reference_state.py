"""The reference backend's caches: plain tensors, filled with NaN until written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pintpot.kernels.api import Segment
from pintpot.spec.cache import BLOCK_TOKENS, DeltaStateLayout, KVLayout, KVType

Q8_BLOCK = 32  # values that share a scale in Q8_0


class _Stored:
    """Heads of every slot and place, [n_slots, places, n_head_kv, head_dim], in the cache's type."""

    def __init__(self, layout: KVLayout, head_dim: int, kind: KVType, dtype: torch.dtype) -> None:
        self.dtype = dtype
        places = -(-layout.capacity // BLOCK_TOKENS) * BLOCK_TOKENS
        shape = (layout.n_slots, places, layout.n_head_kv, head_dim)
        self.scales: Tensor | None = None
        if kind is KVType.Q8_0:
            self.values = torch.zeros(shape, dtype=torch.int8)
            self.scales = torch.full((*shape[:-1], head_dim // Q8_BLOCK), math.nan, dtype=torch.float16)
        else:
            self.values = torch.full(shape, math.nan, dtype=dtype if kind is KVType.F32 else torch.float16)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def store(self, slot: int, at: Tensor, heads: Tensor) -> None:
        if self.scales is None:
            self.values[slot, at] = heads.to(self.values.dtype)
            return
        blocks = heads.reshape(*heads.shape[:-1], -1, Q8_BLOCK)
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        q = torch.where(scale > 0, blocks / scale, torch.zeros_like(blocks)).round()
        self.values[slot, at] = q.reshape(heads.shape).to(torch.int8)
        self.scales[slot, at] = scale[..., 0].to(torch.float16)

    def load(self, slot: int, at: Tensor) -> Tensor:
        values = self.values[slot, at].to(self.dtype)
        if self.scales is None:
            return values
        blocks = values.reshape(*values.shape[:-1], -1, Q8_BLOCK)
        return (blocks * self.scales[slot, at].to(self.dtype)[..., None]).reshape(values.shape)

    def copy(self, src: int, dst: int, n: int) -> None:
        self.values[dst, :n] = self.values[src, :n]
        if self.scales is not None:
            self.scales[dst, :n] = self.scales[src, :n]


class ReferenceKVCache:
    """Keys and values of one layer, stored in `type_k` and `type_v` (f32: in `dtype`)."""

    def __init__(self, layout: KVLayout, dtype: torch.dtype) -> None:
        self.layout = layout
        self._k = _Stored(layout, layout.head_dim_k, layout.type_k, dtype)
        self._v = _Stored(layout, layout.head_dim_v, layout.type_v, dtype)

    @property
    def nbytes(self) -> int:
        return self._k.nbytes + self._v.nbytes

    def store(self, batch: Sequence[Segment], k: Tensor, v: Tensor) -> None:
        """Writes the batch's tokens; k, v [n_tokens, n_head_kv, head_dim]."""
        start = 0
        for s in batch:
            at = torch.arange(s.past, s.past + s.n) % self.layout.capacity
            self._k.store(s.slot, at, k[start : start + s.n])
            self._v.store(s.slot, at, v[start : start + s.n])
            start += s.n

    def load(self, slot: int, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values of positions [first, stop), [n, n_head_kv, head_dim]."""
        at = torch.arange(first, stop) % self.layout.capacity
        return self._k.load(slot, at), self._v.load(slot, at)

    def copy_slot(self, src: int, dst: int, n_tokens: int) -> None:
        """Makes slot `dst` hold the `n_tokens` tokens of slot `src` (all that its ring still has)."""
        n = min(n_tokens, self.layout.capacity)
        self._k.copy(src, dst, n)
        self._v.copy(src, dst, n)


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
