"""The safetensors file format, memory-mapped and checked before anything is read.

Source: the format section of the safetensors README: a little-endian u64 header length, a JSON object from
tensor names to dtype, shape and data offsets, then the data; offsets cover the data without holes or overlap.
The `safetensors` package cannot give NumPy its bfloat16 tensors, the usual ones.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from pintpot.errors import ModelFileError, UnsupportedError

Array: TypeAlias = npt.NDArray[Any]

MAX_HEADER_BYTES: Final = 100_000_000  # the format's own limit
_MAX_NAME: Final = 1 << 16
_MAX_DIMS: Final = 8

# Bytes of one value.
_SIZES: Final = MappingProxyType(
    {
        "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
        "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    }
)  # fmt: skip
# How NumPy sees those that are converted; it has no bfloat16, whose bits are kept.
_VIEWS: Final = MappingProxyType({"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"})


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`shape` is outermost dimension first; `start` and `nbytes` place the data in `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int
    file: SafetensorsFile

    def array(self) -> Array:
        """A read-only view of the mapped data; BF16 as uint16 bits.

        Raises UnsupportedError for a dtype that no weight is converted from.
        """
        view = _VIEWS.get(self.dtype)
        if view is None:
            raise UnsupportedError(
                f"{self.file.path}: tensor {self.name} is {self.dtype}, expected one of {', '.join(_VIEWS)}"
            )
        return self.file.view(self.start, self.nbytes).view(view).reshape(self.shape)


class SafetensorsFile:
    """One .safetensors file, its header checked. Read-only; views keep the mapping alive."""

    def __init__(self, path: Path) -> None:
        """Raises ModelFileError for a file that is truncated or not what the format says."""
        self.path = path
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
        header, data_start = self._header(size)
        self.tensors = MappingProxyType(self._read_tensors(header, data_start, size))

    def view(self, start: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Bytes of the mapping, not copied."""
        return np.frombuffer(self._map or b"", np.uint8, nbytes, start)

    def release(self) -> None:
        """Let the system take back the pages read so far, which count as this process's memory."""
        if self._map is not None:
            with suppress(OSError):
                self._map.madvise(mmap.MADV_DONTNEED)

    def _error(self, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {problem}: the file is damaged, download it again")

    def _header(self, size: int) -> tuple[dict[str, object], int]:
        if self._map is None or size < 8:
            raise self._error(f"has {size} bytes, too few for a safetensors file")
        (length,) = struct.unpack_from("<Q", self._map)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise self._error(f"says that its header has {length} bytes, the file has {size}")
        try:
            header = json.loads(self._map[8 : 8 + length].decode(), object_pairs_hook=_no_duplicates)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise self._error(f"has a header that is no JSON ({error})") from None
        if not isinstance(header, dict):
            raise self._error("has a header that is no JSON object")
        header.pop("__metadata__", None)
        return header, 8 + length

    def _read_tensors(self, header: dict[str, object], base: int, size: int) -> dict[str, StoredTensor]:
        tensors = [self._read_tensor(name, entry, base) for name, entry in header.items()]
        end = base
        for tensor in sorted(tensors, key=lambda t: (t.start, t.nbytes)):
            if tensor.start != end:
                word = "overlaps another" if tensor.start < end else "leaves a hole before it"
                raise self._error(f"tensor {tensor.name} {word}")
            end += tensor.nbytes
        if end != size:
            raise self._error(f"has {size - base} bytes of data, its header describes {end - base}")
        return {tensor.name: tensor for tensor in tensors}

    def _read_tensor(self, name: str, entry: object, base: int) -> StoredTensor:
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise self._error(f"has a tensor name that is none: {name[:80]!r}")
        if not isinstance(entry, dict):
            raise self._error(f"tensor {name} is described by no JSON object")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        itemsize = _SIZES.get(dtype) if isinstance(dtype, str) else None
        if itemsize is None or not isinstance(dtype, str):
            raise UnsupportedError(f"{self.path}: tensor {name} has the unknown dtype {dtype!r}")
        if not _are_sizes(shape) or len(shape) > _MAX_DIMS:
            raise self._error(f"tensor {name} has the impossible shape {shape!r}")
        if not _are_sizes(offsets) or len(offsets) != 2:
            raise self._error(f"tensor {name} has the impossible data_offsets {offsets!r}")
        nbytes = prod(shape) * itemsize
        if offsets[1] - offsets[0] != nbytes:
            raise self._error(
                f"tensor {name} has {offsets[1] - offsets[0]} bytes of data, its shape {shape} of {dtype}"
                f" needs {nbytes}"
            )
        return StoredTensor(name, dtype, tuple(shape), base + offsets[0], nbytes, self)


def _no_duplicates(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in value)
