"""Quantization: every type at every kernel level, against plain NumPy quantizers and general properties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from pintpot import _native
from pintpot.gguf.types import TYPES, GGMLType, row_bytes
from pintpot.kernels.api import TensorView
from pintpot.kernels.quantize import Quantized, Quantizer
from pintpot.quants.blocks import E2M1_DOUBLED, IQ4_LEVELS
from pintpot.quants.reference import dequantize

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

FLOATS = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
QUANTIZED = [kind for kind in GGMLType if kind not in FLOATS]

# Sub-block length, largest code, largest integer scale and minimum.
AFFINE_SUPER = {GGMLType.Q2_K: (16, 3, 15), GGMLType.Q4_K: (32, 15, 63), GGMLType.Q5_K: (32, 31, 63)}
# Sub-block length, levels, largest integer scale (downwards; upwards one less).
SYMMETRIC_SUPER = {
    GGMLType.Q3_K: (16, np.arange(-4, 4), 32),
    GGMLType.Q6_K: (16, np.arange(-32, 32), 128),
    GGMLType.IQ4_XS: (32, IQ4_LEVELS, 32),
}
AFFINE = {GGMLType.Q4_1: 15, GGMLType.Q5_1: 31}
SYMMETRIC = {
    GGMLType.Q4_0: np.arange(-8, 8),
    GGMLType.Q5_0: np.arange(-16, 16),
    GGMLType.Q8_0: np.arange(-127, 128),
    GGMLType.IQ4_NL: IQ4_LEVELS,
    GGMLType.MXFP4: E2M1_DOUBLED,
}


@pytest.fixture(scope="module")
def quantizers() -> dict[int, Quantizer]:
    made = {n: Quantizer(n) for n in (1, 3)}
    for quantizer in made.values():
        quantizer.engine.set_poison(True)
    return made


@pytest.fixture
def quantize(quantizers: dict[int, Quantizer]) -> Callable[..., U8]:
    """quantize(kind, x, importance=None, n_threads=3): the bytes of float32 rows [n, cols]."""

    def run(kind: GGMLType, x: F32, importance: F32 | None = None, n_threads: int = 3) -> U8:
        out, result = call(quantizers[n_threads], view(x), kind, importance)
        assert result.bad_row is None
        return out

    return run


def view(data: npt.NDArray[np.generic], kind: GGMLType = GGMLType.F32, n_mats: int = 1) -> TensorView:
    """`data` [n_mats * rows, ...] as matrices of type `kind`."""
    raw = np.ascontiguousarray(data).view(np.uint8).reshape(len(data), -1)
    info = TYPES[kind]
    rows, width = len(raw) // n_mats, raw.shape[1]
    cols = width // info.block_bytes * info.block_values
    return TensorView("w", kind, raw.reshape(-1), n_mats, rows, cols, width, rows * width)


def call(
    quantizer: Quantizer, source: TensorView, kind: GGMLType, importance: F32 | None = None, mat: int = 0,
    row0: int = 0, n_rows: int | None = None, measure: bool = False,
) -> tuple[U8, Quantized]:  # fmt: skip
    n_rows = source.rows - row0 if n_rows is None else n_rows
    out = np.full((n_rows, row_bytes(kind, source.cols)), 0xAA, np.uint8)
    return out, quantizer.quantize(source, mat, row0, kind, out, importance, measure=measure)


def values(rows: int, cols: int, seed: int = 0) -> F32:
    """Heavy-tailed rows of different sizes; the first has a block of zeros and one of equal values."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(4, (rows, cols)) * np.exp(rng.standard_normal((rows, 1)))
    x[0, : cols // 4], x[0, cols // 4 : cols // 2] = 0, 0.75
    return x.astype(np.float32)


def column_importance(cols: int, seed: int = 5) -> F32:
    weights = np.exp(1.5 * np.random.default_rng(seed).standard_normal(cols)).astype(np.float32)
    weights[::17] = 0
    return weights


def error(kind: GGMLType, x: F32, blocks: U8, importance: F32 | float = 1.0) -> float:
    diff = x.astype(np.float64) - dequantize(kind, blocks, x.shape)
    return float((importance * diff * diff).sum())


def nearest(levels: npt.NDArray[np.generic], v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    levels = np.sort(levels.astype(np.float64))
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, v)]


def divide(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros_like(a + b), where=b != 0)


