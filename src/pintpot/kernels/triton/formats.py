"""How weights lie in GPU memory: one table row a type, and the byte layout of a matrix that follows from it.

A GGUF block mixes scales and codes of 32 or 256 values; on a GPU neighbouring threads should read
neighbouring bytes. So a matrix becomes planes (struct of arrays), each 16-byte aligned and row-major:

    low     the low bits of the codes (all bits where there is one plane), or the floats of a float type
    high    the remaining bits of the codes
    s_low   the low bits of the sub-block scales (and minima), or MXFP4's exponents
    s_high  their remaining bits
    d       a half per block: its scale
    m       a half per block: the scale of the minima, or the minimum itself

No bit is lost or added: a matrix has the bytes of its GGUF blocks, plus what aligns the planes (at most 15
bytes each, `Layout.padding_bytes`).

Codes lie in groups of `group` columns. The plane with the fewest bits a code has `n_fields` codes a byte, so
a group is `n_fields` runs of `lanes` columns: a plane of b bits keeps the code of column f * lanes + i in
byte (f % T) * lanes + i of the group, at bit b * (f // T), where T = n_fields * b / 8. One load of `lanes`
consecutive bytes gives consecutive columns, and every byte is loaded once. Scales are packed in column
order, low bits first.

Block formats: ggml-common.h, MXFP4: OCP Microscaling Formats 1.0; the planes are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pintpot.gguf.types import TYPES, GGMLType

ALIGN_BYTES: Final = 16
MAX_GROUP: Final = 256


@dataclass(frozen=True, slots=True)
class Bits:
    """Small numbers in bytes [start, stop) of a block's field: each run of `chunk` bytes holds `n_fields`
    numbers a byte of `width` bits; all the lowest ones come first, in value order."""

    field: str
    chunk: int
    n_fields: int
    width: int
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A weight type. `scaling` says how a weight comes from its level (the code through `levels`):

    block     d * level (+ m)
    exponent  2^(s - 128) * level
    signed    d * (s - scale_zero) * level
    sbyte     d * int8(s) * level
    min4      d * (s & 15) * level - m * (s >> 4)
    min6      likewise with 6 bits each: the low byte is nibbles of scale and minimum, so are the high bits
    none      a float
    """

    low_bits: int  # of a code in plane `low`; 16 or 32: a float
    scaling: str
    high_bits: int = 0
    s_low_bits: int = 0
    s_high_bits: int = 0
    block: int = 32  # values that share d
    sub: int = 32  # values that share a scale
    n_halves: int = 0
    zero: int = 0  # subtracted from the code
    scale_zero: int = 0
    levels: str = "linear"  # or iq4, e2m1
    element: str = "u8"  # of plane `low`: u8, or f16, bf16, f32
    codes: tuple[Bits, ...] = ()  # where GGUF keeps the low and the high bits
    scales: tuple[Bits, ...] = ()  # likewise; min6 is packed in a way of its own
    halves: tuple[str, ...] = ()


def _nibbles(chunk: int) -> Bits:
    return Bits("qs", chunk, 2, 4)


_ONE = ("d",)
_HIGH_BIT = Bits("qh", 1, 8, 1)
_D_M = ("d", "m")
_D_MIN = ("d", "dmin")

