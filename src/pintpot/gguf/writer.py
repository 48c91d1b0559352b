"""Writing GGUF v3 files: the whole header first, then tensor data streamed in the declared order."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

from pintpot.errors import PintpotError
from pintpot.gguf.header import DEFAULT_ALIGNMENT, MAGIC
from pintpot.gguf.metadata import RawValue, is_array, is_scalar
from pintpot.gguf.types import ValueType, row_bytes, type_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FORMATS: Final = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<?",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}
_BY_DTYPE: Final = {
    "uint8": ValueType.UINT8,
    "int8": ValueType.INT8,
    "uint16": ValueType.UINT16,
    "int16": ValueType.INT16,
    "uint32": ValueType.UINT32,
    "int32": ValueType.INT32,
    "float32": ValueType.FLOAT32,
    "bool": ValueType.BOOL,
    "uint64": ValueType.UINT64,
    "int64": ValueType.INT64,
    "float64": ValueType.FLOAT64,
}
_WRITE_BUFFER: Final = 1 << 20
_TEMPORARY: Final = ".pintpot-*.part"
_YOUNG_S: Final = 5.0  # a writer may not have locked its file yet


@dataclass(frozen=True, slots=True)
class Typed:
    """A metadata value with its type spelled out; with `ARRAY`, `item` is the elements' type."""

    type: ValueType
    value: object
    item: ValueType | None = None


# What a metadata value may be: see `encode_value`.
MetadataIn: TypeAlias = (
    "bool | int | float | str | bytes | Sequence[object] | npt.NDArray[np.generic] | Typed | RawValue"
)


