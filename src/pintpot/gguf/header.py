"""The bytes of a GGUF header: counts, metadata keys, tensor declarations."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from pintpot.errors import ModelFileError
from pintpot.gguf.metadata import Entry, Metadata, show, skip_value
from pintpot.gguf.types import ValueType

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
DEFAULT_ALIGNMENT: Final = 32

_MAX_ALIGNMENT: Final = 1 << 30
_MAX_NAME_BYTES: Final = 65535  # the specification's limit for keys
_MAX_KEYS: Final = 1 << 16
_MAX_TENSORS: Final = 1 << 18
_MAX_DIMS: Final = 4
_MAX_VALUES: Final = 1 << 62  # of a tensor: what fits an int64 with room for a product

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_HEAD: Final = struct.Struct("<4sIQQ")
_TYPE_OFFSET: Final = struct.Struct("<IQ")


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor declaration as it stands in the file; `offset` counts from the start of the data section."""

    name: str
    ggml_type: int
    ne: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    version: int
    alignment: int
    metadata: Metadata
    tensors: tuple[RawTensor, ...]
    data_start: int  # file offset of the data section


def parse_header(path: Path, buffer: mmap.mmap | bytes) -> Header:
    """Parse the header of `buffer`, the whole file. Raises ModelFileError naming `path` and the place."""
    version, n_tensors, n_keys = _parse_counts(path, buffer)
    position = _HEAD.size
    entries: dict[str, Entry] = {}
    key = ""
    try:
        for _ in range(n_keys):
            key, position = _parse_name(path, buffer, position, "metadata key")
            if key in entries:
                raise ModelFileError(f"{path}: metadata key {show(key)} appears twice")
            (tag,) = _U32.unpack_from(buffer, position)
            start = position + 4
            position = skip_value(buffer, start, tag)
            entries[key] = Entry(ValueType(tag), start, position)
    except struct.error as error:
        last = f"at or after key {show(key)}" if key else "before the first key"
        raise ModelFileError(f"{path}: is cut off in its metadata, {last}: download it again") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: metadata key {show(key)}: {error}") from error

    metadata = Metadata(buffer, entries)
    alignment = _alignment(path, metadata)
    tensors, position = _parse_tensors(path, buffer, position, n_tensors)
    data_start = -(-position // alignment) * alignment
    return Header(version, alignment, metadata, tensors, data_start)


def _parse_counts(path: Path, buffer: mmap.mmap | bytes) -> tuple[int, int, int]:
    if buffer[:4] != MAGIC:
        raise ModelFileError(f"{path}: is no GGUF file (it starts with {show(bytes(buffer[:4]))})")
    if len(buffer) < _HEAD.size:
        raise ModelFileError(f"{path}: is cut off within its header: download it again")
    _, version, n_tensors, n_keys = _HEAD.unpack_from(buffer, 0)
    if version not in VERSIONS:
        if int.from_bytes(buffer[4:8], "big") in VERSIONS:
            raise ModelFileError(f"{path}: is a big-endian GGUF file: convert it to little-endian")
        raise ModelFileError(f"{path}: is GGUF version {version}, versions 2 and 3 can be read")
    if n_keys > min(_MAX_KEYS, len(buffer) // 13):  # the shortest entry: a length, a type, a one-byte value
        raise ModelFileError(f"{path}: claims {n_keys} metadata keys, more than it can hold")
    if n_tensors > min(_MAX_TENSORS, len(buffer) // 24):
        raise ModelFileError(f"{path}: claims {n_tensors} tensors, more than it can hold")
    return version, n_tensors, n_keys


def _parse_name(path: Path, buffer: mmap.mmap | bytes, position: int, what: str) -> tuple[str, int]:
    (size,) = _U64.unpack_from(buffer, position)
    start = position + 8
    if not 0 < size <= _MAX_NAME_BYTES:
        raise ModelFileError(f"{path}: a {what} at byte {position} is {size} bytes long, expected 1 to 65535")
    raw = buffer[start : start + size]
    if len(raw) < size:
        raise ModelFileError(f"{path}: is cut off within a {what}: download it again")
    try:
        return raw.decode(), start + size
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: the {what} {show(bytes(raw))} is not UTF-8") from error


def _alignment(path: Path, metadata: Metadata) -> int:
    if "general.alignment" not in metadata:
        return DEFAULT_ALIGNMENT
    value = metadata["general.alignment"]
    valid = type(value) is int and 8 <= value <= _MAX_ALIGNMENT and value & (value - 1) == 0
    if not isinstance(value, int) or not valid:
        raise ModelFileError(
            f"{path}: general.alignment is {show(value)}, expected a power of two from 8 to {_MAX_ALIGNMENT}"
        )
    return value


def _parse_tensors(
    path: Path, buffer: mmap.mmap | bytes, position: int, count: int
) -> tuple[tuple[RawTensor, ...], int]:
    tensors: list[RawTensor] = []
    names: set[str] = set()
    try:
        for _ in range(count):
            name, position = _parse_name(path, buffer, position, "tensor name")
            if name in names:
                raise ModelFileError(f"{path}: tensor {show(name)} appears twice")
            names.add(name)
            (n_dims,) = _U32.unpack_from(buffer, position)
            if n_dims > _MAX_DIMS:
                raise ModelFileError(f"{path}: tensor {show(name)} has {n_dims} dimensions, at most 4 exist")
            ne: tuple[int, ...] = struct.unpack_from(f"<{n_dims}Q", buffer, position + 4) or (1,)
            if min(ne) == 0 or prod(ne) > _MAX_VALUES:
                raise ModelFileError(f"{path}: tensor {show(name)} has the impossible shape {list(ne)}")
            position += 4 + 8 * n_dims
            ggml_type, offset = _TYPE_OFFSET.unpack_from(buffer, position)
            position += _TYPE_OFFSET.size
            tensors.append(RawTensor(name, ggml_type, ne, offset))
    except struct.error as error:
        last = show(tensors[-1].name) if tensors else "the metadata"
        raise ModelFileError(
            f"{path}: is cut off in the tensor list, after {last}: download it again"
        ) from error
    return tuple(tensors), position
