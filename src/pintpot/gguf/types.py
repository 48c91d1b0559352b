"""The one table of GGUF tensor types, and the value types of GGUF metadata.

Source: the GGUF specification (ggml docs/gguf.md) and the block structures of ggml-common.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final


class ValueType(IntEnum):
    """Type tag of a metadata value."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


class GGMLType(IntEnum):
    """Ids of the tensor types pintpot computes with."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ4_NL = 20
    IQ4_XS = 23
    BF16 = 30
    MXFP4 = 39


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """A tensor type: rows are whole blocks of `block_values` weights in `block_bytes` bytes."""

    id: int
    name: str
    block_values: int
    block_bytes: int
    runnable: bool

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_values


_GEOMETRY: Final = (
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (31, "Q4_0_4_4", 32, 18),  # 31-33 and 36-38: withdrawn repacked layouts, still found in old downloads
    (32, "Q4_0_4_8", 32, 18),
    (33, "Q4_0_8_8", 32, 18),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (36, "IQ4_NL_4_4", 32, 18),
    (37, "IQ4_NL_4_8", 32, 18),
    (38, "IQ4_NL_8_8", 32, 18),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
)

_RUNNABLE: Final = frozenset(int(t) for t in GGMLType)

TYPES: Final = MappingProxyType({row[0]: TypeInfo(*row, runnable=row[0] in _RUNNABLE) for row in _GEOMETRY})
RUNNABLE_TYPES: Final = tuple(t for t in TYPES.values() if t.runnable)


def type_name(ggml_type: int) -> str:
    """The type's name, or `type <id>` for an id that is not in the table."""
    info = TYPES.get(ggml_type)
    return info.name if info else f"type {ggml_type}"


def type_by_name(name: str) -> TypeInfo:
    """The type called `name` (any case). Raises KeyError when there is none."""
    for info in TYPES.values():
        if info.name == name.upper():
            return info
    raise KeyError(name)


def row_bytes(ggml_type: int, cols: int) -> int:
    """Bytes of a row of `cols` values.

    Raises ValueError for a type that is not in the table, and for `cols` that are no whole blocks.
    """
    info = TYPES.get(ggml_type)
    if info is None:
        raise ValueError(f"tensor type {ggml_type} is unknown, its row size cannot be told")
    blocks, rest = divmod(cols, info.block_values)
    if rest:
        raise ValueError(f"{cols} columns are no multiple of the {info.name} block of {info.block_values}")
    return blocks * info.block_bytes
