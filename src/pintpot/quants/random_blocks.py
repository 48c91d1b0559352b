"""Random blocks of every supported type, valid and of a chosen spread, for synthetic models and tests.

Quantized levels, sub-block scales and minima are uniform random bits; only the block scales are computed,
from the second moment of what those bits stand for. Every bit of every field is used.
"""

from __future__ import annotations

from math import floor, log2, sqrt
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.gguf.types import TYPES, GGMLType
from pintpot.quants.blocks import BLOCKS, E2M1_DOUBLED, IQ4_LEVELS

U8: TypeAlias = npt.NDArray[np.uint8]

_CHUNK_VALUES: Final = 1 << 16  # of float32 conversion, to stay in the cache
_JITTER: Final = 0.5  # block scales spread over 1 +- this
_JITTER_SQUARE: Final = 1 + _JITTER**2 / 3


def _mean(levels: int) -> float:
    """Mean of 0 .. levels-1."""
    return (levels - 1) / 2


def _square(levels: int, offset: int = 0) -> float:
    """Mean square of offset .. offset+levels-1."""
    return float(np.mean(np.square(np.arange(offset, offset + levels, dtype=np.float64))))


def _with_min(scales: int, levels: int) -> float:
    """Mean square of scale * q - mean(levels) * minimum, with scale and minimum in 0 .. scales-1."""
    middle = _mean(levels)
    return _square(scales) * _square(levels) + middle**2 * _square(scales) - 2 * (middle * _mean(scales)) ** 2


# Mean square of a value with a block scale of 1. Types without a minimum have levels that are not quite
# centred on zero: their block scales get a random sign.
_SIGNED: Final = {
    GGMLType.Q4_0: _square(16, -8),
    GGMLType.Q5_0: _square(32, -16),
    GGMLType.Q8_0: _square(255, -127),
    GGMLType.Q3_K: _square(64, -32) * _square(8, -4),
    GGMLType.Q6_K: _square(256, -128) * _square(64, -32),
    GGMLType.IQ4_NL: float(np.mean(np.square(IQ4_LEVELS))),
    GGMLType.IQ4_XS: _square(64, -32) * float(np.mean(np.square(IQ4_LEVELS))),
}
# Those with a minimum: mean square, and the block minimum that centres the values.
_WITH_MIN: Final = {
    GGMLType.Q4_1: (_square(16) - _mean(16) ** 2, "m", -_mean(16)),
    GGMLType.Q5_1: (_square(32) - _mean(32) ** 2, "m", -_mean(32)),
    GGMLType.Q2_K: (_with_min(16, 4), "dmin", _mean(4)),
    GGMLType.Q4_K: (_with_min(64, 16), "dmin", _mean(16)),
    GGMLType.Q5_K: (_with_min(64, 32), "dmin", _mean(32)),
}


def random_blocks(ggml_type: int, n_blocks: int, rng: np.random.Generator, std: float = 0.02) -> U8:
    """`n_blocks` random blocks, uint8 [n_blocks * block_bytes], whose values have mean 0 and deviation `std`.

    Float types draw from a uniform distribution. Raises ValueError for a type that cannot be computed with.
    """
    info = TYPES.get(ggml_type)
    if info is None or not info.runnable:
        raise ValueError(f"tensor type {info.name if info else ggml_type} cannot be computed with")
    kind = GGMLType(ggml_type)
    if kind in (GGMLType.F32, GGMLType.F16, GGMLType.BF16):
        return _random_floats(kind, n_blocks, rng, std)
    raw = _random_bytes(n_blocks * info.block_bytes, rng)
    blocks: Any = raw.view(BLOCKS[kind])
    if kind is GGMLType.MXFP4:
        blocks["e"] = _exponents(n_blocks, rng, std)
        return raw
    scale = 1 + _JITTER * (2 * rng.random(n_blocks, dtype=np.float32) - 1)
    if kind in _SIGNED:
        unit = std / sqrt(_SIGNED[kind] * _JITTER_SQUARE)
        blocks["d"] = scale * np.where(_random_bytes(n_blocks, rng) & 1, np.float32(unit), np.float32(-unit))
        if kind is GGMLType.Q8_0:
            np.maximum(blocks["qs"], -127, out=blocks["qs"])  # no quantizer writes -128
        return raw
    square, field, centre = _WITH_MIN[kind]
    scale *= np.float32(std / sqrt(square * _JITTER_SQUARE))
    blocks["d"] = scale
    blocks[field] = scale * np.float32(centre)
    return raw


def _random_bytes(size: int, rng: np.random.Generator) -> U8:
    words = rng.integers(0, 1 << 64, -(-size // 8), dtype=np.uint64)
    return words.view(np.uint8)[:size]


def _random_floats(kind: GGMLType, count: int, rng: np.random.Generator, std: float) -> U8:
    if kind is not GGMLType.F32:
        # Converting to half precision is slow; looking 65,536 values up is not.
        table = _uniform(np.arange(-(1 << 15), 1 << 15, dtype=np.int32), 16, std)
        if kind is GGMLType.F16:
            codes = table.astype(np.float16).view(np.uint16)
        else:
            codes = table.view(np.uint16)[1::2].copy()  # bfloat16 is the upper half of a float32
        return codes[_random_bytes(2 * count, rng).view(np.uint16)].view(np.uint8)
    raw = _random_bytes(4 * count, rng)
    whole, values = raw.view(np.int32), raw.view(np.float32)
    for start in range(0, count, _CHUNK_VALUES):
        part = slice(start, start + _CHUNK_VALUES)
        values[part] = _uniform(whole[part], 32, std)
    return raw


def _uniform(whole: npt.NDArray[np.int32], bits: int, std: float) -> npt.NDArray[np.float32]:
    """Signed integers of `bits` bits, centred and scaled to deviation `std`."""
    values = whole.astype(np.float32)
    values += np.float32(0.5)
    values *= np.float32(std * sqrt(12) / 2.0**bits)
    return values


def _exponents(n_blocks: int, rng: np.random.Generator, std: float) -> U8:
    """Block exponents of MXFP4: two neighbours, mixed so that the mean square comes out right."""
    unit = std / sqrt(float(np.mean(np.square(E2M1_DOUBLED))))
    lower = floor(log2(unit))
    share = (unit**2 / 4.0**lower - 1) / 3  # of blocks with the next exponent
    return (lower + 128 + (rng.random(n_blocks, dtype=np.float32) < share)).astype(np.uint8)
