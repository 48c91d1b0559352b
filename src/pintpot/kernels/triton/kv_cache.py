"""Keys and values of one layer on the device, and the kernel that stores a step's.

Layout: [n_slots, capacity, n_head_kv, head_dim], position p of a slot at p % capacity. f32 and f16 are that;
q8_0 is int8 of that shape and a half per 32 values beside it, [..., head_dim / 32].

Floor of a store in bytes: k and v read as float32 and written in the cache's type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.triton.batch import DeviceBatch
from pintpot.spec.cache import KVLayout, KVType

Q8_BLOCK = tl.constexpr(32)  # values that share a scale in Q8_0
ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: what is added to it is rounded to an integer, halves to even


@triton.jit
def store_kernel(
    p_x, p_slot, p_position, p_o, p_scale, capacity, n_head,
    DIM: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Head `program 1` of token `program 0` into its place; DIM values in BLOCKS runs of SIZE."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    block = tl.arange(0, BLOCKS)
    column = block[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    m_column = column < DIM
    x = tl.load(p_x + (token * n_head + head) * DIM + column, mask=m_column, other=0)
    slot = tl.load(p_slot + token).to(tl.int64)
    at = (slot * capacity + tl.load(p_position + token) % capacity) * n_head + head
    if p_scale is None:
        tl.store(p_o + at * DIM + column, x.to(p_o.dtype.element_ty), mask=m_column)
    else:
        scale = tl.max(tl.abs(x), 1) / 127
        q = x / tl.where(scale > 0, scale, 1.0)[:, None]
        q = (q + ROUND) - ROUND
        tl.store(p_o + at * DIM + column, q.to(tl.int8), mask=m_column)
        tl.store(p_scale + at * (DIM // SIZE) + block, scale.to(tl.float16), mask=block < DIM // SIZE)


@dataclass(frozen=True, slots=True)
class Half:
    """Keys or values: `data` [n_slots, capacity, n_head_kv, head_dim], and the scales of a q8_0 cache."""

    data: Tensor
    scale: Tensor | None

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def store(self, x: Tensor, batch: DeviceBatch) -> None:
        """x float32 [n_tokens, n_head_kv, head_dim], contiguous."""
        _, capacity, n_head, dim = self.data.shape
        size = int(Q8_BLOCK) if self.scale is not None else triton.next_power_of_2(dim)
        store_kernel[(batch.n_tokens, n_head)](
            x, batch.slots, batch.positions, self.data, self.scale, capacity, n_head,
            DIM=dim, BLOCKS=triton.next_power_of_2(triton.cdiv(dim, size)), SIZE=size, num_warps=1,
        )  # fmt: skip

    def copy_slot(self, src: int, dst: int, n: int) -> None:
        self.data[dst, :n] = self.data[src, :n]
        if self.scale is not None:
            self.scale[dst, :n] = self.scale[src, :n]

    def floats(self) -> Tensor:
        """All of it as float32, for references."""
        if self.scale is None:
            return self.data.float()
        return self.data.float() * self.scale.float().repeat_interleave(int(Q8_BLOCK), -1)


def _half(shape: tuple[int, ...], kind: KVType, device: torch.device | str) -> Half:
    match kind:
        case KVType.F32:
            return Half(torch.full(shape, math.nan, dtype=torch.float32, device=device), None)
        case KVType.F16:
            return Half(torch.full(shape, math.nan, dtype=torch.float16, device=device), None)
        case KVType.Q8_0:
            scales = (*shape[:-1], shape[-1] // int(Q8_BLOCK))
            data = torch.zeros(shape, dtype=torch.int8, device=device)
            return Half(data, torch.full(scales, math.nan, dtype=torch.float16, device=device))


class DeviceKVCache:
    """One layer's keys and values; NaN until written, so that reading what is not there shows."""

    def __init__(self, layout: KVLayout, device: torch.device | str) -> None:
        self.layout = layout
        shape = (layout.n_slots, layout.capacity, layout.n_head_kv)
        self.k = _half((*shape, layout.head_dim_k), layout.type_k, device)
        self.v = _half((*shape, layout.head_dim_v), layout.type_v, device)

    @property
    def nbytes(self) -> int:
        return self.k.nbytes + self.v.nbytes

    def store(self, batch: DeviceBatch, k: Tensor, v: Tensor) -> None:
        """The step's tokens; k, v float32 [n_tokens, n_head_kv, head_dim]."""
        self.k.store(k, batch)
        self.v.store(v, batch)

    def copy_slot(self, src: int, dst: int, n_tokens: int) -> None:
        """Makes slot `dst` hold the `n_tokens` tokens of slot `src` (all that its ring still has)."""
        n = min(n_tokens, self.layout.capacity)
        self.k.copy_slot(src, dst, n)
        self.v.copy_slot(src, dst, n)