@dataclass(frozen=True, slots=True)
class TensorDecl:
    """A tensor to be written. `ne` is in GGUF order, innermost (a row's length) first."""

    name: str
    ggml_type: int
    ne: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Raises ValueError for an unknown type or rows that are no whole blocks."""
        return row_bytes(self.ggml_type, self.ne[0]) * prod(self.ne[1:])


def encode_value(value: MetadataIn) -> RawValue:
    """Encode a metadata value as llama.cpp expects the keys it knows.

    bool, str and bytes (already UTF-8) are what they are; int is UINT32, below zero INT32, and 64 bits where
    it does not fit; float is FLOAT32; a list of ints is an array of INT32, of floats FLOAT32; a NumPy array
    keeps its dtype. `Typed` overrides. Raises ValueError for anything else, and for an empty list, whose
    type cannot be told.
    """
    if isinstance(value, RawValue):
        return value
    if isinstance(value, Typed):
        if value.type is ValueType.ARRAY:
            return _encode_array(value.value, value.item)
        return RawValue(value.type, _encode_scalar(value.type, value.value))
    if isinstance(value, str | bytes):
        return RawValue(ValueType.STRING, _encode_string(value))
    if isinstance(value, bool | int | float) or is_scalar(value):
        kind = _scalar_type(value)
        return RawValue(kind, _encode_scalar(kind, value))
    return _encode_array(value, None)


def _scalar_type(value: object) -> ValueType:
    if is_scalar(value):
        kind = _BY_DTYPE.get(value.dtype.name)
        if kind is None:
            raise ValueError(f"metadata cannot hold a NumPy {value.dtype.name}")
        return kind
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, float):
        return ValueType.FLOAT32
    if isinstance(value, str | bytes):
        return ValueType.STRING
    if not isinstance(value, int):
        raise ValueError(f"metadata cannot hold {type(value).__name__}")  # noqa: TRY004 - documented
    if value >= 0:
        return ValueType.UINT32 if value < 1 << 32 else ValueType.UINT64
    return ValueType.INT32 if value >= -(1 << 31) else ValueType.INT64


def _encode_string(value: object) -> bytes:
    if not isinstance(value, str | bytes):
        raise ValueError(f"metadata expects a string, not {type(value).__name__}")  # noqa: TRY004
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def _encode_scalar(kind: ValueType, value: object) -> bytes:
    if kind is ValueType.STRING:
        return _encode_string(value)
    try:
        return struct.pack(_FORMATS[kind], value)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"metadata value {value!r} does not fit {kind.name}: {error}") from error


def _encode_array(value: object, item: ValueType | None) -> RawValue:
    if is_array(value):
        kind = _BY_DTYPE.get(value.dtype.name)
        if kind is None or value.ndim != 1 or item not in (None, kind):
            raise ValueError(f"metadata cannot hold a {value.ndim}-dimensional array of {value.dtype.name}")
        body = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        return RawValue(ValueType.ARRAY, struct.pack("<IQ", kind, len(value)) + body)
    if not isinstance(value, list | tuple):
        raise ValueError(f"metadata cannot hold {type(value).__name__}")  # noqa: TRY004
    if item is None:
        item = _item_type(value)
    if item is ValueType.ARRAY:
        body = b"".join(_encode_array(v, None).encoded for v in value)
    else:
        body = b"".join(_encode_scalar(item, v) for v in value)
    return RawValue(ValueType.ARRAY, struct.pack("<IQ", item, len(value)) + body)


def _item_type(values: Sequence[object]) -> ValueType:
    if not values:
        raise ValueError("metadata cannot hold an empty list of unknown type: use Typed(ARRAY, [], item)")
    if all(isinstance(v, list | tuple) or is_array(v) for v in values):
        return ValueType.ARRAY
    if all(type(v) is int for v in values):
        return ValueType.INT32
    if all(type(v) in (int, float) for v in values):
        return ValueType.FLOAT32
    kinds = {_scalar_type(v) for v in values}
    if len(kinds) > 1:
        names = ", ".join(sorted(k.name for k in kinds))
        raise ValueError(f"metadata cannot hold a list of mixed types ({names})")
    return kinds.pop()


class GGUFWriter:
    """Writes one GGUF v3 file.

        with GGUFWriter(path, metadata, declarations) as writer:
            for decl in declarations:
                writer.write(decl.name, data)

    The data of a tensor may come in several writes. The file appears under its name when the block ends, all
    tensors complete and on disk; when it ends in an exception nothing is left behind. Not thread-safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, MetadataIn],
        tensors: Sequence[TensorDecl],
        *,
        alignment: int = DEFAULT_ALIGNMENT,
    ) -> None:
        """Raises ValueError when the declarations cannot be written: a value of no metadata type, a name
        twice, an unknown tensor type, rows that are no whole blocks."""
        if alignment < 8 or alignment & (alignment - 1):
            raise ValueError(f"alignment {alignment} is no power of two from 8")
        self._path = Path(path)
        self._tensors = tuple(tensors)
        self._alignment = alignment
        self._header, offsets = _encode_header(metadata, self._tensors, alignment)
        data_start = -(-len(self._header) // alignment) * alignment
        self._starts = [data_start + offset for offset in offsets]
        self._index = 0
        self._written = 0  # bytes of the current tensor
        self._position = 0
        self._file: BinaryIO | None = None
        self._temporary = self._path  # once the file is open: where it is until it is whole

    @property
    def path(self) -> Path:
        return self._path

    @property
    def header(self) -> bytes:
        """The file up to its tensor data, without the padding before that."""
        return self._header

    @property
    def nbytes(self) -> int:
        """Size of the finished file."""
        if not self._tensors:
            return len(self._header)
        return self._starts[-1] + _padded(self._tensors[-1].nbytes, self._alignment)

    def __enter__(self) -> GGUFWriter:
        self._temporary = self._path.with_name(_TEMPORARY.replace("*", os.urandom(6).hex()))
        try:
            self._file = self._temporary.open("xb", buffering=_WRITE_BUFFER)
        except OSError as error:
            raise PintpotError(f"{self._path}: cannot be written: {error.strerror}") from error
        try:
            _lock(self._file)
            self._put(self._header)
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, name: str, data: npt.NDArray[np.generic] | bytes | memoryview) -> None:
        """Append `data`, raw bytes in the tensor's type, to tensor `name`.

        Raises ValueError when `name` is not the tensor whose turn it is, or gets more than it declared;
        PintpotError when the disk refuses.
        """
        if self._index == len(self._tensors):
            raise ValueError(f"tensor {name}: every declared tensor is written already")
        tensor = self._tensors[self._index]
        if name != tensor.name:
            raise ValueError(f"tensor {name}: it is the turn of {tensor.name}, tensors go in declared order")
        if is_array(data):
            import numpy as np

            view = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
        else:
            view = memoryview(data).cast("B")
        if self._written + view.nbytes > tensor.nbytes:
            raise ValueError(
                f"tensor {name}: {self._written + view.nbytes} bytes, {tensor.nbytes} are declared"
            )
        if self._written == 0:
            self._put(bytes(self._starts[self._index] - self._position))
        self._put(view)
        self._written += view.nbytes
        if self._written == tensor.nbytes:
            self._index += 1
            self._written = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if self._index < len(self._tensors):
            tensor = self._tensors[self._index]
            raise ValueError(f"tensor {tensor.name}: {self._written} of {tensor.nbytes} bytes were written")
        self._put(bytes(self.nbytes - self._position))
        file = self._opened()
        try:
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._temporary.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise PintpotError(f"{self._path}: cannot be written: {error.strerror}") from error

    def _put(self, data: bytes | memoryview) -> None:
        try:
            self._opened().write(data)
        except OSError as error:
            raise PintpotError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._position += len(data)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError(f"{self._path}: the writer is used outside its `with` block")
        return self._file

    def _discard(self) -> None:
        """Close, and remove the temporary file if it is still there."""
        if self._file is None:
            return
        with suppress(OSError):  # a full disk fails again on close; the first error is the one to report
            self._file.close()
        self._temporary.unlink(missing_ok=True)
        self._file = None


