"""Softmax attention over the cache: one kernel for prefill and for decoding split over the context.

A program takes a block of tokens of one sequence with the query heads of one key head (GQA: decoding reads
keys once for the group; blocks of many tokens divide wide groups), and goes over its part of the context
with an online softmax (FlashAttention, Dao et al. 2022, arXiv:2205.14135). With one part it finishes; with
several (flash-decoding) it leaves its maximum, sum and weighted values, which `merge_kernel` joins. Sliding
windows bound the context on both sides; sinks are a logit per head that takes probability and has no value
(gpt-oss).

Floor in bytes: the keys and values each sequence sees, in the cache's type, once for each block of
`batch.block_tokens` queries; q and the result. Splitting adds 4 (head_dim_v + 2) bytes a head, token and
part, written and read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.triton.activation import tanh
from pintpot.kernels.triton.batch import DeviceBatch
from pintpot.kernels.triton.kv_cache import Q8_BLOCK, DeviceKVCache
from pintpot.kernels.triton.linear import DOT_TYPES

SPLIT_TOKENS = 256  # of context a part, at least
MOST_SPLITS = 64
ENOUGH_PROGRAMS = 256  # beyond which the context is not split further

# Rows of queries, keys a step and stages by the wider head dimension: what 64 KiB of shared memory hold.
_TILES = {64: (64, 64, 2), 128: (64, 32, 2), 256: (32, 32, 1), 512: (16, 16, 1)}


@triton.jit
def _cached(p, p_scale, at, m_at, DIM: tl.constexpr, BD: tl.constexpr):
    """Rows `at` int64 [BK] of the cache, float [BK, BD]; columns from DIM on are zero."""
    if p_scale is None:
        column = tl.arange(0, BD)
        m_tile = m_at[:, None] & (column < DIM)[None, :]
        return tl.load(p + at[:, None] * DIM + column[None, :], mask=m_tile, other=0)
    else:
        BLOCKS: tl.constexpr = BD // Q8_BLOCK
        block = tl.arange(0, BLOCKS)[None, :, None]
        column = block * Q8_BLOCK + tl.arange(0, Q8_BLOCK)[None, None, :]
        at = at[:, None, None]
        m_at = m_at[:, None, None]
        q = tl.load(p + at * DIM + column, mask=m_at & (column < DIM), other=0)
        m_scale = m_at & (block * Q8_BLOCK < DIM)
        scale = tl.load(p_scale + at * (DIM // Q8_BLOCK) + block, mask=m_scale, other=0)
        return tl.reshape(q.to(tl.float32) * scale.to(tl.float32), [m_at.shape[0], BD])


@triton.jit
def _finish(acc, top, total, p_sink, p_gate, head, o_gate, m_row, column, m_tile):
    """Sinks join the sum, the sum divides, the gate multiplies: acc [R, BD], top, total, head [R]."""
    if p_sink is not None:
        sink = tl.load(p_sink + head, mask=m_row, other=0)
        new_top = tl.maximum(top, sink)
        shrink = tl.exp(top - new_top)
        total = total * shrink + tl.exp(sink - new_top)
        acc = acc * shrink[:, None]
    y = acc / tl.where(total > 0, total, 1.0)[:, None]
    if p_gate is not None:
        y *= tl.sigmoid(tl.load(p_gate + o_gate[:, None] + column[None, :], mask=m_tile, other=0))
    return y


@triton.jit
def attend_kernel(
    p_q, p_k, p_k_scale, p_v, p_v_scale, p_sink, p_gate, p_block, p_o, p_top, p_total, p_acc,
    scale, softcap, capacity, window, n_head_kv, gate_stride,
    GROUP: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr, BDK: tl.constexpr, BDV: tl.constexpr,
    BT: tl.constexpr, BG: tl.constexpr, BK: tl.constexpr, SPLITS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """q [n_tokens, n_head, DK] -> o [n_tokens, n_head, DV], or parts; rows of a tile are (token, head)."""
    p_block += tl.program_id(0) * 4
    slot = tl.load(p_block).to(tl.int64)
    first_token = tl.load(p_block + 1)
    n_tokens = tl.load(p_block + 2)
    first_position = tl.load(p_block + 3)
    SHARES: tl.constexpr = (GROUP + BG - 1) // BG  # programs that a group of heads is divided among
    head_kv = tl.program_id(1) // SHARES
    split = tl.program_id(2)

    r = tl.arange(0, BT * BG)
    head_in_group = tl.program_id(1) % SHARES * BG + r % BG
    head = head_kv * GROUP + head_in_group
    m_row = (r // BG < n_tokens) & (head_in_group < GROUP)
    n_head = n_head_kv * GROUP
    o_row = (first_token + r // BG).to(tl.int64) * n_head + head
    position = first_position + r // BG
    d_k = tl.arange(0, BDK)
    q = tl.load(p_q + o_row[:, None] * DK + d_k[None, :], mask=m_row[:, None] & (d_k < DK)[None, :], other=0)
    q = (q * scale).to(DOT)

    stop = first_position + n_tokens
    first = tl.maximum(0, first_position + 1 - window)
    part = tl.cdiv(tl.cdiv(stop - first, SPLITS), BK) * BK
    start = first + split * part
    stop = tl.minimum(start + part, stop)
    top = tl.full([BT * BG], float("-inf"), tl.float32)
    total = tl.zeros([BT * BG], tl.float32)
    acc = tl.zeros([BT * BG, BDV], tl.float32)
    for k0 in range(start, stop, BK):
        key = k0 + tl.arange(0, BK)
        at = (slot * capacity + key % capacity) * n_head_kv + head_kv
        k = _cached(p_k, p_k_scale, at, key < stop, DK, BDK).to(DOT)
        logit = tl.dot(q, tl.trans(k), input_precision="ieee")
        if softcap is not None:
            logit = tanh(logit / softcap) * softcap
        seen = (key[None, :] <= position[:, None]) & (key[None, :] > position[:, None] - window)
        logit = tl.where(seen & (key < stop)[None, :], logit, float("-inf"))
        new_top = tl.maximum(top, tl.max(logit, 1))
        # A row that has seen nothing yet: any finite number will do.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        p = tl.exp(logit - base[:, None])
        shrink = tl.exp(top - base)
        total = total * shrink + tl.sum(p, 1)
        v = _cached(p_v, p_v_scale, at, key < stop, DV, BDV).to(DOT)
        acc = tl.dot(p.to(DOT), v, acc * shrink[:, None], input_precision="ieee")
        top = new_top

    d_v = tl.arange(0, BDV)
    m_tile = m_row[:, None] & (d_v < DV)[None, :]
    if SPLITS == 1:
        y = _finish(acc, top, total, p_sink, p_gate, head, o_row * gate_stride, m_row, d_v, m_tile)
        tl.store(p_o + o_row[:, None] * DV + d_v[None, :], y, mask=m_tile)
    else:
        o_part = o_row * SPLITS + split
        tl.store(p_top + o_part, top, mask=m_row)
        tl.store(p_total + o_part, total, mask=m_row)
        tl.store(p_acc + o_part[:, None] * DV + d_v[None, :], acc, mask=m_tile)


@triton.jit
def merge_kernel(
    p_top, p_total, p_acc, p_sink, p_gate, p_o, n_head, gate_stride,
    DV: tl.constexpr, BDV: tl.constexpr, SPLITS: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Joins the parts of head `program 1` of token `program 0`."""
    head = tl.program_id(1) + tl.zeros([1], tl.int32)
    o_row = tl.program_id(0).to(tl.int64) * n_head + head
    s = tl.arange(0, BS)
    d_v = tl.arange(0, BDV)
    o_part = o_row * SPLITS + s
    part_top = tl.load(p_top + o_part, mask=s < SPLITS, other=float("-inf"))
    # Parts behind the end of the context saw nothing: their sum is zero.
    top = tl.max(part_top, 0)
    shrink = tl.exp(part_top - top)
    total = tl.sum(shrink * tl.load(p_total + o_part, mask=s < SPLITS, other=0), 0)
    m_part = (s < SPLITS)[:, None] & (d_v < DV)[None, :]
    parts = tl.load(p_acc + o_part[:, None] * DV + d_v[None, :], mask=m_part, other=0)
    acc = tl.sum(shrink[:, None] * parts, 0)[None, :]
    m_row = head >= 0
    m_tile = m_row[:, None] & (d_v < DV)[None, :]
    top = top + tl.zeros([1], tl.float32)
    total = total + tl.zeros([1], tl.float32)
    y = _finish(acc, top, total, p_sink, p_gate, head, o_row * gate_stride, m_row, d_v, m_tile)
    tl.store(p_o + o_row[:, None] * DV + d_v[None, :], y, mask=m_tile)


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Of one layer; `window` None sees everything, `softcap` None caps nothing."""

    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    scale: float
    window: int | None = None
    softcap: float | None = None


def n_splits(batch: DeviceBatch, shape: AttentionShape) -> int:
    """Parts of the context: enough programs to fill a GPU, none smaller than SPLIT_TOKENS. A power of two, so
    that few kernels are compiled."""
    seen = batch.longest if shape.window is None else min(batch.longest, shape.window + batch.block_tokens)
    programs = len(batch.query_blocks) * shape.n_head_kv
    wanted = min(MOST_SPLITS, seen // SPLIT_TOKENS, max(1, ENOUGH_PROGRAMS // programs))
    return 1 << max(0, wanted.bit_length() - 1)


def attend(
    q: Tensor,
    cache: DeviceKVCache,
    batch: DeviceBatch,
    shape: AttentionShape,
    *,
    sinks: Tensor | None = None,
    gate: Tensor | None = None,
    gate_stride: int = 0,
    splits: int | None = None,
    dot_dtype: torch.dtype = torch.float16,
) -> Tensor:
    """Attention of the step's queries over the cache that holds their keys already.

    q float32 [n_tokens, n_head, head_dim_k], contiguous -> float32 [n_tokens, n_head * head_dim_v]. sinks
    float32 [n_head]. gate: a view that begins at the first gate value, heads `gate_stride` values apart; its
    sigmoid multiplies the result. `splits`: parts of the context, chosen when None.
    """
    n, group = len(q), shape.n_head // shape.n_head_kv
    splits = n_splits(batch, shape) if splits is None else splits
    out = torch.empty(n, shape.n_head * shape.head_dim_v, dtype=torch.float32, device=q.device)
    top = total = acc = out  # unused when there is one part
    if splits > 1:
        parts = (n, shape.n_head, splits)
        top, total = (torch.empty(parts, dtype=torch.float32, device=q.device) for _ in range(2))
        acc = torch.empty(*parts, shape.head_dim_v, dtype=torch.float32, device=q.device)
    bdk, bdv = (max(16, triton.next_power_of_2(d)) for d in (shape.head_dim_k, shape.head_dim_v))
    if cache.k.scale is not None:
        bdk = max(bdk, int(Q8_BLOCK))
    if cache.v.scale is not None:
        bdv = max(bdv, int(Q8_BLOCK))
    bt = batch.block_tokens
    if max(bdk, bdv) > max(_TILES):
        raise ValueError(f"heads of {max(shape.head_dim_k, shape.head_dim_v)} values: at most {max(_TILES)}")
    rows, bk, stages = _TILES[max(64, bdk, bdv)]
    bg = max(min(triton.next_power_of_2(group), rows // bt), 16 // bt)  # tl.dot takes 16 rows and more
    window = shape.window if shape.window is not None else 1 << 30
    shares = triton.cdiv(group, bg)
    attend_kernel[(len(batch.query_blocks), shape.n_head_kv * shares, splits)](
        q, cache.k.data, cache.k.scale, cache.v.data, cache.v.scale, sinks, gate, batch.query_blocks,
        out, top, total, acc,
        shape.scale, shape.softcap, cache.layout.capacity, window, shape.n_head_kv, gate_stride,
        GROUP=group, DK=shape.head_dim_k, DV=shape.head_dim_v, BDK=bdk, BDV=bdv, BT=bt, BG=bg,
        BK=bk, SPLITS=splits, DOT=DOT_TYPES[dot_dtype], num_stages=stages,
    )  # fmt: skip
    if splits > 1:
        merge_kernel[(n, shape.n_head)](
            top, total, acc, sinks, gate, out, shape.n_head, gate_stride,
            DV=shape.head_dim_v, BDV=bdv, SPLITS=splits, BS=splits,
        )  # fmt: skip
    return out


def attend_reference(
    q: Tensor,
    cache: DeviceKVCache,
    batch: DeviceBatch,
    shape: AttentionShape,
    *,
    sinks: Tensor | None = None,
    gate: Tensor | None = None,
) -> Tensor:
    """`attend` in plain torch, token by token; gate float32 [n_tokens, n_head * head_dim_v]."""
    k_all, v_all = cache.k.floats(), cache.v.floats()
    group = shape.n_head // shape.n_head_kv
    rows = []
    for token, (slot, position) in enumerate(
        zip(batch.slots.tolist(), batch.positions.tolist(), strict=True)
    ):
        first = 0 if shape.window is None else max(0, position + 1 - shape.window)
        at = torch.arange(first, position + 1, device=q.device) % cache.layout.capacity
        k, v = (x[slot, at].repeat_interleave(group, 1) for x in (k_all, v_all))
        logits = torch.einsum("hd,khd->hk", q[token], k) * shape.scale
        if shape.softcap is not None:
            logits = shape.softcap * torch.tanh(logits / shape.softcap)
        if sinks is not None:
            logits = torch.cat((logits, sinks[:, None]), 1)
        p = torch.softmax(logits, 1)[:, : len(at)]
        rows.append(torch.einsum("hk,khd->hd", p, v).reshape(-1))
    out = torch.stack(rows)
    return out if gate is None else out * torch.sigmoid(gate)
