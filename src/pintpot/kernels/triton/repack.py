"""From GGUF blocks to the planes of `formats`, and back to floats, in plain torch.

Torch, so that the same few operations run where the blocks are: on the CPU at load, or on the GPU for experts
that stay in RAM in their GGUF blocks and are uploaded when they are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pintpot.gguf.types import TYPES, GGMLType
from pintpot.kernels.api import TensorView
from pintpot.kernels.triton.formats import FORMATS, Bits, Format, Layout, layout_of
from pintpot.quants.blocks import BLOCKS, E2M1_DOUBLED, IQ4_LEVELS

ELEMENTS: Final = {"u8": torch.uint8, "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
_CHUNK_VALUES: Final = 1 << 24  # of a matrix unpacked at a time: bounds the intermediate bytes


@dataclass(frozen=True, slots=True)
class Stack:
    """`n_mats` matrices of one layout, each a contiguous run of bytes (a slot can be overwritten on its own).

    `data` uint8 [n_mats, layout.nbytes]; `low` and `halves` are the same memory as the kernels read it.
    """

    layout: Layout
    data: Tensor
    low: Tensor
    halves: Tensor

    @property
    def n_mats(self) -> int:
        return self.data.shape[0]

    @property
    def nbytes(self) -> int:
        return self.data.nbytes


def empty_stack(layout: Layout, n_mats: int, device: torch.device | str) -> Stack:
    """Room for `n_mats` matrices; what planes do not cover is zero."""
    data = torch.zeros(n_mats, layout.nbytes, dtype=torch.uint8, device=device)
    return Stack(layout, data, data.view(ELEMENTS[layout.element]), data.view(torch.float16))


def stack_of(view: TensorView, device: torch.device | str) -> Stack:
    """The matrices of a tensor, repacked on `device`."""
    layout = layout_of(view.ggml_type, view.rows, view.cols)
    stack = empty_stack(layout, view.n_mats, device)
    for mat in range(view.n_mats):
        repack(view_bytes(view, mat, device), stack, mat)
    return stack


def view_bytes(view: TensorView, mat: int, device: torch.device | str) -> Tensor:
    """The blocks of matrix `mat`, uint8, copied to `device`."""
    start = mat * view.mat_stride
    blocks: npt.NDArray[np.uint8] = view.data[start : start + view.rows * view.row_bytes]
    # Pages of the mapped file are read-only, which torch does not know: a copy on the host may be written.
    return torch.from_numpy(blocks.copy()).to(device)


def repack(blocks: Tensor, stack: Stack, mat: int) -> None:
    """Writes matrix `mat` of `stack` from its GGUF blocks, uint8, on the stack's device."""
    layout, out = stack.layout, stack.data[mat]
    f = FORMATS[GGMLType(layout.ggml_type)]
    if f.scaling == "none":
        out[: blocks.numel()] = blocks
        return
    info = TYPES[layout.ggml_type]
    row_bytes = layout.cols // info.block_values * info.block_bytes
    step = max(1, _CHUNK_VALUES // layout.cols)
    rows = blocks.view(layout.rows, row_bytes)
    for start in range(0, layout.rows, step):
        part = rows[start : start + step]
        for (offset, size), plane in zip(
            layout.plane_bytes, _planes(part.reshape(-1, info.block_bytes), layout, f), strict=True
        ):
            per_row = size // layout.rows
            at = offset + start * per_row
            out[at : at + per_row * len(part)] = plane.reshape(-1)


def _planes(blocks: Tensor, layout: Layout, f: Format) -> tuple[Tensor, ...]:
    """low, high, s_low, s_high, d, m of blocks uint8 [n, block_bytes], as bytes; absent ones are empty."""
    kind = GGMLType(layout.ggml_type)
    codes = [_numbers(blocks, kind, bits) for bits in f.codes]
    scales = _six_bits(blocks, kind) if f.scaling == "min6" else [_numbers(blocks, kind, b) for b in f.scales]
    halves = [_field(blocks, kind, name) for name in f.halves]
    none = blocks.new_empty(0)
    planes = [_pack_codes(c, layout, bits.width) for c, bits in zip(codes, f.codes, strict=True)]
    widths = (f.s_low_bits, f.s_high_bits)
    packed = [_pack_adjacent(s, width) for s, width in zip(scales, widths, strict=False)]
    return tuple([*group, none, none][i] for group in (planes, packed, halves) for i in range(2))


def _field(blocks: Tensor, kind: GGMLType, name: str) -> Tensor:
    fields = BLOCKS[kind].fields
    assert fields is not None
    dtype, offset = fields[name][:2]
    return blocks[:, offset : offset + dtype.itemsize]


def _numbers(blocks: Tensor, kind: GGMLType, bits: Bits) -> Tensor:
    """Every number of a field, one a byte, in value order: [n, count]."""
    field = _field(blocks, kind, bits.field)[:, bits.start : bits.stop]
    runs = field.reshape(len(blocks), -1, 1, bits.chunk)
    shifts = torch.arange(bits.n_fields, dtype=torch.uint8, device=blocks.device) * bits.width
    return ((runs >> shifts[:, None]) & ((1 << bits.width) - 1)).reshape(len(blocks), -1)


def _six_bits(blocks: Tensor, kind: GGMLType) -> list[Tensor]:
    """Scales and minima of Q4_K and Q5_K: their low nibbles in a byte, their high 2 bits in a nibble. [n, 8]
    each."""
    a, b, c = _field(blocks, kind, "scales").split(4, dim=1)
    low = torch.cat(((a & 15) | (b & 15) << 4, c), dim=1)
    high = torch.cat(((a >> 4 & 3) | (b >> 4 & 3) << 2, a >> 6 | b >> 6 << 2), dim=1)
    return [low, high]


def _pack_codes(codes: Tensor, layout: Layout, width: int) -> Tensor:
    """A plane of `width` bits a code, in the order that `formats` describes."""
    n_tiles = layout.n_fields * width // 8
    # [groups, code in the byte, tile, lane]
    runs = codes.reshape(-1, 8 // width, n_tiles, layout.lanes)
    return _or_shifted(runs, 1, width)


def _pack_adjacent(numbers: Tensor, width: int) -> Tensor:
    return _or_shifted(numbers.reshape(-1, 8 // width), 1, width)


def _or_shifted(numbers: Tensor, dim: int, width: int) -> Tensor:
    """One byte of the numbers along `dim`, the first in the lowest bits."""
    parts = numbers.unbind(dim)
    out = parts[0].clone()
    for i, part in enumerate(parts[1:], 1):
        out |= part << (width * i)
    return out


def dequantize(stack: Stack, mats: Sequence[int] | None = None) -> Tensor:
    """Float32 values [n_mats, rows, cols]: what every kernel's weights are compared with."""
    indices = range(stack.n_mats) if mats is None else mats
    return torch.stack([_dequantize(stack.layout, stack.data[i]) for i in indices])


def _dequantize(layout: Layout, data: Tensor) -> Tensor:
    shape = (layout.rows, layout.cols)
    (_, low_size), *_ = layout.plane_bytes
    if layout.scaling == "none":
        return data[:low_size].view(ELEMENTS[layout.element]).float().view(shape)
    low, high, s_low, s_high, d, m = (data[at : at + size] for at, size in layout.plane_bytes)
    code = _unpack_codes(low, layout, layout.low_bits)
    if layout.high_bits:
        code |= _unpack_codes(high, layout, layout.high_bits) << layout.low_bits
    level = _levels(code.int(), layout).view(-1, layout.sub)
    per_block = layout.block // layout.sub
    halves = [h.view(torch.float16).float().repeat_interleave(per_block) for h in (d, m) if h.numel()]
    low_s = _unpack_adjacent(s_low, layout.s_low_bits).int()
    high_s = _unpack_adjacent(s_high, layout.s_high_bits).int()
    match layout.scaling:
        case "block":
            values = halves[0][:, None] * level
            return (values + halves[1][:, None] if len(halves) == 2 else values).view(shape)
        case "exponent":
            scale = torch.ldexp(torch.ones_like(low_s, dtype=torch.float32), low_s - 128)
            return (scale[:, None] * level).view(shape)
        case "signed":
            scale = halves[0] * ((low_s | high_s << layout.s_low_bits) - layout.scale_zero)
            return (scale[:, None] * level).view(shape)
        case "sbyte":
            return ((halves[0] * ((low_s ^ 128) - 128))[:, None] * level).view(shape)
        case "min4":
            scale, low = halves[0] * (low_s & 15), halves[1] * (low_s >> 4)
        case _:  # min6
            scale = halves[0] * (low_s & 15 | (high_s & 3) << 4)
            low = halves[1] * (low_s >> 4 | (high_s >> 2) << 4)
    return (scale[:, None] * level - low[:, None]).view(shape)


def _unpack_codes(plane: Tensor, layout: Layout, width: int) -> Tensor:
    tiles = plane.view(-1, 1, layout.n_fields * width // 8, layout.lanes)
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=plane.device)
    return ((tiles >> shifts[:, None, None]) & ((1 << width) - 1)).reshape(-1)


def _unpack_adjacent(plane: Tensor, width: int) -> Tensor:
    if not width:
        return plane
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=plane.device)
    return ((plane[:, None] >> shifts) & ((1 << width) - 1)).reshape(-1)


def _levels(code: Tensor, layout: Layout) -> Tensor:
    match layout.levels:
        case "iq4":
            return torch.from_numpy(IQ4_LEVELS).to(code.device)[code]
        case "e2m1":
            return torch.from_numpy(E2M1_DOUBLED).to(code.device)[code]
        case "int8":
            return ((code ^ 128) - 128).float()
        case _:
            return (code - layout.zero).float()