def plain(kind: GGMLType, x: F32) -> npt.NDArray[np.float64]:
    """x through a quantizer without any search: scales from the extremes, everything to nearest."""
    v = x.astype(np.float64)
    if kind in AFFINE or kind in AFFINE_SUPER:
        n, top, steps = AFFINE_SUPER.get(kind, (32, AFFINE.get(kind, 0), 0))
        b = v.reshape(-1, 256 // n if steps else 1, n)
        low = np.minimum(b.min(-1, keepdims=True), 0 if steps else np.inf)
        scale = (b.max(-1, keepdims=True) - low) / top
        if steps:
            d, dmin = scale.max(1, keepdims=True) / steps, -low.min(1, keepdims=True) / steps
            scale, low = d * np.round(divide(scale, d)), -dmin * np.round(divide(-low, dmin))
        return (np.clip(np.round(divide(b - low, scale)), 0, top) * scale + low).reshape(x.shape)
    if kind in SYMMETRIC_SUPER:
        n, levels, steps = SYMMETRIC_SUPER[kind]
    else:
        n, levels, steps = 32, SYMMETRIC[kind], 0
    b = v.reshape(-1, 256 // n if steps else 1, n)
    scale = np.abs(b).max(-1, keepdims=True) / np.abs(levels.astype(np.float64)).max()
    if kind is GGMLType.MXFP4:
        scale = 2.0 ** np.ceil(np.log2(np.maximum(scale, 1e-30)))
    if steps:
        d = scale.max(1, keepdims=True) / (steps - 1)
        scale = d * np.round(divide(scale, d))
    return (nearest(levels, divide(b, scale)) * scale).reshape(x.shape)


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda kind: kind.name)
def test_no_worse_than_without_a_search(quantize: Callable[..., U8], kind: GGMLType) -> None:
    x = values(17, 768)
    without = float(((x - plain(kind, x)) ** 2).sum())
    assert error(kind, x, quantize(kind, x)) <= without * (1 + 1e-3)  # scales are halves


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda kind: kind.name)
def test_importance_counts(quantize: Callable[..., U8], kind: GGMLType) -> None:
    x, weights = values(17, 768), column_importance(768)
    with_it, without = quantize(kind, x, weights), quantize(kind, x)
    if kind is GGMLType.Q8_0:
        np.testing.assert_array_equal(with_it, without)
    else:
        assert error(kind, x, with_it, weights) < 0.99 * error(kind, x, without, weights)
    # Columns of no importance are still written: their error is not what zeros would cost.
    unimportant = (weights == 0).astype(np.float32)
    assert error(kind, x, with_it, unimportant) < 0.5 * float((unimportant * x * x).sum())
    np.testing.assert_array_equal(quantize(kind, x, np.zeros(768, np.float32)), without)
    np.testing.assert_array_equal(quantize(kind, x, weights * np.float32(2.0**100)), with_it)


@pytest.mark.parametrize("kind", list(GGMLType), ids=lambda kind: kind.name)
def test_same_bytes_at_every_level(quantize: Callable[..., U8], kind: GGMLType) -> None:
    x, weights = values(5, 1280), column_importance(1280)
    before, made = _native.active_isa(), {}
    try:
        for level in _native.Isa:
            if _native.set_isa(level):
                made[level] = (quantize(kind, x), quantize(kind, x, weights))
    finally:
        _native.set_isa(before)
    for without, with_importance in made.values():
        np.testing.assert_array_equal(without, made[_native.Isa.scalar][0])
        np.testing.assert_array_equal(with_importance, made[_native.Isa.scalar][1])


@pytest.mark.parametrize("kind", list(GGMLType), ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [(1, 256), (3, 768), (101, 256)])
def test_rows_are_independent(
    isa: _native.Isa, quantize: Callable[..., U8], kind: GGMLType, shape: tuple[int, int]
) -> None:
    """Whatever the threads, the number of rows and the blocks beside it, a row has the same bytes."""
    x, weights = values(*shape), column_importance(shape[1])
    whole = quantize(kind, x, weights)
    np.testing.assert_array_equal(quantize(kind, x, weights, n_threads=1), whole)
    np.testing.assert_array_equal(quantize(kind, x[::-1], weights)[::-1], whole)
    np.testing.assert_array_equal(quantize(kind, x[-1:], weights), whole[-1:])


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda kind: kind.name)
def test_zero_and_equal_values(isa: _native.Isa, quantize: Callable[..., U8], kind: GGMLType) -> None:
    zeros = np.zeros((2, 512), np.float32)
    assert not dequantize(kind, quantize(kind, zeros)).any()
    for level in (1.0, -3.0):
        x = np.full((2, 512), level, np.float32)
        made = dequantize(kind, quantize(kind, x), x.shape)
        coarse = 0.15 if kind in {GGMLType.MXFP4, GGMLType.IQ4_NL} else 2e-3
        np.testing.assert_allclose(made, x, rtol=coarse)


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda kind: kind.name)
@pytest.mark.parametrize("exponent", [-149, -40, -24, -18, 10, 20, 126])
def test_any_size_of_values(
    isa: _native.Isa, quantize: Callable[..., U8], kind: GGMLType, exponent: int
) -> None:
    """Scales that are subnormal, vanish or overflow a half: results stay finite and better than zeros."""
    x = np.ldexp(np.clip(values(3, 512), -1.9, 1.9), exponent).astype(np.float32)
    for importance in (None, column_importance(512)):
        made = dequantize(kind, quantize(kind, x, importance), x.shape).astype(np.float64)
        assert np.isfinite(made).all()
        weights = 1.0 if importance is None else importance
        assert (weights * (x - made) ** 2).sum() <= 1.0001 * (weights * x.astype(np.float64) ** 2).sum()


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda kind: kind.name)
def test_what_was_quantized_stays(isa: _native.Isa, quantize: Callable[..., U8], kind: GGMLType) -> None:
    """Quantizing the values of blocks again costs a small part of what the first time cost."""
    x = values(9, 512, seed=3)
    once = dequantize(kind, quantize(kind, x), x.shape)
    again = error(kind, once, quantize(kind, once))
    assert again <= 0.15 * float(((x - once) ** 2).sum())


