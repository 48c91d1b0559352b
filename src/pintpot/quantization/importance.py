"""Importance matrices: how strongly text excites each input column of each weight matrix, and their files.

Two file formats, both llama.cpp's (tools/imatrix): GGUF with `general.type` "imatrix", read and written, and
the older `.dat`, read. docs/formats/imatrix.md describes them.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.errors import ModelFileError, UsageError
from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl, Typed, ValueType
from pintpot.gguf.metadata import show
from pintpot.spec.size import is_expert

F32: TypeAlias = npt.NDArray[np.float32]
I64: TypeAlias = npt.NDArray[np.int64]

DEFAULT_CHUNK_TOKENS: Final = 512

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_NAME_BYTES: Final = 65_535
_LAYER: Final = re.compile(r"blk\.(\d{1,9})\.")
# Far beyond what text brings, and far enough from the types' ends to add and scale.
_MAX_COUNT: Final = 2.0**56
_MAX_SUM: Final = 2.0**100
_MIN_LEGACY_ENTRY: Final = 17  # a name of one byte, ncall, the number of values, one value


@dataclass(frozen=True, slots=True)
class TensorImportance:
    """What the matrices of one tensor were multiplied with.

    `sum2`, float32 [n_mats, cols]: sum of squares of each input column. `counts`, int64 [n_mats]: inputs
    (tokens) summed up for each matrix; 0 for an expert that no token was sent to.
    """

    sum2: F32
    counts: I64

    @property
    def unreached(self) -> I64:
        """The matrices (experts) that no token was sent to."""
        return np.flatnonzero(self.counts == 0)


@dataclass(frozen=True, slots=True)
class Imatrix:
    """Importance by tensor name, and what it was collected on: `chunk_count` chunks of `chunk_tokens`."""

    tensors: Mapping[str, TensorImportance]
    datasets: tuple[str, ...] = ()
    chunk_count: int = 0
    chunk_tokens: int = DEFAULT_CHUNK_TOKENS

    def weights(self, tensor: str, n_mats: int | None = None) -> F32 | None:
        """Mean square of each input column, float32 [n_mats, cols]; None for a tensor without data.

        A matrix (expert) that no token was sent to gets ones: rounding errors of its columns count alike.
        `n_mats` is the tensor's number of matrices, which `.dat` files do not record. Raises UsageError when
        the data cannot belong to so many.
        """
        found = self.tensors.get(tensor)
        if found is None:
            return None
        counts = found.counts[:, None]
        mean = np.divide(found.sum2, counts, out=np.ones_like(found.sum2), where=counts > 0)
        if n_mats is None or n_mats == len(mean):
            return mean
        if len(mean) > 1 or mean.size % n_mats:
            raise UsageError(
                f"importance of tensor {show(tensor)}: {mean.size} values for {len(mean)} matrices, and the "
                f"model has {n_mats}: the importance matrix belongs to another model"
            )
        return mean.reshape(n_mats, -1)


@dataclass(frozen=True, slots=True)
class LayerReach:
    """Which of a layer's `n_expert` experts no token was sent to."""

    layer: int
    n_expert: int
    unreached: tuple[int, ...]


def expert_reach(imatrix: Imatrix) -> list[LayerReach]:
    """Every layer with a stack of experts, in order."""
    layers: dict[int, LayerReach] = {}
    for name, tensor in imatrix.tensors.items():
        match = _LAYER.match(name)
        if match and len(tensor.counts) > 1:
            unreached = tuple(tensor.unreached.tolist())
            layers[int(match[1])] = LayerReach(int(match[1]), len(tensor.counts), unreached)
    return [layers[i] for i in sorted(layers)]


def expert_counts(imatrix: Imatrix) -> dict[int, npt.NDArray[np.float64]]:
    """How many tokens were sent to each expert, by layer: what keeps the likeliest in VRAM from the start."""
    found: dict[int, npt.NDArray[np.float64]] = {}
    for name, tensor in imatrix.tensors.items():
        match = _LAYER.match(name)
        if match and is_expert(name) and len(tensor.counts) > 1:
            found[int(match[1])] = tensor.counts.astype(np.float64)
    return found


