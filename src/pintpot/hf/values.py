"""Values between the types of a checkpoint and those of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.gguf import GGMLType

Array: TypeAlias = npt.NDArray[Any]

_CHUNK_BYTES: Final = 16 << 20
_STORED: Final = {GGMLType.F32: "F32", GGMLType.F16: "F16", GGMLType.BF16: "BF16"}


def to_float32(values: Array, dtype: str) -> npt.NDArray[np.float32]:
    """F32, F16 or BF16 (as uint16 bits) as float32; exact, NaN and infinities included."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def encode(values: Array, dtype: str, ggml_type: GGMLType) -> Iterator[tuple[Array, int]]:
    """`values`, stored as `dtype`, in the file's type, in pieces of about 16 MB; with each piece, how many
    finite values became infinite (F16 ends at 65504).

    Rounds to the nearest, ties to even. What has the type already is passed on bit by bit.
    """
    is_final = ggml_type is GGMLType.MXFP4 or _STORED[ggml_type] == dtype
    rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    step = max(_CHUNK_BYTES // max(4 * rows.shape[1], 1), 1)
    for start in range(0, len(rows), step):
        if is_final:
            yield rows[start : start + step], 0
            continue
        wide = to_float32(rows[start : start + step], dtype)
        if ggml_type is GGMLType.F32:
            yield wide, 0
        elif ggml_type is GGMLType.BF16:
            narrow = to_bfloat16(wide)
            yield narrow, _n_overflowed(wide, (narrow & 0x7FFF) == 0x7F80)
        else:
            with np.errstate(over="ignore"):
                half = wide.astype(np.float16)
            yield half, _n_overflowed(wide, np.isinf(half))


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    quiet = (bits >> 16) | 0x40
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, quiet, rounded).astype(np.uint16)


def _n_overflowed(wide: npt.NDArray[np.float32], infinite: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(infinite & np.isfinite(wide))) if infinite.any() else 0
