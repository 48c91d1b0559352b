"""Dequantization of every supported type in plain NumPy: the oracle for the native kernels.

The products and differences are taken in float32 and in ggml's order, so that results are bit-exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.gguf.types import TYPES, GGMLType
from pintpot.quants.blocks import BLOCKS, E2M1_DOUBLED, IQ4_LEVELS, whole_blocks

F32: TypeAlias = npt.NDArray[np.float32]
U8: TypeAlias = npt.NDArray[np.uint8]
Blocks: TypeAlias = npt.NDArray[np.void]

_CHUNK_VALUES: Final = 1 << 20  # bounds the intermediate arrays to a few MB


def dequantize(ggml_type: int, data: npt.NDArray[Any], shape: int | Sequence[int] | None = None) -> F32:
    """Values of `data`, the blocks of a tensor of type `ggml_type`.

    `data` is any contiguous array of bytes; the result is a new float32 array, flat or of `shape`. Raises
    ValueError for a type that cannot be computed with, and for a size that does not fit.
    """
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    n_blocks = whole_blocks(ggml_type, raw)
    info = TYPES[ggml_type]
    n_values = n_blocks * info.block_values
    shape = (n_values,) if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
    if prod(shape) != n_values:
        raise ValueError(f"{raw.nbytes} bytes of {info.name} are {n_values} values, not {shape}")

    kind = GGMLType(ggml_type)
    if kind in _FLOATS:
        return _FLOATS[kind](raw).reshape(shape)
    blocks = raw.view(BLOCKS[kind])
    out = np.empty((n_blocks, info.block_values), np.float32)
    step = _CHUNK_VALUES // info.block_values
    with np.errstate(invalid="ignore", over="ignore"):  # scales of damaged blocks may be inf or NaN
        for start in range(0, n_blocks, step):
            part = blocks[start : start + step]
            out[start : start + step] = _QUANTIZED[kind](part).reshape(len(part), -1)
    return out.reshape(shape)


def _f32(raw: U8) -> F32:
    return raw.view("<f4").astype(np.float32)


def _f16(raw: U8) -> F32:
    return raw.view("<f2").astype(np.float32)


def _bf16(raw: U8) -> F32:
    return (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def _column(field: npt.NDArray[Any]) -> F32:
    return field.astype(np.float32)[:, None]


def _bits(field: U8, n_fields: int, width: int) -> U8:
    """Split every byte of [n, k] into `n_fields` numbers of `width` bits, lowest first: [n, n_fields, k]."""
    shifts = np.arange(n_fields, dtype=np.uint8) * np.uint8(width)
    mask = np.uint8((1 << width) - 1)
    return (field[:, None, :] >> shifts[:, None]) & mask


def _halves(field: U8, chunk: int, n_fields: int, width: int) -> U8:
    """`_bits` of each run of `chunk` bytes on its own: [n, values], in value order."""
    n = len(field)
    return _bits(field.reshape(-1, chunk), n_fields, width).reshape(n, -1)


def _fifth_bit(qh: U8) -> U8:
    """Bit j of the 32-bit field is the high bit of value j: [n, 32], 0 or 16."""
    return np.unpackbits(qh, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(b: Blocks) -> F32:
    q = _bits(b["qs"], 2, 4).reshape(len(b), 32).astype(np.int8) - np.int8(8)
    return _column(b["d"]) * q.astype(np.float32)


def _q4_1(b: Blocks) -> F32:
    q = _bits(b["qs"], 2, 4).reshape(len(b), 32).astype(np.float32)
    return _column(b["d"]) * q + _column(b["m"])


def _q5_0(b: Blocks) -> F32:
    q = _bits(b["qs"], 2, 4).reshape(len(b), 32) | _fifth_bit(b["qh"])
    return _column(b["d"]) * (q.astype(np.int8) - np.int8(16)).astype(np.float32)


def _q5_1(b: Blocks) -> F32:
    q = _bits(b["qs"], 2, 4).reshape(len(b), 32) | _fifth_bit(b["qh"])
    return _column(b["d"]) * q.astype(np.float32) + _column(b["m"])


def _q8_0(b: Blocks) -> F32:
    return _column(b["d"]) * b["qs"].astype(np.float32)


def _q2_k(b: Blocks) -> F32:
    scale = _column(b["d"]) * (b["scales"] & 15).astype(np.float32)
    low = _column(b["dmin"]) * (b["scales"] >> 4).astype(np.float32)
    q = _halves(b["qs"], 32, 4, 2).reshape(-1, 16, 16).astype(np.float32)
    return scale[..., None] * q - low[..., None]


def _q3_k(b: Blocks) -> F32:
    n = len(b)
    low = _bits(b["scales"][:, :8], 2, 4).reshape(n, 16)
    high = _bits(b["scales"][:, 8:], 4, 2).reshape(n, 16)
    scale = (low | high << np.uint8(4)).astype(np.int8) - np.int8(32)
    # A set bit of the mask means that 4 is not subtracted.
    q = _halves(b["qs"], 32, 4, 2) | _bits(b["hmask"], 8, 1).reshape(n, 256) << np.uint8(2)
    values = (q.astype(np.int8) - np.int8(4)).reshape(n, 16, 16).astype(np.float32)
    return (_column(b["d"]) * scale.astype(np.float32))[..., None] * values


def _scales_and_mins(packed: U8) -> tuple[F32, F32]:
    """The eight 6-bit scales and eight 6-bit minima of Q4_K and Q5_K from their 12 bytes: [n, 8] each."""
    a, b, c = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = np.concatenate([a & 63, (c & 15) | (a >> 6) << np.uint8(4)], axis=1)
    low = np.concatenate([b & 63, (c >> 4) | (b >> 6) << np.uint8(4)], axis=1)
    return scale.astype(np.float32), low.astype(np.float32)


def _scaled_with_min(b: Blocks, q: U8) -> F32:
    scale, low = _scales_and_mins(b["scales"])
    scale = _column(b["d"]) * scale
    low = _column(b["dmin"]) * low
    return scale[..., None] * q.reshape(-1, 8, 32).astype(np.float32) - low[..., None]


def _q4_k(b: Blocks) -> F32:
    return _scaled_with_min(b, _halves(b["qs"], 32, 2, 4))


def _q5_k(b: Blocks) -> F32:
    high = _bits(b["qh"], 8, 1).reshape(len(b), 256) << np.uint8(4)
    return _scaled_with_min(b, _halves(b["qs"], 32, 2, 4) | high)


def _q6_k(b: Blocks) -> F32:
    q = _halves(b["ql"], 64, 2, 4) | _halves(b["qh"], 32, 4, 2) << np.uint8(4)
    values = (q.astype(np.int8) - np.int8(32)).reshape(-1, 16, 16).astype(np.float32)
    return (_column(b["d"]) * b["scales"].astype(np.float32))[..., None] * values


def _iq4_nl(b: Blocks) -> F32:
    return _column(b["d"]) * IQ4_LEVELS[_bits(b["qs"], 2, 4).reshape(len(b), 32)]


def _iq4_xs(b: Blocks) -> F32:
    n = len(b)
    low = _bits(b["scales_l"][:, :, None].reshape(-1, 1), 2, 4).reshape(n, 8)
    high = (b["scales_h"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16)) & np.uint16(3)
    scale = (low | high.astype(np.uint8) << np.uint8(4)).astype(np.int8) - np.int8(32)
    values = IQ4_LEVELS[_halves(b["qs"], 16, 2, 4)].reshape(n, 8, 32)
    return (_column(b["d"]) * scale.astype(np.float32))[..., None] * values


def _mxfp4(b: Blocks) -> F32:
    # The block's scale is 2^(e-127); halved, because the table holds doubled values. Below 2^-126 it is
    # subnormal, so the bits are built by hand.
    e = b["e"].astype(np.uint32)
    bits = np.where(e < 2, np.uint32(0x00200000) << np.minimum(e, 1), (np.maximum(e, 1) - 1) << np.uint32(23))
    scale = bits.astype(np.uint32).view(np.float32)[:, None]
    return scale * E2M1_DOUBLED[_bits(b["qs"], 2, 4).reshape(len(b), 32)]


_FLOATS: Final[dict[GGMLType, Callable[[U8], F32]]] = {
    GGMLType.F32: _f32,
    GGMLType.F16: _f16,
    GGMLType.BF16: _bf16,
}
_QUANTIZED: Final[dict[GGMLType, Callable[[Blocks], F32]]] = {
    GGMLType.Q4_0: _q4_0,
    GGMLType.Q4_1: _q4_1,
    GGMLType.Q5_0: _q5_0,
    GGMLType.Q5_1: _q5_1,
    GGMLType.Q8_0: _q8_0,
    GGMLType.Q2_K: _q2_k,
    GGMLType.Q3_K: _q3_k,
    GGMLType.Q4_K: _q4_k,
    GGMLType.Q5_K: _q5_k,
    GGMLType.Q6_K: _q6_k,
    GGMLType.IQ4_NL: _iq4_nl,
    GGMLType.IQ4_XS: _iq4_xs,
    GGMLType.MXFP4: _mxfp4,
}
