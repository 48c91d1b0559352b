"""Rows of a quantized matrix as floats: token embeddings.

Floor in bytes: the rows wanted in their type, and 4 a value written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.triton.decode import load_high, load_low, tile_columns, weights
from pintpot.kernels.triton.repack import Stack, dequantize


@triton.jit
def embed_kernel(p_low, p_halves, p_row, p_o, MAT: tl.constexpr, NG: tl.constexpr):
    """NG groups of columns, the `program 1`-th, of the row that token `program 0` names."""
    TILES: tl.constexpr = MAT.n_tiles
    CODES: tl.constexpr = MAT.n_fields // MAT.n_tiles
    N_GROUPS: tl.constexpr = (MAT.cols + MAT.group - 1) // MAT.group
    token = tl.program_id(0).to(tl.int64)
    row = tl.load(p_row + token).to(tl.int64) + tl.zeros([1, 1, 1], tl.int64)
    group, run, lane = tile_columns(tl.program_id(1) * NG, MAT, NG)
    m_tile = (row >= 0) & (group < N_GROUPS)
    high = load_high(p_low, row, group, lane, m_tile, MAT)
    for t in tl.static_range(TILES):
        low = load_low(p_low, row, group, lane, m_tile, t, MAT)
        for u in tl.static_range(CODES):
            w = weights(low, high, p_low, p_halves, row, group, run, m_tile, t, u, MAT)
            column = group * MAT.group + (u * MAT.n_tiles + t) * MAT.lanes + lane
            tl.store(p_o + token * MAT.cols + column, w, mask=m_tile & (column < MAT.cols))


def embed(stack: Stack, rows: Tensor) -> Tensor:
    """Rows of matrix 0, float32 [n, cols]; rows int32 [n]."""
    layout = stack.layout
    out = torch.empty(len(rows), layout.cols, dtype=torch.float32, device=rows.device)
    ng = max(1, 256 // layout.lanes)
    n_groups = triton.cdiv(layout.cols, layout.group)
    embed_kernel[(len(rows), triton.cdiv(n_groups, ng))](
        stack.low, stack.halves, rows, out, MAT=layout, NG=ng, num_warps=1
    )
    return out


def embed_reference(stack: Stack, rows: Tensor) -> Tensor:
    """`embed` in plain torch."""
    return dequantize(stack, [0])[0, rows.long()]