FORMATS: Final[dict[GGMLType, Format]] = {
    GGMLType.Q4_0: Format(4, "block", zero=8, n_halves=1, codes=(_nibbles(16),), halves=_ONE),
    GGMLType.Q4_1: Format(4, "block", n_halves=2, codes=(_nibbles(16),), halves=_D_M),
    GGMLType.Q5_0: Format(
        4, "block", high_bits=1, zero=16, n_halves=1, codes=(_nibbles(16), _HIGH_BIT), halves=_ONE
    ),
    GGMLType.Q5_1: Format(4, "block", high_bits=1, n_halves=2, codes=(_nibbles(16), _HIGH_BIT), halves=_D_M),
    GGMLType.Q8_0: Format(
        8, "block", levels="int8", n_halves=1, codes=(Bits("qs", 32, 1, 8),), halves=_ONE
    ),
    GGMLType.IQ4_NL: Format(4, "block", levels="iq4", n_halves=1, codes=(_nibbles(16),), halves=_ONE),
    GGMLType.MXFP4: Format(
        4, "exponent", levels="e2m1", s_low_bits=8, codes=(_nibbles(16),), scales=(Bits("e", 1, 1, 8),)
    ),
    GGMLType.Q2_K: Format(
        2, "min4", s_low_bits=8, block=256, sub=16, n_halves=2,
        codes=(Bits("qs", 32, 4, 2),), scales=(Bits("scales", 16, 1, 8),), halves=_D_MIN,
    ),
    GGMLType.Q3_K: Format(
        2, "signed", high_bits=1, s_low_bits=4, s_high_bits=2, block=256, sub=16, n_halves=1,
        zero=4, scale_zero=32,
        codes=(Bits("qs", 32, 4, 2), Bits("hmask", 32, 8, 1)),
        scales=(Bits("scales", 8, 2, 4, 0, 8), Bits("scales", 4, 4, 2, 8, 12)), halves=_ONE,
    ),
    GGMLType.Q4_K: Format(
        4, "min6", s_low_bits=8, s_high_bits=4, block=256, n_halves=2, codes=(_nibbles(32),), halves=_D_MIN
    ),
    GGMLType.Q5_K: Format(
        4, "min6", high_bits=1, s_low_bits=8, s_high_bits=4, block=256, n_halves=2,
        codes=(_nibbles(32), Bits("qh", 32, 8, 1)), halves=_D_MIN,
    ),
    GGMLType.Q6_K: Format(
        4, "sbyte", high_bits=2, s_low_bits=8, block=256, sub=16, n_halves=1, zero=32,
        codes=(Bits("ql", 64, 2, 4), Bits("qh", 32, 4, 2)),
        scales=(Bits("scales", 16, 1, 8),), halves=_ONE,
    ),
    GGMLType.IQ4_XS: Format(
        4, "signed", levels="iq4", s_low_bits=4, s_high_bits=2, block=256, n_halves=1, scale_zero=32,
        codes=(_nibbles(16),),
        scales=(Bits("scales_l", 1, 2, 4), Bits("scales_h", 1, 4, 2)), halves=_ONE,
    ),
    GGMLType.F16: Format(16, "none", element="f16"),
    GGMLType.BF16: Format(16, "none", element="bf16"),
    GGMLType.F32: Format(32, "none", element="f32"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """One matrix [rows, cols] in planes. Hashable and made of plain values: kernels take it as a constant.

    Offsets are bytes for `low`, `high`, `s_low`, `s_high` and halves for `d`, `m`, from the matrix's start.
    """

    ggml_type: int
    rows: int
    cols: int
    group: int  # columns a group
    n_fields: int  # codes a byte of the finest plane
    lanes: int  # consecutive columns of a field in a group
    sub_lanes: int  # of those, how many share a scale
    n_tiles: int  # T of plane `low`
    low_bits: int
    high_bits: int
    s_low_bits: int
    s_high_bits: int
    block: int
    sub: int
    n_halves: int
    zero: int
    scale_zero: int
    levels: str
    scaling: str
    element: str
    o_high: int
    o_s_low: int
    o_s_high: int
    o_d: int
    o_m: int
    nbytes: int
    padding_bytes: int

    @property
    def plane_bytes(self) -> tuple[tuple[int, int], ...]:
        """(offset, size) in bytes of low, high, s_low, s_high, d, m; absent planes have size 0."""
        sizes = _plane_sizes(FORMATS[GGMLType(self.ggml_type)], self.rows, self.cols)
        starts = (0, self.o_high, self.o_s_low, self.o_s_high, 2 * self.o_d, 2 * self.o_m)
        return tuple(zip(starts, sizes, strict=True))


def _plane_sizes(f: Format, rows: int, cols: int) -> tuple[int, ...]:
    n = rows * cols
    bits = (f.low_bits * n, f.high_bits * n, f.s_low_bits * (n // f.sub), f.s_high_bits * (n // f.sub))
    halves = tuple(2 * (n // f.block) if i < f.n_halves else 0 for i in range(2))
    return (*(b // 8 for b in bits), *halves)


def layout_of(ggml_type: int, rows: int, cols: int) -> Layout:
    """The layout of a matrix. Raises ValueError for a type without one, and for rows of no whole blocks."""
    f = FORMATS.get(GGMLType(ggml_type)) if ggml_type in FORMATS else None
    if f is None:
        raise ValueError(f"tensor type {ggml_type} has no GPU layout")
    info = TYPES[ggml_type]
    if cols % info.block_values:
        raise ValueError(f"{cols} columns are no multiple of the {info.name} block of {info.block_values}")
    is_float = f.scaling == "none"
    # The largest power of two that divides a row: groups never straddle rows.
    group = MAX_GROUP if is_float else min(MAX_GROUP, cols & -cols)
    n_fields = 1 if is_float else 8 // (f.high_bits or f.low_bits)
    lanes = group // n_fields
    starts, at = [], 0
    sizes = _plane_sizes(f, rows, cols)
    for size in sizes:
        starts.append(at)
        at += -(-size // ALIGN_BYTES) * ALIGN_BYTES
    return Layout(
        ggml_type=int(ggml_type),
        rows=rows,
        cols=cols,
        group=group,
        n_fields=n_fields,
        lanes=lanes,
        sub_lanes=min(f.sub, lanes),
        n_tiles=1 if is_float else n_fields * f.low_bits // 8,
        low_bits=f.low_bits,
        high_bits=f.high_bits,
        s_low_bits=f.s_low_bits,
        s_high_bits=f.s_high_bits,
        block=f.block,
        sub=f.sub,
        n_halves=f.n_halves,
        zero=f.zero,
        scale_zero=f.scale_zero,
        levels=f.levels,
        scaling=f.scaling,
        element=f.element,
        o_high=starts[1],
        o_s_low=starts[2],
        o_s_high=starts[3],
        o_d=starts[4] // 2,
        o_m=starts[5] // 2,
        nbytes=at,
        padding_bytes=at - sum(sizes),
    )