def merge(parts: Iterable[Imatrix]) -> Imatrix:
    """One importance matrix of all that `parts` saw: sums and counts add up.

    Raises UsageError when a tensor has another shape in one of them.
    """
    tensors: dict[str, TensorImportance] = {}
    datasets: list[str] = []
    chunk_count, chunk_tokens = 0, 0
    for part in parts:
        for name, new in part.tensors.items():
            old = tensors.get(name)
            tensors[name] = new if old is None else _add(name, old, new)
        datasets += part.datasets
        chunk_count += part.chunk_count
        chunk_tokens = chunk_tokens or part.chunk_tokens
    return Imatrix(tensors, tuple(datasets), chunk_count, chunk_tokens or DEFAULT_CHUNK_TOKENS)


def _add(name: str, a: TensorImportance, b: TensorImportance) -> TensorImportance:
    n_mats = max(len(a.counts), len(b.counts))
    a, b = _spread(a, n_mats), _spread(b, n_mats)
    if a.sum2.shape != b.sum2.shape:
        raise UsageError(
            f"importance of tensor {show(name)}: {list(a.sum2.shape)} values in one file, "
            f"{list(b.sum2.shape)} in another: they belong to different models"
        )
    return TensorImportance(a.sum2 + b.sum2, a.counts + b.counts)


def _spread(t: TensorImportance, n_mats: int) -> TensorImportance:
    """One row of a `.dat` file as the `n_mats` matrices it stands for."""
    if len(t.counts) > 1 or t.sum2.size % n_mats:
        return t
    return TensorImportance(t.sum2.reshape(n_mats, -1), np.repeat(t.counts, n_mats))


def write_imatrix(path: str | os.PathLike[str], imatrix: Imatrix) -> None:
    """Writes the GGUF format. Raises UsageError when there is nothing to write, PintpotError when the disk
    refuses; a file of that name is replaced only by a whole one."""
    if not imatrix.tensors:
        raise UsageError(f"{path}: the importance matrix has no tensors, nothing to write")
    metadata: dict[str, str | int | Typed] = {
        "general.type": "imatrix",
        "imatrix.datasets": Typed(ValueType.ARRAY, list(imatrix.datasets), ValueType.STRING),
        "imatrix.chunk_count": imatrix.chunk_count,
        "imatrix.chunk_size": imatrix.chunk_tokens,
    }
    names = sorted(imatrix.tensors)
    declarations = []
    for name in names:
        n_mats, cols = imatrix.tensors[name].sum2.shape
        declarations += [
            TensorDecl(name + _SUMS, GGMLType.F32, (cols, n_mats)),
            TensorDecl(name + _COUNTS, GGMLType.F32, (1, n_mats)),
        ]
    with GGUFWriter(path, metadata, declarations) as writer:
        for name in names:
            tensor = imatrix.tensors[name]
            writer.write(name + _SUMS, tensor.sum2.astype("<f4", copy=False))
            writer.write(name + _COUNTS, tensor.counts.astype("<f4"))


