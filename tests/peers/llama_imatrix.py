"""What llama-imatrix sums up, taken from llama.cpp itself while it computes.

The tool is no part of the `xllamacpp` wheel, but the hook it uses is: a callback that sees every tensor of
the graph once it is computed. Here as there, a product counts its second operand; dense products of
`blk.*` weights with at least 16 tokens, and all products of expert stacks, by the expert ids.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xllamacpp
from llama_oracle import LlamaCpp

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_MIN_TOKENS = 16


class _Tensor(ctypes.Structure):
    """The head of `struct ggml_tensor` (ggml.h)."""


_Tensor._fields_ = (
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
)
_Pointer = ctypes.POINTER(_Tensor)
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_bool, _Pointer, ctypes.c_bool, ctypes.c_void_p)


def _array(tensor: _Tensor, dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    """The tensor's values, outermost dimension first, wherever its strides put them."""
    itemsize = np.dtype(dtype).itemsize
    nbytes = itemsize + sum((n - 1) * stride for n, stride in zip(tensor.ne, tensor.nb, strict=True))
    raw = np.frombuffer((ctypes.c_uint8 * nbytes).from_address(tensor.data), np.uint8)
    return np.ndarray(tensor.ne[::-1], dtype, raw, strides=tensor.nb[::-1]).copy()


class ImatrixOracle:
    """Sums of squares float64 [n_mats, cols] and counts int64 [n_mats] by tensor, of the tokens given."""

    def __init__(self, path: Path, n_ctx: int) -> None:
        self.sums: dict[str, tuple[F64, I64]] = {}
        lib = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
        lib.ggml_op_name.restype = ctypes.c_char_p
        lib.ggml_op_name.argtypes = [ctypes.c_int]
        self._op_name = lib.ggml_op_name
        self._callback = _CALLBACK(self._see)
        address = ctypes.cast(self._callback, ctypes.c_void_p).value
        self._llama = LlamaCpp(path, n_ctx=n_ctx, eval_callback=address)

    def read(self, tokens: Sequence[int]) -> None:
        """A fresh sequence, the logits of every token wanted."""
        with self._llama:
            self._llama.step(tokens)

    def _see(self, pointer: ctypes._Pointer[_Tensor], ask: bool, _data: int | None) -> bool:
        tensor = pointer.contents
        op = self._op_name(tensor.op).decode()
        if op not in ("MUL_MAT", "MUL_MAT_ID"):
            return not ask
        weight, x = tensor.src[0].contents, tensor.src[1].contents
        name = weight.name.decode()
        wanted = name.startswith("blk.") and (op == "MUL_MAT_ID" or x.ne[1] >= _MIN_TOKENS)
        if wanted and not ask:
            values = _array(x, np.float32).astype(np.float64)
            if op == "MUL_MAT":
                self._add(name, 1, values.reshape(1, -1, x.ne[0]), np.zeros((1, 1), np.int64))
            else:
                self._add(name, weight.ne[2], values[0], _array(tensor.src[2].contents, np.int32)[0, 0])
        return wanted or not ask

    def _add(self, name: str, n_mats: int, x: F64, ids: npt.NDArray[np.generic]) -> None:
        """x [n_tokens, n_slots or 1, cols], or all tokens in one; ids [n_tokens, n_slots]."""
        squares, counts = self.sums.setdefault(
            name, (np.zeros((n_mats, x.shape[-1])), np.zeros(n_mats, np.int64))
        )
        for token, row in enumerate(ids):
            for slot, mat in enumerate(row.tolist()):
                inputs = x[token] if n_mats == 1 else x[token, slot % x.shape[1]][None]
                squares[mat] += np.square(inputs).sum(0)
                counts[mat] += len(inputs)
