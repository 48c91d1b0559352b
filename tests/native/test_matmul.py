"""Matrix products: every weight type and kernel level, against float64 products of dequantized weights."""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from pintpot import _native
from pintpot.gguf.types import TYPES, GGMLType
from pintpot.quants.random_blocks import random_blocks
from pintpot.quants.reference import dequantize

F32 = npt.NDArray[np.float32]
MakeEngine = Callable[[int], _native.Engine]

FLOATS = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
RUNNABLE = [GGMLType(t) for t, info in TYPES.items() if info.runnable]
QUANTIZED = [t for t in RUNNABLE if t not in FLOATS]
SUPER = [t for t in QUANTIZED if TYPES[t].block_values == 256]

ACT_BLOCK = np.dtype([("q", "i1", 32), ("d", "<f4"), ("sum", "<i4")])
ACT_SUPER = np.dtype(
    {
        "names": ["q", "sum16", "sum32", "d"],
        "formats": [("i1", 256), ("<i2", 16), ("<i2", 8), "<f4"],
        "offsets": [0, 256, 288, 304],
        "itemsize": 320,
    }
)


def blocks(kind: GGMLType, rows: int, cols: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random rows in GGUF blocks, uint8 [rows, row_bytes]."""
    info = TYPES[kind]
    raw = random_blocks(kind, rows * cols // info.block_values, np.random.default_rng(seed), std=1.0)
    return raw.reshape(rows, -1)


def matrix(raw: npt.NDArray[np.uint8], kind: GGMLType, rows: int, cols: int) -> _native.Matrix:
    flat = np.ascontiguousarray(raw).reshape(-1)
    return _native.Matrix(flat, kind, 1, rows, cols, flat.size // rows, flat.size, flat)


def inputs(n: int, cols: int, seed: int = 1) -> F32:
    return np.random.default_rng(seed).standard_normal((n, cols), dtype=np.float32)


def multiply(engine: _native.Engine, w: _native.Matrix, x: F32, bias: F32 | None = None) -> F32:
    out = np.full((len(x), w.rows), np.nan, np.float32)
    _native.matmul(engine, w, 0, x, out, bias)
    return out


def prepared(kind: GGMLType, x: F32) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the kernels make of activations x [n, cols], and half a quantization step at each value."""
    if kind in FLOATS:
        return x.astype(np.float64), np.zeros_like(x, np.float64)
    dtype = ACT_SUPER if kind in SUPER else ACT_BLOCK
    size = x.shape[1] // (256 if kind in SUPER else 32) * dtype.itemsize
    acts = np.stack([np.frombuffer(_native.quantize_acts(kind, row)[:size], dtype) for row in x])
    d = acts["d"].astype(np.float64)[..., None]
    return (acts["q"] * d).reshape(x.shape), np.broadcast_to(d / 2, acts["q"].shape).reshape(x.shape)


def check(kind: GGMLType, weights: F32, x: F32, got: F32) -> None:
    """Two bounds, neither fitted: float32 rounding against the activations as quantized, and the worst that
    rounding activations to int8 can do against the activations as given."""
    w = weights.astype(np.float64)
    rounded, half_step = prepared(kind, x)
    # A block with minima is the difference of two terms, each up to the largest weight of the row.
    size = np.abs(w).max(axis=1)
    rounding = 1e-6 * np.abs(rounded).sum(axis=1)[:, None] * size
    assert (np.abs(got - rounded @ w.T) <= rounding).all()
    quantization = half_step @ np.abs(w).T
    # The scales of 32-value blocks have half precision: up to 127 codes are off by 2^-12 of a step each.
    slack = 1.001 if kind in SUPER else 1 + 2 * 127 * 2.0**-12
    assert (np.abs(got - x.astype(np.float64) @ w.T) <= rounding + slack * quantization).all()


@pytest.mark.parametrize("kind", RUNNABLE, ids=lambda t: t.name)
def test_dequantize_is_exact(kind: GGMLType) -> None:
    raw = blocks(kind, 5, 512)
    out = np.full((3, 512), np.nan, np.float32)
    _native.dequantize(matrix(raw, kind, 5, 512), 0, 1, out)
    assert np.array_equal(out, dequantize(kind, raw[1:4], (3, 512)))
    if kind is not GGMLType.F32:
        assert np.array_equal(out, gguf.quants.dequantize(raw[1:4], gguf.GGMLQuantizationType(int(kind))))


SIZES = [(1, 256), (3, 512), (16, 256), (17, 2048), (100, 768), (33, 2304)]


@pytest.mark.parametrize("kind", RUNNABLE, ids=lambda t: t.name)
def test_products(isa: _native.Isa, engine: _native.Engine, kind: GGMLType) -> None:
    for seed, (rows, cols) in enumerate(SIZES):
        raw = blocks(kind, rows, cols, seed)
        w, weights = matrix(raw, kind, rows, cols), dequantize(kind, raw, (rows, cols))
        x = inputs(17, cols, seed)
        for n in (1, 2, 3, 5, 8, 17):
            check(kind, weights, x[:n], multiply(engine, w, x[:n]))


@pytest.mark.parametrize("cols", [32, 96, 160, 288])
@pytest.mark.parametrize("kind", [t for t in RUNNABLE if t not in SUPER], ids=lambda t: t.name)
def test_rows_of_few_blocks(isa: _native.Isa, engine: _native.Engine, kind: GGMLType, cols: int) -> None:
    raw = blocks(kind, 19, cols)
    x = inputs(9, cols)
    for n in (1, 9):
        got = multiply(engine, matrix(raw, kind, 19, cols), x[:n])
        check(kind, dequantize(kind, raw, (19, cols)), x[:n], got)


@pytest.mark.parametrize("cols", [1, 7, 15, 33])
@pytest.mark.parametrize("kind", FLOATS, ids=lambda t: t.name)
def test_float_rows_of_any_length(
    isa: _native.Isa, engine: _native.Engine, kind: GGMLType, cols: int
) -> None:
    raw = blocks(kind, 5, cols)
    x = inputs(4, cols)
    for n in (1, 4):
        got = multiply(engine, matrix(raw, kind, 5, cols), x[:n])
        check(kind, dequantize(kind, raw, (5, cols)), x[:n], got)


@pytest.mark.parametrize("kind", RUNNABLE, ids=lambda t: t.name)
def test_same_bits_for_any_batch_threads_and_tiles(
    isa: _native.Isa, make_engine: MakeEngine, kind: GGMLType
) -> None:
    rows, cols = 150, 512
    w = matrix(blocks(kind, rows, cols), kind, rows, cols)
    x = inputs(150, cols)  # more tokens than a kernel keeps sums for at a time
    whole = multiply(make_engine(1), w, x)
    for n in (1, 2, 3, 7):
        assert np.array_equal(multiply(make_engine(1), w, x[:n]), whole[:n])
    for n_threads in (2, 3, 4):
        assert np.array_equal(multiply(make_engine(n_threads), w, x), whole)
    tiled = np.full_like(whole, np.nan)
    for row0, row1 in ((0, 16), (16, 80), (80, 144), (144, 150)):
        _native.mul_tile(w, 0, row0, row1, x, None, tiled)
    assert np.array_equal(tiled, whole)


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda t: t.name)
def test_long_rows_of_a_tile_that_does_not_fill_a_vector(
    isa: _native.Isa, engine: _native.Engine, kind: GGMLType
) -> None:
    """65 and 133 blocks of 256 values: more than few-token products sum at a time."""
    for rows, cols in ((11, 65 * 256), (3, 133 * 256)):
        raw = blocks(kind, rows, cols)
        w, x = matrix(raw, kind, rows, cols), inputs(9, cols)
        whole = multiply(engine, w, x)
        check(kind, dequantize(kind, raw, (rows, cols)), x, whole)
        for n in (1, 2, 3, 4):
            assert np.array_equal(multiply(engine, w, x[:n]), whole[:n])


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda t: t.name)
def test_simd_levels_agree_in_every_bit(engine: _native.Engine, kind: GGMLType) -> None:
    """Blocks are summed in integers and added in order with fused multiply-adds, at any vector width."""
    levels = [level for level in _native.Isa if _native.Isa.scalar < level <= _native.detect_isa()]
    if len(levels) < 2:
        pytest.skip("this CPU lacks the avx512 level")
    before = _native.active_isa()
    w = matrix(blocks(kind, 40, 1024), kind, 40, 1024)
    x = inputs(11, 1024)
    results = []
    for level in levels:
        assert _native.set_isa(level)
        results.append(multiply(engine, w, x))
    _native.set_isa(before)
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@pytest.mark.parametrize("kind", [GGMLType.Q4_K, GGMLType.Q8_0, GGMLType.F16], ids=lambda t: t.name)
def test_gathered_rows_and_output_stride(isa: _native.Isa, engine: _native.Engine, kind: GGMLType) -> None:
    w = matrix(blocks(kind, 24, 256), kind, 24, 256)
    x = inputs(6, 256)
    expected = multiply(engine, w, x)
    for index in ([3], [5, 0], [4, 4, 1, 0, 5, 2, 3, 3, 1]):
        out = np.full((len(index), 29), 7.0, np.float32)
        _native.mul_tile(w, 0, 16, 24, x, np.array(index, np.int32), out)
        assert np.array_equal(out[:, 16:24], expected[index][:, 16:24])
        assert (np.delete(out, np.s_[16:24], axis=1) == 7.0).all()  # nothing else is written


