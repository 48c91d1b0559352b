"""Products of quantized matrices: 1 to 8 vectors a block elementwise, more through tl.dot.

Floor in bytes: the matrices of the distinct slots once (`Layout.nbytes` each), x and the result; blocks of
the same slot read it again, from cache where it fits. Decoding one weight costs about five instructions and
one multiply-add a vector, so on cards with more than about 2 TB/s the elementwise kernel is bound by those.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.triton.decode import dot_few, dot_many
from pintpot.kernels.triton.formats import Layout
from pintpot.kernels.triton.groups import FEW, MANY, Groups
from pintpot.kernels.triton.repack import Stack, dequantize

DOT_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def product(
    p_low, p_halves, p_x, slot, o_x, m_x, row,
    MAT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, NG: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Rows `row` [BN] of matrix `slot` times BM vectors, float32 [BM, BN]; DOT None: elementwise."""
    ELEMENT_BYTES: tl.constexpr = p_low.dtype.element_ty.primitive_bitwidth // 8
    p_low += slot * (MAT.nbytes // ELEMENT_BYTES)
    p_halves += slot * (MAT.nbytes // 2)
    m_row = row < MAT.rows
    row = row.to(tl.int64)
    if DOT is None:
        return dot_few(p_low, p_halves, p_x, o_x, m_x, row, m_row, MAT, BM, BN, NG)
    else:
        return dot_many(p_low, p_halves, p_x, o_x, m_x, row, m_row, MAT, BM, BN, NG, DOT)


@triton.jit
def linear_kernel(
    p_low, p_halves, p_x, p_bias, p_slot, p_pair, p_o, x_div,
    MAT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, NG: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """o[pair] = matrix[slot] x[pair // x_div] (+ bias[slot])."""
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    block = tl.program_id(1)
    slot = tl.load(p_slot + block).to(tl.int64)
    if slot >= 0:
        pair = tl.load(p_pair + block * BM + tl.arange(0, BM))
        m_x = pair >= 0
        o_x = (pair // x_div).to(tl.int64) * MAT.cols
        y = product(p_low, p_halves, p_x, slot, o_x, m_x, row, MAT, BM, BN, NG, DOT)
        m_row = row < MAT.rows
        if p_bias is not None:
            y += tl.load(p_bias + slot * MAT.rows + row, mask=m_row, other=0)[None, :]
        o_y = pair.to(tl.int64)[:, None] * MAT.rows + row[None, :]
        tl.store(p_o + o_y, y, mask=m_x[:, None] & m_row[None, :])


def tiles(layout: Layout, block: int) -> dict[str, int]:
    """BN rows a program and NG groups a step, and the launch's warps and stages.

    Few vectors: tiles of 256 columns, and so few warps that sharing x between rows needs no barrier. Many: no
    software pipeline, which would keep every tile of x of a step in shared memory. Compiled code was looked
    at (registers, shared memory, load widths), nothing was measured on a GPU.
    """
    if block <= FEW:
        bn, warps = {1: (4, 1), 2: (4, 2)}.get(block, (2, 2))
        return {"BN": bn, "NG": max(1, 256 // layout.lanes), "num_warps": warps, "num_stages": 2}
    return {
        "BN": 32,
        "NG": max(1, 64 // layout.lanes),
        "num_warps": 8 if block > MANY else 4,
        "num_stages": 1,
    }


def dot_type(block: int, dtype: torch.dtype) -> tl.dtype | None:
    """What tiles are multiplied in; None for blocks that are multiplied elementwise in float32."""
    return None if block <= FEW else DOT_TYPES[dtype]


def grouped_linear(
    x: Tensor,
    stack: Stack,
    groups: Groups,
    *,
    x_div: int = 1,
    bias: Tensor | None = None,
    dot_dtype: torch.dtype = torch.float16,
) -> Tensor:
    """matrix[slot] x[pair // x_div] (+ bias[slot]) of every pair: float32 [n_pairs, rows].

    x float32 [n, cols], contiguous; bias float32 [n_mats, rows]. Rows of pairs in no block are zero. Blocks
    of 16 and more multiply in `dot_dtype` and add in float32.
    """
    layout = stack.layout
    allocate = torch.empty if groups.complete else torch.zeros
    out = allocate(groups.n_pairs, layout.rows, dtype=torch.float32, device=x.device)
    if groups.n_blocks == 0:
        return out
    meta = tiles(layout, groups.block)
    grid = (triton.cdiv(layout.rows, meta["BN"]), groups.n_blocks)
    linear_kernel[grid](
        stack.low, stack.halves, x, bias, groups.slots, groups.pairs, out, x_div,
        MAT=layout, BM=groups.block, DOT=dot_type(groups.block, dot_dtype), **meta,
    )  # fmt: skip
    return out


def grouped_linear_reference(x: Tensor, stack: Stack, ids: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """The same in plain torch, for ids [n_tokens, k] and x [n_tokens, cols]: float32 [n_tokens * k, rows]."""
    values = dequantize(stack)
    out = x.new_zeros(ids.numel(), stack.layout.rows)
    for pair, slot in enumerate(ids.reshape(-1).tolist()):
        if slot >= 0:
            out[pair] = values[slot] @ x[pair // ids.shape[1]]
            if bias is not None:
                out[pair] += bias[slot]
    return out
