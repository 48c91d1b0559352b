"""Byte layout of the quantized blocks, as NumPy structured types. Source: ggml-common.h.

In every K-quant a block is 256 values, in sub-blocks of 16 or 32 with their own small integer scale.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pintpot.gguf.types import TYPES, GGMLType

BLOCKS: Final[dict[GGMLType, np.dtype[Any]]] = {
    GGMLType.Q4_0: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    GGMLType.Q4_1: np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)]),
    GGMLType.Q5_0: np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)]),
    GGMLType.Q5_1: np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)]),
    GGMLType.Q8_0: np.dtype([("d", "<f2"), ("qs", "i1", 32)]),
    GGMLType.Q2_K: np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")]),
    GGMLType.Q3_K: np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")]),
    GGMLType.Q4_K: np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)]),
    GGMLType.Q5_K: np.dtype(
        [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
    ),
    GGMLType.Q6_K: np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")]),
    GGMLType.IQ4_NL: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    GGMLType.IQ4_XS: np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)]),
    GGMLType.MXFP4: np.dtype([("e", "u1"), ("qs", "u1", 16)]),
}

# The 16 levels of IQ4_NL and IQ4_XS.
IQ4_LEVELS: Final[npt.NDArray[np.float32]] = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
# The 16 values of an E2M1 float, doubled (OCP Microscaling Formats, version 1.0).
E2M1_DOUBLED: Final[npt.NDArray[np.float32]] = np.array(
    [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32
)


def whole_blocks(ggml_type: int, data: npt.NDArray[np.uint8]) -> int:
    """Number of blocks in `data`. Raises ValueError for a type that cannot be computed with, and for bytes
    that are no whole blocks."""
    info = TYPES.get(ggml_type)
    if info is None or not info.runnable:
        raise ValueError(f"tensor type {info.name if info else ggml_type} cannot be computed with")
    blocks, rest = divmod(data.nbytes, info.block_bytes)
    if rest:
        raise ValueError(
            f"{data.nbytes} bytes are no multiple of the {info.name} block of {info.block_bytes}"
        )
    return blocks
