"""llama.cpp's own quantizer, through the C API that the `xllamacpp` wheel's library exports."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
import xllamacpp

from pintpot.gguf.types import GGMLType, row_bytes


def quantize(
    kind: GGMLType, x: npt.NDArray[np.float32], importance: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.uint8]:
    """Rows x [n, cols] as blocks, uint8 [n, row_bytes]; `importance` [cols] as an importance matrix's row."""
    lib = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_init(int(kind))
    x = np.ascontiguousarray(x)
    out = np.empty((len(x), row_bytes(kind, x.shape[1])), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    written = lib.ggml_quantize_chunk(
        int(kind), x.ctypes.data, out.ctypes.data, 0, len(x), x.shape[1], weights
    )
    if written != out.nbytes:
        raise RuntimeError(f"ggml_quantize_chunk wrote {written} bytes of {kind.name}, not {out.nbytes}")
    return out
