"""Weights into GGUF blocks on the native engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot import _native
from pintpot.gguf.types import GGMLType
from pintpot.kernels.api import F32, TensorView
from pintpot.kernels.cpu import native_matrix

U8: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Quantized:
    """What quantizing rows came to.

    `bad_row`: the first row, counted from `row0`, that holds NaN or infinity (or, for F16, what overflows
    it); None if there is none. Where there is one, `out` is unspecified.
    `squared_error`: sum of importance * (x - dequantized)^2 over all values; 0 unless measured.
    """

    bad_row: int | None
    squared_error: float


class Quantizer:
    """Quantizes rows on `n_threads` threads (the calling one included), for one caller at a time.

    The bytes depend on the values and the importance alone: not on the threads, and not on the CPU.
    """

    def __init__(self, n_threads: int) -> None:
        self.engine = _native.Engine(n_threads)

    def quantize(
        self,
        source: TensorView,
        mat: int,
        row0: int,
        kind: GGMLType,
        out: U8,
        importance: F32 | None = None,
        *,
        measure: bool = False,
    ) -> Quantized:
        """Rows row0.. of matrix `mat` as blocks of `kind`, into `out`, uint8 [n_rows, row_bytes].

        `source` has any type of GGMLType. `importance` [cols], not negative, says what a squared error of a
        column costs (an importance matrix's mean squared activations); without it all columns count alike.
        Raises ModelFileError for a source that cannot be read, ValueError for rows, columns, `out` or
        `importance` that do not fit.
        """
        bad_row, squared_error = _native.quantize(
            self.engine, native_matrix(source), mat, row0, kind, out, importance, measure
        )
        return Quantized(None if bad_row < 0 else bad_row, squared_error)