@pytest.mark.parametrize("kind", [GGMLType.Q6_K, GGMLType.MXFP4, GGMLType.BF16], ids=lambda t: t.name)
def test_slices_of_a_fused_stack(isa: _native.Isa, engine: _native.Engine, kind: GGMLType) -> None:
    n_mats, rows, cols = 4, 40, 512
    raw = blocks(kind, n_mats * rows, cols).reshape(n_mats, rows, -1)
    row_bytes = raw.shape[2]
    view = raw.reshape(-1)[24 * row_bytes :]  # rows 24.. of every matrix
    w = _native.Matrix(view, kind, n_mats, 16, cols, row_bytes, rows * row_bytes, view)
    x = inputs(5, cols)
    for mat in range(n_mats):
        out = np.full((5, 16), np.nan, np.float32)
        _native.matmul(engine, w, mat, x, out)
        check(kind, dequantize(kind, raw[mat, 24:], (16, cols)), x, out)


def test_bias(isa: _native.Isa, engine: _native.Engine) -> None:
    w = matrix(blocks(GGMLType.Q5_0, 21, 64), GGMLType.Q5_0, 21, 64)
    x, bias = inputs(3, 64), inputs(1, 21, seed=2)[0]
    assert np.array_equal(multiply(engine, w, x, bias), multiply(engine, w, x) + bias)


