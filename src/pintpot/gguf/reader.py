"""Opening GGUF files: v2 and v3, little-endian, single or split, memory-mapped.

Opening checks everything that later code relies on: every count against the bytes that are left, every
tensor inside the file, aligned, of whole blocks, overlapping no other. Nothing is allocated by a number the
file claims. Format: ggml docs/gguf.md.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pintpot.errors import ModelFileError
from pintpot.gguf.header import Header, RawTensor, parse_header
from pintpot.gguf.metadata import Metadata, show
from pintpot.gguf.types import TYPES, TypeInfo, type_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SPLIT_NAME: Final = re.compile(r"^(?P<stem>.*)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's place and shape. `ne` is in GGUF order, innermost (a row's length) first."""

    name: str
    ggml_type: int
    ne: tuple[int, ...]
    offset: int  # from the start of its part's file
    nbytes: int  # of a type that is not in the table: up to the next tensor or the end of the file
    part: int  # index into GGUFFile.parts

    @property
    def type(self) -> TypeInfo | None:
        """The entry of the type table; None for a type this version has never heard of."""
        return TYPES.get(self.ggml_type)

    @property
    def type_name(self) -> str:
        return type_name(self.ggml_type)

    @property
    def n_values(self) -> int:
        return prod(self.ne)

    @property
    def shape(self) -> tuple[int, ...]:
        """Outermost dimension first, as NumPy has it."""
        return self.ne[::-1]


@dataclass(frozen=True, slots=True)
class Part:
    """One mapped file of a model, `nbytes` long; 0 where only the header is known."""

    path: Path
    nbytes: int
    mapping: mmap.mmap

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """The whole file, uint8, read-only, paged in on use."""
        import numpy as np

        return np.frombuffer(self.mapping, dtype=np.uint8, count=self.nbytes)


class GGUFFile:
    """An open GGUF model, of one file or of all the parts of a split.

    Thread-safe once open: everything is read-only. The files stay mapped for as long as this object or an
    array from `data` lives.
    """

    def __init__(self, parts: tuple[Part, ...], header: Header, tensors: dict[str, TensorInfo]) -> None:
        self.parts = parts
        self.header = header  # of the first part
        self.version = header.version
        self.alignment = header.alignment
        self.metadata: Metadata = header.metadata
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> GGUFFile:
        """Open `path`; of a split model any part will do, and all parts are opened.

        Raises ModelFileError when a file is missing, damaged, hostile or no GGUF.
        """
        first = Path(path)
        head, part = _open_part(first)
        count = _split_count(first, head.metadata)
        if count == 1:
            return cls((part,), head, _place_tensors(first, part, head, 0))
        return cls._open_split(first, count)

    @classmethod
    def from_header(cls, path: Path, header: bytes) -> GGUFFile:
        """A model of which only the header exists, called `path` in errors: metadata, shapes and sizes (0 for
        a type that is not in the table), no data.

        Raises ModelFileError when the header is damaged.
        """
        parsed = parse_header(path, header)
        tensors = {
            raw.name: TensorInfo(raw.name, raw.ggml_type, raw.ne, 0, _tensor_bytes(path, raw) or 0, 0)
            for raw in parsed.tensors
        }
        return cls((Part(path, 0, mmap.mmap(-1, 1)),), parsed, tensors)

    @classmethod
    def joined(cls, files: Sequence[GGUFFile]) -> GGUFFile:
        """The parts of a split model, in order, each made by `from_header`, as one.

        Raises ModelFileError when two parts hold the same tensor.
        """
        first = files[0]
        tensors: dict[str, TensorInfo] = {}
        for i, file in enumerate(files):
            for name, info in file.tensors.items():
                if name in tensors:
                    raise ModelFileError(f"{file.path}: tensor {show(name)} is in an earlier part already")
                tensors[name] = replace(info, part=i)
        return cls(tuple(file.parts[0] for file in files), first.header, tensors)

    @classmethod
    def _open_split(cls, path: Path, count: int) -> GGUFFile:
        match = _SPLIT_NAME.match(path.name)
        if match is None or int(match["count"]) != count:
            raise ModelFileError(
                f"{path}: is one of the {count} parts of a split model, but its name does not end in"
                f" -NNNNN-of-{count:05}.gguf: give the parts their names back"
            )
        parts: list[Part] = []
        headers: list[Header] = []
        tensors: dict[str, TensorInfo] = {}
        for i in range(count):
            part_path = path.with_name(f"{match['stem']}-{i + 1:05}-of-{count:05}.gguf")
            if not part_path.exists():
                raise ModelFileError(f"{part_path}: part {i + 1} of {count} of the model is missing")
            header, part = _open_part(part_path)
            meta = header.metadata
            if meta.get("split.count") != count or meta.get("split.no") != i:
                raise ModelFileError(
                    f"{part_path}: says it is part {show(meta.get('split.no'))} (from 0) of"
                    f" {show(meta.get('split.count'))}, expected {i} of {count}: the parts are mixed up"
                )
            for name, info in _place_tensors(part_path, part, header, i).items():
                if name in tensors:
                    raise ModelFileError(f"{part_path}: tensor {show(name)} is in an earlier part already")
                tensors[name] = info
            parts.append(part)
            headers.append(header)
        expected = headers[0].metadata.get("split.tensors.count", len(tensors))
        if expected != len(tensors):
            raise ModelFileError(
                f"{parts[0].path}: its parts hold {len(tensors)} tensors, split.tensors.count says"
                f" {show(expected)}"
            )
        return cls(tuple(parts), headers[0], tensors)

    @property
    def path(self) -> Path:
        """The first part, by which to name the model."""
        return self.parts[0].path

    @cached_property
    def nbytes(self) -> int:
        """Bytes on disk, all parts."""
        return sum(part.nbytes for part in self.parts)

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes, uint8 [nbytes]: a read-only view of the mapped file, not a copy.

        Raises ModelFileError when there is no such tensor.
        """
        info = self.tensors.get(name)
        if info is None:
            raise ModelFileError(f"{self.path}: tensor {show(name)} is missing")
        return self.parts[info.part].bytes[info.offset : info.offset + info.nbytes]

    def prefetch(self, name: str, start: int, stop: int) -> None:
        """Begin to read bytes [start, stop) of a tensor from the disk, without waiting."""
        self._advise(mmap.MADV_WILLNEED, name, start, stop)

    def release(self, name: str, start: int, stop: int) -> None:
        """Bytes [start, stop) of a tensor are done with: they no longer count as this process's memory, and
        are mapped again on use."""
        self._advise(mmap.MADV_DONTNEED, name, start, stop)

    def _advise(self, advice: int, name: str, start: int, stop: int) -> None:
        info = self.tensors[name]
        first = (info.offset + start) // mmap.PAGESIZE * mmap.PAGESIZE
        self.parts[info.part].mapping.madvise(advice, first, info.offset + stop - first)


def _open_part(path: Path) -> tuple[Header, Part]:
    mapped = _map(path)
    return parse_header(path, mapped), Part(path, len(mapped), mapped)


def _map(path: Path) -> mmap.mmap:
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(f"{path}: is no regular file, expected a GGUF model")
            if status.st_size == 0:
                raise ModelFileError(f"{path}: is empty, expected a GGUF model: download it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte, a file cut while opening
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelFileError(f"{path}: cannot be opened: {reason}") from error


def _open_without_waiting(path: str, flags: int) -> int:
    """A named pipe must not make us wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _split_count(path: Path, metadata: Metadata) -> int:
    count = metadata.get("split.count", 1)
    if type(count) is not int or not 0 <= count <= 0xFFFF:
        raise ModelFileError(f"{path}: split.count is {show(count)}, expected a number of parts")
    return max(count, 1)


