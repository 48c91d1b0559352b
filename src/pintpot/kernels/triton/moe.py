"""Experts by slot: gate, up and activation in one kernel, down and the weighted sum in another.

`ids` int32 [n_tokens, k] are slots of the stacks, not experts; a negative id is an expert computed elsewhere,
and adds nothing here. Biases and scales are indexed by slot like the stacks.

Floor in bytes: gate, up and down of the distinct slots once, x, the result, and the hidden values
[n_tokens * k, n_ff] float32 written and read once (they stay in the L2 cache when decoding).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.api import Activation
from pintpot.kernels.triton.activation import activate, activate_reference
from pintpot.kernels.triton.groups import FEW, MANY, Groups, block_size, by_slot, each_pair
from pintpot.kernels.triton.linear import dot_type, grouped_linear, product, tiles
from pintpot.kernels.triton.repack import Stack, dequantize


@triton.jit
def gate_up_kernel(
    p_gate, p_gate_halves, p_up, p_up_halves, p_gate_bias, p_up_bias, p_x, p_slot, p_pair, p_h, x_div,
    GATE: tl.constexpr, UP: tl.constexpr, ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    NG: tl.constexpr, UP_NG: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """h[pair] = activate(gate[slot] x, up[slot] x), x = x[pair // x_div]."""
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    block = tl.program_id(1)
    slot = tl.load(p_slot + block).to(tl.int64)
    if slot >= 0:
        pair = tl.load(p_pair + block * BM + tl.arange(0, BM))
        m_x = pair >= 0
        m_row = row < GATE.rows
        o_x = (pair // x_div).to(tl.int64) * GATE.cols
        gate = product(p_gate, p_gate_halves, p_x, slot, o_x, m_x, row, GATE, BM, BN, NG, DOT)
        up = product(p_up, p_up_halves, p_x, slot, o_x, m_x, row, UP, BM, BN, UP_NG, DOT)
        if p_gate_bias is not None:
            gate += tl.load(p_gate_bias + slot * GATE.rows + row, mask=m_row, other=0)[None, :]
        if p_up_bias is not None:
            up += tl.load(p_up_bias + slot * GATE.rows + row, mask=m_row, other=0)[None, :]
        o_h = pair.to(tl.int64)[:, None] * GATE.rows + row[None, :]
        tl.store(p_h + o_h, activate(gate, up, ACTIVATION), mask=m_x[:, None] & m_row[None, :])


@triton.jit
def down_sum_kernel(
    p_low, p_halves, p_bias, p_scale, p_h, p_id, p_weight, p_o, k,
    MAT: tl.constexpr, BN: tl.constexpr, NG: tl.constexpr,
):  # fmt: skip
    """o[token] = sum over its slots of weight * (scale[slot] * down[slot] h[pair] + bias[slot]), in order."""
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    token = tl.program_id(1)
    m_row = row < MAT.rows
    m_x = tl.full([1], True, tl.int1)
    acc = tl.zeros([1, BN], tl.float32)
    for i in range(k):
        pair = token * k + i
        slot = tl.load(p_id + pair).to(tl.int64)
        if slot >= 0:
            o_h = tl.full([1], 0, tl.int64) + pair.to(tl.int64) * MAT.cols
            y = product(p_low, p_halves, p_h, slot, o_h, m_x, row, MAT, 1, BN, NG, None)
            if p_scale is not None:
                y *= tl.load(p_scale + slot)
            if p_bias is not None:
                y += tl.load(p_bias + slot * MAT.rows + row, mask=m_row, other=0)[None, :]
            acc += tl.load(p_weight + pair) * y
    o_y = token.to(tl.int64) * MAT.rows + row[None, :]
    tl.store(p_o + o_y, acc, mask=m_row[None, :])


@triton.jit
def weighted_sum_kernel(p_y, p_bias, p_scale, p_id, p_weight, p_o, k, width, BLOCK: tl.constexpr):
    """o[token] = sum over its slots of weight * (scale[slot] * y[pair] + bias[slot]), in order."""
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    token = tl.program_id(0).to(tl.int64)
    m_column = column < width
    acc = tl.zeros([BLOCK], tl.float32)
    for i in range(k):
        pair = token * k + i
        slot = tl.load(p_id + pair).to(tl.int64)
        if slot >= 0:
            y = tl.load(p_y + pair * width + column, mask=m_column, other=0)
            if p_scale is not None:
                y *= tl.load(p_scale + slot)
            if p_bias is not None:
                y += tl.load(p_bias + slot * width + column, mask=m_column, other=0)
            acc += tl.load(p_weight + pair) * y
    tl.store(p_o + token * width + column, acc, mask=m_column)


@dataclass(frozen=True, slots=True)
class Experts:
    """Stacks of gate and up [n_ff, n_embd] and down [n_embd, n_ff], with what is added per slot."""

    gate: Stack
    up: Stack
    down: Stack
    activation: Activation
    gate_bias: Tensor | None = None  # [n_slots, n_ff]
    up_bias: Tensor | None = None
    down_bias: Tensor | None = None  # [n_slots, n_embd]
    down_scale: Tensor | None = None  # [n_slots], multiplies down's product


def gate_up(x: Tensor, e: Experts, groups: Groups, *, x_div: int, dot_dtype: torch.dtype) -> Tensor:
    """Hidden values float32 [n_pairs, n_ff]; rows of pairs in no block are not written."""
    gate, up = e.gate.layout, e.up.layout
    h = torch.empty(groups.n_pairs, gate.rows, dtype=torch.float32, device=x.device)
    meta = tiles(gate, groups.block)
    grid = (triton.cdiv(gate.rows, meta["BN"]), groups.n_blocks)
    gate_up_kernel[grid](
        e.gate.low, e.gate.halves, e.up.low, e.up.halves, e.gate_bias, e.up_bias,
        x, groups.slots, groups.pairs, h, x_div,
        GATE=gate, UP=up, ACTIVATION=str(e.activation), BM=groups.block,
        UP_NG=tiles(up, groups.block)["NG"], DOT=dot_type(groups.block, dot_dtype), **meta,
    )  # fmt: skip
    return h


def pair_groups(ids: Tensor, n_slots: int) -> Groups:
    """Blocks for the pairs of `ids`: one each while tokens are few, else sorted by slot."""
    n_tokens, k = ids.shape
    if n_tokens <= FEW:
        return each_pair(ids)
    return by_slot(ids, n_slots, max(MANY, block_size(n_tokens * k // n_slots)))


def fused_moe(
    x: Tensor,
    experts: Experts,
    ids: Tensor,
    weights: Tensor,
    *,
    dot_dtype: torch.dtype = torch.float16,
    groups: Groups | None = None,
) -> Tensor:
    """The weighted sum of each token's experts, float32 [n_tokens, n_embd].

    x float32 [n_tokens, n_embd]; ids int32, weights float32 [n_tokens, k]. A token whose ids are all negative
    gets zeros. `groups`: of these ids, when they are known.
    """
    groups = groups or pair_groups(ids, experts.gate.n_mats)
    h = gate_up(x, experts, groups, x_div=ids.shape[1], dot_dtype=dot_dtype)
    return down_sum(h, experts, ids, weights, groups, dot_dtype=dot_dtype)


def down_sum(
    h: Tensor, e: Experts, ids: Tensor, weights: Tensor, groups: Groups, *, dot_dtype: torch.dtype
) -> Tensor:
    """Down projections of the hidden values [n_pairs, n_ff], scaled, biased, weighed and added."""
    layout = e.down.layout
    n_tokens, k = ids.shape
    out = torch.empty(n_tokens, layout.rows, dtype=torch.float32, device=h.device)
    if groups.block == 1:
        meta = tiles(layout, 1)
        down_sum_kernel[(triton.cdiv(layout.rows, meta["BN"]), n_tokens)](
            e.down.low, e.down.halves, e.down_bias, e.down_scale, h, ids, weights, out, k, MAT=layout, **meta
        )
        return out
    y = grouped_linear(h, e.down, groups, dot_dtype=dot_dtype)
    block = min(1024, triton.next_power_of_2(layout.rows))
    weighted_sum_kernel[(n_tokens, triton.cdiv(layout.rows, block))](
        y, e.down_bias, e.down_scale, ids, weights, out, k, layout.rows, BLOCK=block
    )
    return out


def fused_moe_reference(x: Tensor, e: Experts, ids: Tensor, weights: Tensor) -> Tensor:
    """`fused_moe` in plain torch, pair by pair."""
    gate, up, down = (dequantize(stack) for stack in (e.gate, e.up, e.down))
    out = torch.zeros(len(x), e.down.layout.rows, device=x.device)
    for token, slots in enumerate(ids.tolist()):
        for i, slot in enumerate(slots):
            if slot < 0:
                continue
            g, u = gate[slot] @ x[token], up[slot] @ x[token]
            g = g if e.gate_bias is None else g + e.gate_bias[slot]
            u = u if e.up_bias is None else u + e.up_bias[slot]
            y = down[slot] @ activate_reference(g, u, e.activation)
            y = y if e.down_scale is None else y * e.down_scale[slot]
            y = y if e.down_bias is None else y + e.down_bias[slot]
            out[token] += weights[token, i] * y
    return out