@pytest.mark.parametrize("kind", [GGMLType.Q4_K, GGMLType.Q8_0], ids=lambda t: t.name)
def test_activation_blocks(isa: _native.Isa, kind: GGMLType) -> None:
    size, dtype = (256, ACT_SUPER) if kind in SUPER else (32, ACT_BLOCK)
    x = inputs(1, 4 * size)[0]
    x[:size] *= 1e30
    x[size : 2 * size] = 0
    x[2 * size : 3 * size] *= 1e-42  # too small to divide by
    acts = np.frombuffer(_native.quantize_acts(kind, x)[: 4 * dtype.itemsize], dtype)
    for b in (0, 3):
        group = x[b * size : (b + 1) * size]
        inverse = np.float32(127) / np.abs(group).max()
        assert np.array_equal(acts[b]["q"], np.rint(group * inverse).astype(np.int8))
        scale = np.float32(1) / inverse
        if kind not in SUPER:  # a half's 11 significant bits
            mantissa, exponent = np.frexp(scale)
            scale = np.ldexp(np.rint(mantissa * 2048) / 2048, exponent).astype(np.float32)
        assert acts[b]["d"] == scale
        assert np.abs(acts[b]["q"]).max() == 127
    for b in (1, 2):
        assert acts[b]["d"] == 0
        assert not acts[b]["q"].any()
    q = acts["q"].astype(int)
    if kind in SUPER:
        assert np.array_equal(acts["sum16"], q.reshape(4, 16, 16).sum(axis=2))
        assert np.array_equal(acts["sum32"], q.reshape(4, 8, 32).sum(axis=2))
    else:
        assert np.array_equal(acts["sum"], q.sum(axis=1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "kind", [GGMLType.F32, GGMLType.F16, GGMLType.Q4_1, GGMLType.Q6_K], ids=lambda t: t.name
)
def test_values_that_are_not_finite_stay_visible(
    isa: _native.Isa, engine: _native.Engine, kind: GGMLType, bad: float
) -> None:
    w = matrix(blocks(kind, 20, 512), kind, 20, 512)
    x = inputs(6, 512)
    expected = multiply(engine, w, x)
    x[2, 300] = bad
    for n in (6, 3):
        got = multiply(engine, w, x[:n])
        assert not np.isfinite(got[2]).any()
        others = [i for i in range(n) if i != 2]
        assert np.array_equal(got[others], expected[others])


def test_extreme_codes_do_not_saturate(isa: _native.Isa, engine: _native.Engine) -> None:
    """All codes and activations at their largest: 16-bit partial sums must still fit."""
    for kind in QUANTIZED:
        info = TYPES[kind]
        for fill in (0x00, 0xFF, 0x7F, 0x80):
            raw = np.full((16, 2 * info.block_bytes), fill, np.uint8)
            for row in raw.reshape(-1, info.block_bytes):
                for at in _SCALE_OFFSETS.get(kind, ()):
                    row[at : at + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
                if kind is GGMLType.MXFP4:
                    row[0] = 120
            cols = 2 * info.block_values
            weights = dequantize(kind, raw, (16, cols))
            for x in (
                np.ones((5, cols), np.float32),
                np.tile([[1.0, -1.0]], (5, cols // 2)).astype(np.float32),
            ):
                for n in (1, 5):
                    check(kind, weights, x[:n], multiply(engine, matrix(raw, kind, 16, cols), x[:n]))


# Byte offsets of the half-precision scales in a block.
_SCALE_OFFSETS = {
    GGMLType.Q4_0: (0,),
    GGMLType.Q4_1: (0, 2),
    GGMLType.Q5_0: (0,),
    GGMLType.Q5_1: (0, 2),
    GGMLType.Q8_0: (0,),
    GGMLType.IQ4_NL: (0,),
    GGMLType.IQ4_XS: (0,),
    GGMLType.Q2_K: (80, 82),
    GGMLType.Q3_K: (108,),
    GGMLType.Q4_K: (0, 2),
    GGMLType.Q5_K: (0, 2),
    GGMLType.Q6_K: (208,),
}


def test_mismatched_arrays_are_refused(engine: _native.Engine) -> None:
    w = matrix(blocks(GGMLType.Q8_0, 4, 64), GGMLType.Q8_0, 4, 64)
    with pytest.raises(ValueError, match="does not match"):
        _native.matmul(engine, w, 0, inputs(2, 32), np.empty((2, 4), np.float32))
    with pytest.raises(ValueError, match="does not match"):
        _native.matmul(engine, w, 0, inputs(2, 64), np.empty((2, 5), np.float32))
    with pytest.raises(ValueError, match="out of range"):
        _native.matmul(engine, w, 1, inputs(2, 64), np.empty((2, 4), np.float32))
    with pytest.raises(ValueError, match="out of range"):
        _native.mul_tile(w, 0, 0, 4, inputs(2, 64), np.array([2], np.int32), np.empty((1, 4), np.float32))