def _place_tensors(path: Path, part: Part, header: Header, index: int) -> dict[str, TensorInfo]:
    """Check where the tensors of one file lie, and give each its absolute offset and size."""
    size = part.nbytes
    by_offset = sorted(header.tensors, key=lambda t: t.offset)
    placed: dict[str, TensorInfo] = {}
    end_before = 0
    name_before = ""
    for i, raw in enumerate(by_offset):
        if raw.offset % header.alignment:
            raise ModelFileError(
                f"{path}: tensor {show(raw.name)}: offset {raw.offset} is not aligned to {header.alignment}"
            )
        start = header.data_start + raw.offset
        if start < end_before:
            raise ModelFileError(f"{path}: tensors {show(name_before)} and {show(raw.name)} overlap")
        limit = size
        if i + 1 < len(by_offset):
            limit = min(size, header.data_start + by_offset[i + 1].offset)
        nbytes = _tensor_bytes(path, raw)
        if nbytes is None:
            nbytes = max(limit - start, 0)
        if start + nbytes > size or start > size:
            raise ModelFileError(
                f"{path}: tensor {show(raw.name)} ends at byte {start + nbytes}, the file at {size}:"
                " the file is incomplete, download it again"
            )
        placed[raw.name] = TensorInfo(raw.name, raw.ggml_type, raw.ne, start, nbytes, index)
        end_before, name_before = start + nbytes, raw.name
    return {raw.name: placed[raw.name] for raw in header.tensors}


def _tensor_bytes(path: Path, raw: RawTensor) -> int | None:
    """Size by type and shape; None for a type that is not in the table."""
    info = TYPES.get(raw.ggml_type)
    if info is None:
        return None
    blocks, rest = divmod(raw.ne[0], info.block_values)
    if rest:
        raise ModelFileError(
            f"{path}: tensor {show(raw.name)}: rows of {raw.ne[0]} values are no multiple of the"
            f" {info.name} block of {info.block_values}"
        )
    return blocks * info.block_bytes * prod(raw.ne[1:])
