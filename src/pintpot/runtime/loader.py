"""From an open file to a model: checks every weight an architecture asks for and hands it to the backend.

Nothing is copied here: matrices are views of the mapped file, only vectors become float32 arrays.
"""

from __future__ import annotations

import re

import numpy as np

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.gguf import GGMLType, GGUFFile, TensorInfo, row_bytes
from pintpot.kernels.api import F32, Ops, TensorView
from pintpot.models.base import Model
from pintpot.models.registry import model_class
from pintpot.spec import ModelSpec
from pintpot.spec.reading import Reading, reading_of

_ROPE = re.compile(r"(blk\.\d+\.)?rope_(freqs|factors_\w+)\.weight")


def load_model(file: GGUFFile, ops: Ops) -> Model:
    """The model in `file`, its weights handed to `ops`.

    Raises ModelFileError for a tensor that is missing or has another shape than the metadata says,
    UnsupportedError for an architecture, tensor type or tensor that cannot be run.
    """
    spec = ModelSpec.from_gguf(file)
    build = model_class(spec.arch)
    tensors = FileTensors(file)
    model = build(spec, ops, tensors)
    unknown = sorted(n for n in file.tensors if n not in tensors.asked and not _ignorable(n, spec))
    if unknown:
        raise UnsupportedError(
            f"{file.path}: tensor {unknown[0]!r} is not part of a {spec.arch} model as this version knows it "
            f"({len(unknown)} such): without it the answers would be wrong"
        )
    return model


def _ignorable(name: str, spec: ModelSpec) -> bool:
    """Whether a tensor may go unused."""
    return reading_of(name, spec) is Reading.NEVER or _ROPE.fullmatch(name) is not None


class FileTensors:
    """The tensors of a GGUF file, checked against what a model expects. `asked`: every name it asked for."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.asked: set[str] = set()

    def matrix(self, name: str, rows: int, cols: int, n_mats: int = 1) -> TensorView:
        shape = (n_mats, rows, cols) if n_mats > 1 else (rows, cols)
        info = self._info(name, shape)
        if info.ne[0] != cols:  # a row of one column is no column of one row: blocks lie along a row
            raise self._misshapen(info, shape)
        if info.type is None or not info.type.runnable:
            raise UnsupportedError(
                f"{self.file.path}: tensor {name} has type {info.type_name}, which this version cannot "
                "compute with: use a file of another quantization"
            )
        stride = row_bytes(info.ggml_type, cols)
        return TensorView(
            name=name,
            ggml_type=info.ggml_type,
            data=self.file.data(name),
            n_mats=n_mats,
            rows=rows,
            cols=cols,
            row_bytes=stride,
            mat_stride=stride * rows,
        )

    def find_matrix(self, name: str, rows: int, cols: int, n_mats: int = 1) -> TensorView | None:
        return self.matrix(name, rows, cols, n_mats) if name in self.file.tensors else None

    def vector(self, name: str, *shape: int) -> F32:
        info = self._info(name, shape)
        data = self.file.data(name)
        match info.ggml_type:
            case GGMLType.F32:
                values = data.view("<f4")
            case GGMLType.F16:
                values = data.view("<f2").astype(np.float32)
            case GGMLType.BF16:
                values = (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
            case _:
                raise UnsupportedError(
                    f"{self.file.path}: tensor {name} has type {info.type_name}, expected F32, F16 or BF16"
                )
        return values.reshape(shape)

    def find_vector(self, name: str, *shape: int) -> F32 | None:
        return self.vector(name, *shape) if name in self.file.tensors else None

    def _info(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        self.asked.add(name)
        info = self.file.tensors.get(name)
        if info is None:
            raise ModelFileError(
                f"{self.file.path}: tensor {name} is missing, expected shape {list(shape)}: the file is "
                "incomplete or was made by a converter this version does not know"
            )
        if _without_ones(info.shape) != _without_ones(shape):
            raise self._misshapen(info, shape)
        return info

    def _misshapen(self, info: TensorInfo, shape: tuple[int, ...]) -> ModelFileError:
        return ModelFileError(
            f"{self.file.path}: tensor {info.name} has shape {list(info.shape)}, expected {list(shape)}"
        )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """GGUF drops and adds dimensions of length 1 freely."""
    return tuple(n for n in shape if n != 1)
