"""What quantizing a file will do, before a weight is read: every tensor's type, every output file's size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from pintpot.errors import ModelFileError, PintpotError, UnsupportedError, UsageError
from pintpot.gguf import (
    RUNNABLE_TYPES,
    GGUFFile,
    GGUFWriter,
    RawValue,
    TensorDecl,
    TensorInfo,
    Typed,
    ValueType,
    type_name,
)
from pintpot.quantization.importance import Imatrix
from pintpot.quants.choice import Overrides, Why, choose_types, traits_of
from pintpot.quants.names import renamed
from pintpot.quants.recipes import FLOATS, Recipe

MetadataOut: TypeAlias = "dict[str, RawValue | Typed | str | int]"

QUANTIZATION_VERSION: Final = 2  # of the block formats: GGUF's general.quantization_version
_RUNNABLE: Final = frozenset(kind.id for kind in RUNNABLE_TYPES)
_SPLIT_KEYS: Final = ("split.no", "split.count", "split.tensors.count")
_SPLIT_STEM: Final = re.compile(r"-\d{5}-of-\d{5}$")
_UNWEIGHTED: Final = frozenset({"output.weight", "token_embd.weight", "per_layer_token_embd.weight"})


@dataclass(frozen=True, slots=True)
class Importance:
    """An importance matrix and the file it came from."""

    path: Path
    imatrix: Imatrix


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor: what it is, what it becomes and why."""

    source: TensorInfo
    decl: TensorDecl
    why: Why

    @property
    def name(self) -> str:
        return self.decl.name

    @property
    def changes(self) -> bool:
        return self.source.ggml_type != self.decl.ggml_type


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """One file to be written, `nbytes` in all."""

    path: Path
    metadata: MetadataOut = field(repr=False)
    tensors: tuple[TensorPlan, ...]
    alignment: int
    nbytes: int

    def writer(self) -> GGUFWriter:
        """A writer of exactly this file."""
        decls = [tensor.decl for tensor in self.tensors]
        return GGUFWriter(self.path, self.metadata, decls, alignment=self.alignment)


