"""RMSNorm of rows, with and without a residual added first; RMSNorm and RoPE of heads.

Floor in bytes: what goes in and what comes out, float32, once: 8 bytes a value, 16 with the residual (x and
delta read, x and the result written).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.api import Rope

TAU = tl.constexpr(6.283185307179586)


@triton.jit
def rms_norm_kernel(p_x, p_delta, p_weight, p_o, width, eps, BLOCK: tl.constexpr):
    """o = x / sqrt(mean x^2 + eps) * weight of row `program 0`, after x += delta where there is one."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    m_column = column < width
    x = tl.load(p_x + row * width + column, mask=m_column, other=0)
    if p_delta is not None:
        x += tl.load(p_delta + row * width + column, mask=m_column, other=0)
        tl.store(p_x + row * width + column, x, mask=m_column)
    y = x * tl.rsqrt(tl.sum(x * x, 0) / width + eps)
    if p_weight is not None:
        y *= tl.load(p_weight + column, mask=m_column, other=0)
    tl.store(p_o + row * width + column, y, mask=m_column)


@triton.jit
def head_norm_rope_kernel(
    p_x, p_weight, p_position, p_turns, p_o, stride, eps, mscale,
    DIM: tl.constexpr, BD: tl.constexpr, ROT: tl.constexpr, INTERLEAVED: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Head `program 1` of token `program 0`: heads of x begin `stride` values apart, of o DIM.

    ROT leading values turn in pairs (2i, 2i + 1) or (i, i + ROT / 2); the partner is loaded, not shuffled.
    """
    token = tl.program_id(0)
    row = token.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    d = tl.arange(0, BD)
    m_d = d < DIM
    x = tl.load(p_x + row * stride + d, mask=m_d, other=0)
    grow = 1.0
    if NORM:
        grow = tl.rsqrt(tl.sum(x * x, 0) / DIM + eps)
        x *= grow
        if p_weight is not None:
            x *= tl.load(p_weight + d, mask=m_d, other=0)
    if ROT > 0:
        if INTERLEAVED:
            pair = d // 2
            is_first = d % 2 == 0
            partner = tl.where(is_first, d + 1, d - 1)
        else:
            pair = d % (ROT // 2)
            is_first = d < ROT // 2
            partner = tl.where(is_first, d + ROT // 2, d - ROT // 2)
        m_rot = d < ROT
        other = tl.load(p_x + row * stride + partner, mask=m_rot, other=0)
        if NORM:
            other *= grow
            if p_weight is not None:
                other *= tl.load(p_weight + partner, mask=m_rot, other=0)
        # In turns and in float64: at position 100,000 a float32 angle is off by a hundredth.
        turns = tl.load(p_position + token).to(tl.float64) * tl.load(p_turns + pair, mask=m_rot, other=0)
        angle = (turns - tl.floor(turns)).to(tl.float32) * TAU
        cos = tl.cos(angle) * mscale
        sin = tl.sin(angle) * mscale
        x = tl.where(m_rot, x * cos + tl.where(is_first, -other, other) * sin, x)
    tl.store(p_o + row * DIM + d, x, mask=m_d)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, *, delta: Tensor | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis; with `delta`, x += delta in place first.

    x, delta float32 [n, width], contiguous; weight float32 [width].
    """
    out = torch.empty_like(x)
    width = x.shape[-1]
    if x.numel():
        rms_norm_kernel[(x.numel() // width,)](
            x, delta, weight, out, width, eps, BLOCK=triton.next_power_of_2(width)
        )
    return out


def rms_norm_reference(
    x: Tensor, weight: Tensor | None, eps: float, *, delta: Tensor | None = None
) -> Tensor:
    """`rms_norm` in plain torch."""
    if delta is not None:
        x += delta
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


@dataclass(frozen=True, slots=True)
class DeviceRope:
    """`turns` float64 [n_rot / 2]: revolutions a position, each below one half."""

    turns: Tensor
    interleaved: bool
    mscale: float

    @property
    def n_rot(self) -> int:
        return 2 * len(self.turns)


def device_rope(rope: Rope, device: torch.device | str) -> DeviceRope:
    """What the kernel reads of a RoPE."""
    turns = torch.from_numpy(np.asarray(rope.inv_freq, np.float64) / math.tau)
    return DeviceRope(turns.to(device), rope.interleaved, rope.mscale)


@dataclass(frozen=True, slots=True)
class HeadNorm:
    """RMSNorm of each head; `weight` float32 [head_dim]."""

    weight: Tensor | None
    eps: float


def head_norm_rope(
    x: Tensor,
    n_head: int,
    head_dim: int,
    positions: Tensor,
    *,
    stride: int | None = None,
    norm: HeadNorm | None = None,
    rope: DeviceRope | None = None,
) -> Tensor:
    """Heads normed and turned, where asked for: float32 [n_tokens, n_head, head_dim].

    x float32 [n_tokens, n_head * stride], contiguous; a head is the first `head_dim` of its `stride` values
    (None: all). positions int32 [n_tokens].
    """
    out = torch.empty(len(x), n_head, head_dim, dtype=torch.float32, device=x.device)
    head_norm_rope_kernel[(len(x), n_head)](
        x, None if norm is None else norm.weight, positions, None if rope is None else rope.turns, out,
        stride or head_dim, 0.0 if norm is None else norm.eps,
        1.0 if rope is None else rope.mscale,
        DIM=head_dim, BD=triton.next_power_of_2(head_dim), ROT=0 if rope is None else rope.n_rot,
        INTERLEAVED=rope is not None and rope.interleaved, NORM=norm is not None, num_warps=1,
    )  # fmt: skip
    return out


def head_norm_rope_reference(
    x: Tensor,
    n_head: int,
    head_dim: int,
    positions: Tensor,
    *,
    stride: int | None = None,
    norm: HeadNorm | None = None,
    rope: DeviceRope | None = None,
) -> Tensor:
    """`head_norm_rope` in plain torch."""
    heads = x.view(len(x), n_head, stride or head_dim)[..., :head_dim]
    if norm is not None:
        heads = rms_norm_reference(heads, norm.weight, norm.eps)
    if rope is None:
        return heads.contiguous()
    n = rope.n_rot
    angle = math.tau * positions.double()[:, None, None] * rope.turns
    cos, sin = ((f(angle) * rope.mscale).float() for f in (torch.cos, torch.sin))
    if rope.interleaved:
        a, b = heads[..., 0:n:2], heads[..., 1:n:2]
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    else:
        a, b = heads[..., : n // 2], heads[..., n // 2 : n]
        turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return torch.cat((turned, heads[..., n:]), dim=-1)
