"""From the planes of `formats` to floats, inside kernels; and the two loops over columns that products share.

`MAT` is a `Layout`, a compile-time constant: every branch on it is decided when a kernel is compiled. A tile
of weights is [BN, J, I]: rows, runs of columns that share a scale, columns of a run; it covers one field of
`NG` groups. Products with scales are taken in float32 and in ggml's order.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _level(code, MAT: tl.constexpr):
    """What a code stands for, int32."""
    if MAT.levels == "iq4":
        # The sixteen levels plus 128, four a word: arithmetic, since a table would be a gather.
        word = tl.where(
            code < 8, tl.where(code < 4, 0x3F2D1801, 0x766A5D4F), tl.where(code < 12, -1499886207, -237386315)
        )
        return ((word >> (8 * (code & 3))) & 255) - 128
    elif MAT.levels == "e2m1":
        # Twice a float of two bits of exponent and one of mantissa.
        exponent = (code >> 1) & 3
        mantissa = code & 1
        size = tl.where(exponent == 0, mantissa, (2 + mantissa) << tl.maximum(exponent - 1, 0))
        return tl.where(code >= 8, -size, size)
    elif MAT.levels == "int8":
        return (code ^ 128) - 128
    else:
        return code - MAT.zero


@triton.jit
def _half(p_halves, OFFSET: tl.constexpr, row, block, m_tile, MAT: tl.constexpr):
    return tl.load(p_halves + OFFSET + row * (MAT.cols // MAT.block) + block, mask=m_tile, other=0).to(
        tl.float32
    )


@triton.jit
def _packed(p, OFFSET: tl.constexpr, WIDTH: tl.constexpr, row, sub, m_tile, MAT: tl.constexpr):
    """Number `sub` of the row in a plane of adjacent numbers of WIDTH bits, int32."""
    PER_BYTE: tl.constexpr = 8 // WIDTH
    at = p + OFFSET + row * (MAT.cols // MAT.sub // PER_BYTE) + sub // PER_BYTE
    byte = tl.load(at, mask=m_tile, other=0).to(tl.int32)
    return (byte >> (WIDTH * (sub % PER_BYTE))) & ((1 << WIDTH) - 1)


@triton.jit
def tile_columns(g0, MAT: tl.constexpr, NG: tl.constexpr):
    """Of a tile that begins at group g0: group [1, J, 1], first lane of the run within it [1, J, 1], lane
    [1, J, I]."""
    RUNS: tl.constexpr = MAT.lanes // MAT.sub_lanes
    j = tl.arange(0, NG * RUNS)[None, :, None]
    i = tl.arange(0, MAT.sub_lanes)[None, None, :]
    run = (j % RUNS) * MAT.sub_lanes
    return g0 + j // RUNS, run, run + i


@triton.jit
def load_low(p_low, row, group, lane, m_tile, TILE: tl.constexpr, MAT: tl.constexpr):
    """Bytes (or floats) of plane `low`; row int64 [BN, 1, 1], m_tile [BN, J, 1] -> [BN, J, I]."""
    if MAT.scaling == "none":
        column = group * MAT.group + lane
        return tl.load(p_low + row * MAT.cols + column, mask=m_tile & (column < MAT.cols), other=0)
    else:
        STEP: tl.constexpr = MAT.n_tiles * MAT.lanes
        at = row * (MAT.cols * MAT.low_bits // 8) + group * STEP + TILE * MAT.lanes + lane
        return tl.load(p_low + at, mask=m_tile, other=0).to(tl.int32)


@triton.jit
def load_high(p_low, row, group, lane, m_tile, MAT: tl.constexpr):
    """Bytes of plane `high`, [BN, J, I]; of a type without one, anything."""
    if MAT.high_bits == 0:
        return lane
    else:
        at = MAT.o_high + row * (MAT.cols * MAT.high_bits // 8) + group * MAT.lanes + lane
        return tl.load(p_low + at, mask=m_tile, other=0).to(tl.int32)


@triton.jit
def weights(
    low, high, p_low, p_halves, row, group, run, m_tile,
    TILE: tl.constexpr, CODE: tl.constexpr, MAT: tl.constexpr,
):  # fmt: skip
    """Float32 weights [BN, J, I] of field CODE * n_tiles + TILE, from the bytes that hold them."""
    if MAT.scaling == "none":
        return low.to(tl.float32)
    else:
        FIELD: tl.constexpr = CODE * MAT.n_tiles + TILE
        code = (low >> (MAT.low_bits * CODE)) & ((1 << MAT.low_bits) - 1)
        if MAT.high_bits > 0:
            code = code | (((high >> (MAT.high_bits * FIELD)) & ((1 << MAT.high_bits) - 1)) << MAT.low_bits)
        first = group * MAT.group + FIELD * MAT.lanes + run
        return _scaled(_level(code, MAT).to(tl.float32), p_low, p_halves, row, first, m_tile, MAT)


@triton.jit
def _scaled(level, p_low, p_halves, row, first, m_tile, MAT: tl.constexpr):
    """Levels [BN, J, I] times the scales of their runs, which begin at columns `first` [1, J, 1]."""
    sub = first // MAT.sub
    block = first // MAT.block
    if MAT.scaling == "exponent":
        e = _packed(p_low, MAT.o_s_low, 8, row, sub, m_tile, MAT)
        # 2^(e - 128) by its bits; the two smallest are subnormal.
        bits = tl.where(e < 2, 0x00200000 << tl.minimum(e, 1), (tl.maximum(e, 1) - 1) << 23)
        return bits.to(tl.float32, bitcast=True) * level
    elif MAT.scaling == "block":
        scaled = _half(p_halves, MAT.o_d, row, block, m_tile, MAT) * level
        if MAT.n_halves == 2:
            scaled += _half(p_halves, MAT.o_m, row, block, m_tile, MAT)
        return scaled
    else:
        d = _half(p_halves, MAT.o_d, row, block, m_tile, MAT)
        s = _packed(p_low, MAT.o_s_low, MAT.s_low_bits, row, sub, m_tile, MAT)
        if MAT.s_high_bits > 0:
            more = _packed(p_low, MAT.o_s_high, MAT.s_high_bits, row, sub, m_tile, MAT)
        if MAT.scaling == "sbyte":
            return (d * ((s ^ 128) - 128).to(tl.float32)) * level
        elif MAT.scaling == "signed":
            return (d * ((s | (more << MAT.s_low_bits)) - MAT.scale_zero).to(tl.float32)) * level
        else:
            scale = s & 15
            low_scale = s >> 4
            if MAT.scaling == "min6":
                scale = scale | ((more & 3) << 4)
                low_scale = low_scale | ((more >> 2) << 4)
            m = _half(p_halves, MAT.o_m, row, block, m_tile, MAT)
            return (d * scale.to(tl.float32)) * level - m * low_scale.to(tl.float32)


@triton.jit
def dot_few(
    p_low, p_halves, p_x, o_x, m_x, row, m_row,
    MAT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, NG: tl.constexpr,
):  # fmt: skip
    """Rows of a matrix times a few vectors, elementwise in float32.

    p_low, p_halves: the matrix; o_x int64, m_x [BM]: offsets of the vectors; row int64, m_row [BN]; result
    [BM, BN].
    """
    SUB_LANES: tl.constexpr = MAT.sub_lanes  # Triton 3.6 wants a shape's numbers named
    RUNS: tl.constexpr = MAT.lanes // SUB_LANES
    TILES: tl.constexpr = MAT.n_tiles
    CODES: tl.constexpr = MAT.n_fields // MAT.n_tiles
    N_GROUPS: tl.constexpr = (MAT.cols + MAT.group - 1) // MAT.group
    row = row[:, None, None]
    p_x = p_x + o_x[:, None, None, None]
    m_x = m_x[:, None, None, None]
    acc = tl.zeros([BM, BN, NG * RUNS, SUB_LANES], tl.float32)
    for g0 in range(0, N_GROUPS, NG):
        group, run, lane = tile_columns(g0, MAT, NG)
        m_tile = m_row[:, None, None] & (group < N_GROUPS)
        high = load_high(p_low, row, group, lane, m_tile, MAT)
        for t in tl.static_range(TILES):
            low = load_low(p_low, row, group, lane, m_tile, t, MAT)
            for u in tl.static_range(CODES):
                w = weights(low, high, p_low, p_halves, row, group, run, m_tile, t, u, MAT)
                column = group * MAT.group + (u * MAT.n_tiles + t) * MAT.lanes + lane
                x = tl.load(p_x + column[None], mask=m_x & (column < MAT.cols)[None], other=0)
                acc += x * w[None]
    return tl.sum(tl.sum(acc, 3), 2)


@triton.jit
def dot_many(
    p_low, p_halves, p_x, o_x, m_x, row, m_row,
    MAT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, NG: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """`dot_few` for 16 vectors and more: tiles of weights and of x as DOT (a float type) through tl.dot."""
    TILES: tl.constexpr = MAT.n_tiles
    CODES: tl.constexpr = MAT.n_fields // MAT.n_tiles
    N_GROUPS: tl.constexpr = (MAT.cols + MAT.group - 1) // MAT.group
    LANES: tl.constexpr = NG * MAT.lanes
    row = row[:, None, None]
    o_l = tl.arange(0, LANES)
    acc = tl.zeros([BM, BN], tl.float32)
    for g0 in range(0, N_GROUPS, NG):
        group, run, lane = tile_columns(g0, MAT, NG)
        m_tile = m_row[:, None, None] & (group < N_GROUPS)
        x_column = (g0 + o_l // MAT.lanes) * MAT.group + o_l % MAT.lanes
        high = load_high(p_low, row, group, lane, m_tile, MAT)
        for t in tl.static_range(TILES):
            low = load_low(p_low, row, group, lane, m_tile, t, MAT)
            for u in tl.static_range(CODES):
                w = weights(low, high, p_low, p_halves, row, group, run, m_tile, t, u, MAT)
                column = x_column + (u * MAT.n_tiles + t) * MAT.lanes
                m_tile_x = m_x[:, None] & (column < MAT.cols)[None, :]
                x = tl.load(p_x + o_x[:, None] + column[None, :], mask=m_tile_x, other=0)
                w = tl.trans(tl.reshape(w, [BN, LANES])).to(DOT)
                acc = tl.dot(x.to(DOT), w, acc, input_precision="ieee")
    return acc