@dataclass(frozen=True, slots=True)
class QuantizePlan:
    """Everything that is decided: execution only obeys."""

    source: GGUFFile
    recipe: Recipe
    outputs: tuple[OutputPlan, ...]
    importance: Importance | None
    allow_requantize: bool

    @property
    def tensors(self) -> tuple[TensorPlan, ...]:
        """All tensors, in the order in which they are written."""
        return tuple(tensor for output in self.outputs for tensor in output.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all output files."""
        return sum(output.nbytes for output in self.outputs)

    @property
    def problem(self) -> str | None:
        """Why this plan must not be carried out; None if it may. `plan_quantization` allows for asking
        about sizes only."""
        return _problem(self)


def plan_quantization(
    file: GGUFFile,
    out: Path,
    recipe: Recipe,
    *,
    overrides: Overrides | None = None,
    importance: Importance | None = None,
    allow_requantize: bool = False,
    keep_split: bool = False,
) -> QuantizePlan:
    """The plan of quantizing `file` to `out`; with `keep_split` to files of its name and the source's parts.

    Only the header is read. Raises UsageError where the importance matrix belongs to another model,
    UnsupportedError for a tensor whose type is to change and cannot be read.
    """
    traits = traits_of(file.metadata, importance=importance is not None)
    sources = list(file.tensors.values())
    chosen = choose_types(recipe, traits, sources, overrides)
    tensors = [
        TensorPlan(t, TensorDecl(t.name, chosen[t.name].ggml_type, t.ne), chosen[t.name].why) for t in sources
    ]
    for tensor in tensors:
        if tensor.changes and tensor.source.ggml_type not in _RUNNABLE:
            raise UnsupportedError(
                f"{file.path}: tensor {tensor.name} is {tensor.source.type_name}, which cannot be read: "
                "quantize from the F16 or BF16 file of the model"
            )
    if importance is not None:
        _check_importance(importance.imatrix, tensors)
    metadata = _metadata(file, recipe, importance)
    n_parts = len(file.parts) if keep_split else 1
    outputs = tuple(
        _output(file, _part_path(out, part, n_parts), metadata, tensors, part, n_parts)
        for part in range(n_parts)
    )
    return QuantizePlan(file, recipe, outputs, importance, allow_requantize)


def _check_importance(imatrix: Imatrix, tensors: Sequence[TensorPlan]) -> None:
    for tensor in tensors:
        found = imatrix.tensors.get(tensor.name)
        if found is None or not tensor.changes or tensor.decl.ggml_type in FLOATS:
            continue
        n_mats, _, cols = matrices(tensor.source)
        # A .dat file does not tell a stack's matrices apart.
        if found.sum2.shape not in ((n_mats, cols), (1, n_mats * cols)):
            there, here = (" x ".join(map(str, shape)) for shape in (found.sum2.shape, (n_mats, cols)))
            raise UsageError(
                f"--imatrix: tensor {tensor.name} has {there} columns there and {here} in the model: it "
                "belongs to another model"
            )


def default_output(source: Path, quant: str, folder: Path | None = None) -> Path:
    """Where the result goes when nothing is said: beside the source (or in `folder`), the name's quantization
    replaced by `quant`: model-F16.gguf becomes model-Q4_K_M.gguf."""
    stem = source.name.removesuffix(".gguf")
    return (folder or source.parent) / f"{renamed(stem, quant)}.gguf"


def _output(
    file: GGUFFile,
    path: Path,
    metadata: MetadataOut,
    tensors: list[TensorPlan],
    part: int,
    n_parts: int,
) -> OutputPlan:
    if n_parts > 1:
        split: MetadataOut = {
            "split.no": Typed(ValueType.UINT16, part),
            "split.count": Typed(ValueType.UINT16, n_parts),
            "split.tensors.count": Typed(ValueType.INT32, len(tensors)),
        }
        metadata = metadata | split if part == 0 else split
        tensors = [tensor for tensor in tensors if tensor.source.part == part]
    decls = [tensor.decl for tensor in tensors]
    try:
        nbytes = GGUFWriter(path, metadata, decls, alignment=file.alignment).nbytes
    except ValueError as error:
        raise ModelFileError(f"{file.path}: cannot be written as {path.name}: {error}") from error
    return OutputPlan(path, metadata, tuple(tensors), file.alignment, nbytes)


def _part_path(out: Path, part: int, n_parts: int) -> Path:
    if n_parts == 1:
        return out
    stem = _SPLIT_STEM.sub("", out.name.removesuffix(".gguf"))
    return out.with_name(f"{stem}-{part + 1:05}-of-{n_parts:05}.gguf")


def _metadata(file: GGUFFile, recipe: Recipe, importance: Importance | None) -> MetadataOut:
    """The source's metadata as it is encoded there, and what has changed."""
    metadata: MetadataOut = {key: file.metadata.raw(key) for key in file.metadata if key not in _SPLIT_KEYS}
    if recipe.file_type is not None:
        metadata["general.file_type"] = recipe.file_type
    metadata["general.quantization_version"] = QUANTIZATION_VERSION
    if importance is not None:
        metadata |= _provenance(importance)
    return metadata


def _provenance(importance: Importance) -> Mapping[str, str | int]:
    imatrix = importance.imatrix
    found: dict[str, str | int] = {"quantize.imatrix.file": str(importance.path)}
    if imatrix.datasets:
        found["quantize.imatrix.dataset"] = ", ".join(imatrix.datasets)
    found["quantize.imatrix.entries_count"] = len(imatrix.tensors)
    if imatrix.chunk_count:
        found["quantize.imatrix.chunks_count"] = imatrix.chunk_count
    return found


def _problem(plan: QuantizePlan) -> str | None:
    for tensor in plan.tensors:
        source = tensor.source
        if not tensor.changes:
            continue
        if source.ggml_type not in FLOATS and not plan.allow_requantize:
            return (
                f"{plan.source.path}: tensor {tensor.name} is quantized already ({source.type_name}), and "
                "quantizing twice adds up errors: use the F16 or BF16 file, or give --allow-requantize"
            )
        known = plan.importance is not None and tensor.name in plan.importance.imatrix.tensors
        needed = tensor.name not in _UNWEIGHTED and tensor.decl.ggml_type == plan.recipe.needs_importance
        if needed and not known:
            return (
                f"{plan.recipe.name} has no use without importance data, and there is none for tensor "
                f"{tensor.name}, which becomes {type_name(tensor.decl.ggml_type)}: make an importance matrix "
                "with `pintpot imatrix` and give it with --imatrix, or choose Q2_K"
            )
    return None


def check_outputs(plan: QuantizePlan, *, force: bool) -> None:
    """Raises UsageError when an output is one of the source's files, or exists already without `force`;
    PintpotError when there is no folder for it."""
    folder = plan.outputs[0].path.parent
    if not folder.is_dir():
        raise PintpotError(f"{folder}: no such folder; make it, or choose another place for the output")
    for output in plan.outputs:
        if not output.path.exists():
            continue
        if any(output.path.samefile(part.path) for part in plan.source.parts):
            raise UsageError(
                f"{output.path}: is the file to be quantized; choose another name for the output"
            )
        if output.path.is_dir():
            raise UsageError(f"{output.path}: is a folder; give the output file's name")
        if not force:
            raise UsageError(f"{output.path}: exists already; choose another name or give --force")


def matrices(info: TensorInfo) -> tuple[int, int, int]:
    """A tensor as (matrices, rows, cols): experts are matrices of their own."""
    ne = (*info.ne, 1, 1, 1)[:4]
    return ne[2] * ne[3], ne[1], ne[0]