def remove_unfinished(folder: Path) -> list[tuple[Path, int]]:
    """Remove what writers that were killed have left in `folder`: paths and sizes in bytes.

    A running writer, of any process, holds a lock on its file, which is left alone.
    """
    removed = []
    for path in folder.glob(_TEMPORARY):
        with suppress(OSError), path.open("rb") as file:  # another process may remove it at the same time
            status = os.fstat(file.fileno())
            if time.time() - status.st_mtime < _YOUNG_S:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed.append((path, status.st_size))
    return removed


def _lock(file: BinaryIO) -> None:
    """Tell other processes that the file has a writer, where the file system has locks."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _encode_header(
    metadata: Mapping[str, MetadataIn], tensors: Sequence[TensorDecl], alignment: int
) -> tuple[bytes, list[int]]:
    """Header bytes, and each tensor's offset in the data section."""
    entries = {key: encode_value(value) for key, value in metadata.items()}
    if alignment != DEFAULT_ALIGNMENT or "general.alignment" in entries:
        entries["general.alignment"] = encode_value(alignment)
    out = [struct.pack("<4sIQQ", MAGIC, 3, len(tensors), len(entries))]
    for key, value in entries.items():
        out += [_encode_string(key), struct.pack("<I", value.type), value.encoded]

    names: set[str] = set()
    offsets: list[int] = []
    offset = 0
    for tensor in tensors:
        if tensor.name in names:
            raise ValueError(f"tensor {tensor.name} is declared twice")
        names.add(tensor.name)
        if not 1 <= len(tensor.ne) <= 4 or min(tensor.ne) < 1:
            raise ValueError(f"tensor {tensor.name}: {tensor.ne} is no shape of one to four dimensions")
        try:
            nbytes = tensor.nbytes
        except ValueError as error:
            raise ValueError(f"tensor {tensor.name} ({type_name(tensor.ggml_type)}): {error}") from error
        out += [
            _encode_string(tensor.name),
            struct.pack(f"<I{len(tensor.ne)}QIQ", len(tensor.ne), *tensor.ne, tensor.ggml_type, offset),
        ]
        offsets.append(offset)
        offset += _padded(nbytes, alignment)
    return b"".join(out), offsets


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; some file systems have no such notion and refuse."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