def read_imatrix(path: str | os.PathLike[str], *, legacy_chunk_tokens: int = DEFAULT_CHUNK_TOKENS) -> Imatrix:
    """Reads either format.

    A `.dat` file counts in chunks and does not say of how many tokens: of `legacy_chunk_tokens`. Raises
    ModelFileError for a file that is damaged, hostile or no importance matrix.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                file.seek(0)
                return _Legacy(path, file, legacy_chunk_tokens).read()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    return _read_gguf(GGUFFile.open(path))


def _read_gguf(file: GGUFFile) -> Imatrix:
    stems = {n.removesuffix(s) for n in file.tensors for s in (_SUMS, _COUNTS) if n.endswith(s)}
    kind = file.metadata.get("general.type", "imatrix")
    if kind != "imatrix" or not stems:
        raise ModelFileError(
            f"{file.path}: is no importance matrix, which has general.type imatrix and tensors NAME{_SUMS} "
            f"and NAME{_COUNTS}"
        )
    datasets = file.metadata.get("imatrix.datasets", [])
    if not isinstance(datasets, list):
        raise ModelFileError(f"{file.path}: imatrix.datasets is no list of names")
    return Imatrix(
        {stem: _tensor(file, stem) for stem in sorted(stems)},
        tuple(str(d) for d in datasets),
        _whole_number(file, "imatrix.chunk_count", 0),
        _whole_number(file, "imatrix.chunk_size", DEFAULT_CHUNK_TOKENS),
    )


def _whole_number(file: GGUFFile, key: str, default: int) -> int:
    value = file.metadata.get(key, default)
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise ModelFileError(f"{file.path}: {key} is no whole number")
    return value


def _tensor(file: GGUFFile, stem: str) -> TensorImportance:
    sums, counts = (_floats(file, stem + suffix) for suffix in (_SUMS, _COUNTS))
    if len(sums) % len(counts):
        raise ModelFileError(
            f"{file.path}: tensor {show(stem + _SUMS)} has {len(sums)} values, expected a multiple of its "
            f"{len(counts)} counts"
        )
    return TensorImportance(sums.reshape(len(counts), -1), np.rint(counts).astype(np.int64))


def _floats(file: GGUFFile, name: str) -> F32:
    info = file.tensors.get(name)
    if info is None:
        raise ModelFileError(
            f"{file.path}: tensor {show(name)} is missing: the file is incomplete, make it again"
        )
    if info.ggml_type != GGMLType.F32:
        raise ModelFileError(f"{file.path}: tensor {show(name)} has type {info.type_name}, expected F32")
    return _checked(file.path, name, file.data(name).view("<f4"))


def _checked(path: Path, name: str, values: F32) -> F32:
    limit = _MAX_COUNT if name.endswith(_COUNTS) else _MAX_SUM
    if not (np.all(values >= 0) and np.all(values <= limit)):
        raise ModelFileError(
            f"{path}: tensor {show(name)} holds negative, infinite, NaN or huge values: the file is damaged"
        )
    return np.array(values, np.float32)


class _Legacy:
    """The `.dat` format, little-endian: int32 number of entries; each an int32 length and its name, int32
    ncall, int32 number of values, float32 values (mean squares times ncall); then, in later versions, int32
    number of chunks, int32 length and the name of the text."""

    def __init__(self, path: Path, file: BinaryIO, chunk_tokens: int) -> None:
        self.path = path
        self.file = file
        self.chunk_tokens = chunk_tokens
        self.left = os.fstat(file.fileno()).st_size

    def read(self) -> Imatrix:
        n_entries = self._int()
        if not 1 <= n_entries <= self.left // _MIN_LEGACY_ENTRY:
            raise ModelFileError(
                f"{self.path}: is no importance matrix: neither GGUF nor llama.cpp's .dat format"
            )
        tensors: dict[str, TensorImportance] = {}
        most_calls = 0
        for i in range(n_entries):
            name = self._text()
            if not name or name in tensors:
                raise ModelFileError(f"{self.path}: the name of entry {i + 1} is empty or there twice")
            n_calls = self._int()
            if n_calls < 0:
                raise ModelFileError(
                    f"{self.path}: tensor {show(name)} has the count {n_calls}: the file is damaged"
                )
            n_calls = max(n_calls, 1)  # the first versions wrote 0
            most_calls = max(most_calls, n_calls)
            tensors[name] = self._values(name, n_calls)
        chunk_count = max(self._int(), 0) if self.left else most_calls
        dataset = self._text() if self.left else ""
        return Imatrix(tensors, (dataset,) if dataset else (), chunk_count, self.chunk_tokens)

    def _values(self, name: str, n_calls: int) -> TensorImportance:
        n_values = self._int()
        if n_values < 1:
            raise ModelFileError(
                f"{self.path}: tensor {show(name)} has {n_values} values, expected at least one"
            )
        values = _checked(self.path, name, np.frombuffer(self._bytes(4 * n_values), "<f4"))
        counts = np.array([n_calls * self.chunk_tokens], np.int64)
        return TensorImportance((values * np.float32(self.chunk_tokens)).reshape(1, -1), counts)

    def _text(self) -> str:
        n_bytes = self._int()
        if not 0 <= n_bytes <= _MAX_NAME_BYTES:
            raise ModelFileError(f"{self.path}: a name is {n_bytes} bytes long: the file is damaged")
        return self._bytes(n_bytes).decode("utf-8", "replace")

    def _int(self) -> int:
        return int(struct.unpack("<i", self._bytes(4))[0])

    def _bytes(self, n_bytes: int) -> bytes:
        """Checked against the size of the file before anything is allocated."""
        data = self.file.read(n_bytes) if n_bytes <= self.left else b""
        if len(data) < n_bytes:
            raise ModelFileError(f"{self.path}: is cut off: it ends within its {n_bytes}-byte values")
        self.left -= n_bytes
        return data
