"""Chosen values in blocks of any type, coarsely: one scale for all.

Enough to give embeddings and heads a direction in common. Nothing here knows a format: which bits make up
which value, and what their codes stand for, is found by dequantizing probe blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from pintpot.gguf import TYPES, GGMLType
from pintpot.quants.blocks import BLOCKS
from pintpot.quants.reference import dequantize

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_CODE_FIELDS = frozenset({"qs", "qh", "ql", "hmask"})
_MXFP4_ONE = 128  # the exponent that stands for codes as they are listed


def encode(ggml_type: int, values: F32, peak: float) -> U8:
    """Blocks of the nearest codes, uint8 [n, bytes], for values [n, cols] of magnitude up to `peak`.

    `cols` is a whole number of blocks. Values beyond the peak become the largest code.
    """
    kind = GGMLType(ggml_type)
    if kind is GGMLType.F32:
        return np.ascontiguousarray(values, np.float32).view(np.uint8)
    if kind is GGMLType.F16:
        return values.astype(np.float16).view(np.uint8)
    if kind is GGMLType.BF16:
        return np.ascontiguousarray(values, np.float32).view(np.uint16)[:, 1::2].copy().view(np.uint8)
    layout = _probe(kind)
    info = TYPES[ggml_type]
    scale = _scale(kind, peak / float(np.abs(layout.levels).max()))
    order = np.argsort(layout.levels, kind="stable")
    middles = (layout.levels[order][1:] + layout.levels[order][:-1]) / 2 * scale
    codes = order[np.searchsorted(middles, values.reshape(-1, info.block_values))]
    bits = (codes[:, layout.value_of_bit] >> layout.rank_of_bit) & 1
    blocks = np.tile(layout.template, (len(codes), 1))
    blocks[:, layout.code_bytes] = np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")
    _set_scale(kind, blocks, scale)
    return blocks.reshape(len(values), -1)


class _Layout:
    """Where a type keeps its codes. `levels[c]` is what code c stands for at scale 1."""

    def __init__(self, kind: GGMLType) -> None:
        self.template = _template(kind)
        dtype = BLOCKS[kind]
        fields: Mapping[str, Any] = dtype.fields or {}
        self.code_bytes = np.concatenate(
            [
                np.arange(offset, offset + part.itemsize)
                for name, (part, offset, *_) in fields.items()
                if name in _CODE_FIELDS
            ]
        )
        n_bits = 8 * len(self.code_bytes)
        probes = np.tile(self.template, (n_bits + 1, 1))
        probes[:, self.code_bytes] = 0xFF  # clearing any bit of the highest code changes the value
        bit = np.arange(n_bits)
        probes[bit, self.code_bytes[bit // 8]] &= 0xFF ^ (1 << (bit % 8)).astype(np.uint8)
        found = dequantize(kind, probes).reshape(n_bits + 1, -1)
        self.value_of_bit = np.argmax(found[:-1] != found[-1], axis=1)
        seen: dict[int, int] = {}
        ranks = []
        for value in self.value_of_bit.tolist():
            ranks.append(seen.get(value, 0))
            seen[value] = ranks[-1] + 1
        self.rank_of_bit = np.array(ranks)
        codes = np.arange(1 << (max(ranks) + 1))
        bits = (codes[:, None] >> self.rank_of_bit) & 1
        blocks = np.tile(self.template, (len(codes), 1))
        blocks[:, self.code_bytes] = np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")
        self.levels = dequantize(kind, blocks).reshape(len(codes), -1)[:, 0]


@cache
def _probe(kind: GGMLType) -> _Layout:
    return _Layout(kind)


def _template(kind: GGMLType) -> U8:
    """A block of code 0 everywhere, all sub-block scales equal, block scale 1, centred on zero."""
    block = np.zeros(1, BLOCKS[kind])
    names = block.dtype.names or ()
    for name in names:
        if name.startswith("scales"):
            block[name] = np.array(-1).astype(block[name].dtype)  # all bits set
    if kind is GGMLType.MXFP4:
        block["e"] = _MXFP4_ONE
        return block.view(np.uint8).reshape(-1)
    block["d"] = 1
    low = next((name for name in ("m", "dmin") if name in names), None)
    if low is not None:
        full = block.copy()
        for name in _CODE_FIELDS.intersection(names):
            full[name] = 0xFF
        span = dequantize(kind, full.view(np.uint8))[0]
        block[low] = 1
        shift = dequantize(kind, block.view(np.uint8))[0]
        block[low] = -span / 2 / shift
    return block.view(np.uint8).reshape(-1)


def _scale(kind: GGMLType, wanted: float) -> float:
    """The nearest block scale a type can hold (MXFP4: a power of two)."""
    return 2.0 ** round(log2(wanted)) if kind is GGMLType.MXFP4 else float(np.float16(wanted))


def _set_scale(kind: GGMLType, blocks: U8, scale: float) -> None:
    view = blocks.reshape(-1).view(BLOCKS[kind])
    if kind is GGMLType.MXFP4:
        view["e"] = _MXFP4_ONE + round(log2(scale))
        return
    for name in ("d", "m", "dmin"):
        if name in (view.dtype.names or ()):
            view[name] = view[name].astype(np.float32) * scale