def test_float_types_round_to_nearest_even(isa: _native.Isa, quantize: Callable[..., U8]) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 1 << 32, (7, 333), dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.where(np.isfinite(x), x, 1).astype(np.float32)
    np.testing.assert_array_equal(quantize(GGMLType.F32, x).view(np.float32), x)
    bits = x.view(np.uint32).astype(np.uint64)
    want = np.minimum((bits + 0x7FFF + (bits >> 16 & 1)) >> 16, (bits >> 31 << 15) + 0x7F7F)
    np.testing.assert_array_equal(quantize(GGMLType.BF16, x).view(np.uint16), want)
    halves = np.ldexp(rng.standard_normal((7, 333)), rng.integers(-30, 13, (7, 333))).astype(np.float32)
    np.testing.assert_array_equal(quantize(GGMLType.F16, halves).view(np.float16), halves.astype(np.float16))


@pytest.mark.parametrize("kind", list(GGMLType), ids=lambda kind: kind.name)
def test_bad_values_are_found(isa: _native.Isa, quantizers: dict[int, Quantizer], kind: GGMLType) -> None:
    x = values(300, 256)
    for bad in (np.nan, np.inf, -np.inf):
        for rows in ((299,), (150, 3), (0, 299)):
            y = x.copy()
            y[list(rows), 255] = bad
            for source, dtype in ((GGMLType.F32, np.float32), (GGMLType.F16, np.float16)):
                _, result = call(quantizers[3], view(y.astype(dtype), source), kind)
                assert result.bad_row == min(rows)
    _, result = call(quantizers[3], view(x), kind, row0=7)
    assert result.bad_row is None


def test_half_overflow_is_bad(isa: _native.Isa, quantizers: dict[int, Quantizer]) -> None:
    x = np.full((5, 40), 65519.0, np.float32)
    out, result = call(quantizers[1], view(x), GGMLType.F16)
    assert result.bad_row is None
    assert (out.view(np.float16) == 65504).all()
    x[3, 39] = -65520.0
    assert call(quantizers[1], view(x), GGMLType.F16)[1].bad_row == 3


@pytest.mark.parametrize("source", list(GGMLType), ids=lambda kind: kind.name)
def test_any_source_type(isa: _native.Isa, quantizers: dict[int, Quantizer], source: GGMLType) -> None:
    """A stack of three matrices in any type: rows of one are what their values give."""
    blocks, _ = call(quantizers[3], view(values(21, 512)), source)
    stack = view(blocks, source, n_mats=3)
    x = dequantize(source, blocks, (3, 7, 512))
    for kind in (GGMLType.Q4_K, GGMLType.Q8_0):
        got, _ = call(quantizers[3], stack, kind, mat=1, row0=2, n_rows=4)
        want, _ = call(quantizers[3], view(x[1, 2:6]), kind)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", list(GGMLType), ids=lambda kind: kind.name)
def test_measured_error(isa: _native.Isa, quantizers: dict[int, Quantizer], kind: GGMLType) -> None:
    x, weights = values(67, 512), column_importance(512)
    for importance in (None, weights):
        out, result = call(quantizers[3], view(x), kind, importance, measure=True)
        want = error(kind, x, out, 1.0 if importance is None else importance.astype(np.float64))
        assert result.squared_error == pytest.approx(want, rel=1e-9)
        one_thread = call(quantizers[1], view(x), kind, importance, measure=True)[1]
        assert one_thread.squared_error == result.squared_error
        assert call(quantizers[3], view(x), kind, importance)[1].squared_error == 0


def test_what_does_not_fit(quantizers: dict[int, Quantizer]) -> None:
    quantizer, source = quantizers[1], view(values(4, 512))
    out = np.empty((4, row_bytes(GGMLType.Q4_K, 512)), np.uint8)
    with pytest.raises(ValueError, match="bytes of one row"):
        quantizer.quantize(source, 0, 0, GGMLType.Q5_K, out)
    with pytest.raises(ValueError, match="no such matrix or rows"):
        quantizer.quantize(source, 0, 1, GGMLType.Q4_K, out)
    with pytest.raises(ValueError, match="no such matrix or rows"):
        quantizer.quantize(source, 1, 0, GGMLType.Q4_K, out)
    with pytest.raises(ValueError, match="no whole blocks"):
        quantizer.quantize(view(values(4, 288)), 0, 0, GGMLType.Q4_K, out)
    with pytest.raises(ValueError, match="one value for each column"):
        quantizer.quantize(source, 0, 0, GGMLType.Q4_K, out, np.ones(256, np.float32))
    for bad in (-1.0, np.nan, np.inf):
        weights = np.ones(512, np.float32)
        weights[9] = bad
        with pytest.raises(ValueError, match="finite and not negative"):
            quantizer.quantize(source, 0, 0, GGMLType.Q4_K, out, weights)
