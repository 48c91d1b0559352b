"""Carrying a plan out: tensors stream from the mapped source through the kernels to the disk.

Memory stays small whatever the model's size: rows are quantized a few million values at a time, by all
threads, while a thread of its own writes what came before and lets go of the source's pages behind it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.errors import ModelFileError, PintpotError, UsageError
from pintpot.gguf import TYPES, GGMLType, GGUFFile, GGUFWriter, remove_unfinished, row_bytes
from pintpot.hardware.cpu import default_threads
from pintpot.kernels.api import F32, TensorView
from pintpot.kernels.quantize import Quantizer
from pintpot.quantization.background import BackgroundWriter
from pintpot.quantization.importance import read_imatrix
from pintpot.quantization.plan import (
    Importance,
    QuantizePlan,
    TensorPlan,
    check_outputs,
    default_output,
    matrices,
    plan_quantization,
)
from pintpot.quantization.sizing import fit_to_size, size_label
from pintpot.quants.choice import Overrides, Why, parse_tensor_type
from pintpot.quants.recipes import FLOATS, find_recipe, find_type
from pintpot.quants.reference import dequantize
from pintpot.store.resolve import DEMO, resolve_model

U8: TypeAlias = npt.NDArray[np.uint8]
# Called with (bytes of the source done, bytes in all) after every piece.
Progress: TypeAlias = Callable[[int, int], None]

_CHUNK_VALUES: Final = 1 << 22  # quantized at once: 8 MB of F16
_CHUNKS_AHEAD: Final = 2  # waiting to be written, while the next is quantized
_COPY_BYTES: Final = 8 << 20
_F16_MAX: Final = 65504.0


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """What was written."""

    paths: tuple[Path, ...]
    nbytes: int  # of all files
    source_nbytes: int
    n_params: int
    bytes_by_type: Mapping[str, int]  # of tensors, largest first
    n_fallback: int  # tensors whose rows do not fit the type that the recipe wants
    unweighted: tuple[str, ...]  # quantized tensors the importance matrix says nothing about
    n_replaced: int  # values that were NaN or infinite (allow_nan)
    removed: tuple[tuple[Path, int], ...]  # unfinished files of killed runs and their bytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * sum(self.bytes_by_type.values()) / max(1, self.n_params)


def quantize(
    source: str | Path,
    out: str | Path | None = None,
    quant: str | None = None,
    *,
    target_bytes: int | None = None,
    imatrix: str | Path | None = None,
    tensor_types: Sequence[str] = (),
    output_tensor_type: str | None = None,
    token_embedding_type: str | None = None,
    pure: bool = False,
    leave_output_tensor: bool = False,
    allow_requantize: bool = False,
    keep_split: bool = False,
    allow_nan: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Quantize a GGUF model to `quant`, a name of `quants.recipes` in any usual spelling; or to a size.

    With `target_bytes` every tensor gets the type that makes the whole file, of at most so many bytes, most
    exact: the error of each type is measured (`quantization.sizing`), weighted by `imatrix` if there is one.
    `source` is a file (of a split model any part) or "demo". Without `out` the file goes beside the source
    under the source's name with the quantization replaced, of the demo into the current folder.
    `imatrix` is an importance matrix. `tensor_types` holds `PATTERN=TYPE` for tensors whose names contain the
    regular expression; the first that fits wins. `pure` gives every matrix the base type, without the
    recipe's rules; `leave_output_tensor` keeps output.weight as it is. `keep_split` writes as many parts as
    the source has. `allow_nan` puts zeros in place of NaN and infinity. `threads`: default one a core.
    `progress` is called with bytes of the source done and in all; of measuring first, where there is any.

    The output appears under its name when it is whole and on the disk; a failure leaves what was there.
    Raises UsageError for arguments that cannot be used, ModelFileError for a damaged source or one with
    weights that are not finite, PintpotError when the disk refuses.
    """
    plan = prepare(
        source,
        out,
        quant,
        target_bytes=target_bytes,
        threads=threads,
        progress=progress,
        imatrix=imatrix,
        tensor_types=tensor_types,
        output_tensor_type=output_tensor_type,
        token_embedding_type=token_embedding_type,
        pure=pure,
        leave_output_tensor=leave_output_tensor,
        allow_requantize=allow_requantize,
        keep_split=keep_split,
        force=force,
    )
    return execute(plan, force=force, allow_nan=allow_nan, threads=threads, progress=progress)


def prepare(
    source: str | Path,
    out: str | Path | None,
    quant: str | None = None,
    *,
    target_bytes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    imatrix: str | Path | None = None,
    tensor_types: Sequence[str] = (),
    output_tensor_type: str | None = None,
    token_embedding_type: str | None = None,
    pure: bool = False,
    leave_output_tensor: bool = False,
    allow_requantize: bool = False,
    keep_split: bool = False,
    force: bool = False,
) -> QuantizePlan:
    """The plan of `quantize` with these arguments. Nothing is written, and no weight is read unless
    `target_bytes` asks for their errors to be measured (`progress` tells of that): minutes of work, begun
    only when the output can be written, under a name that is free unless `force` is given."""
    if (quant is None) == (target_bytes is None):
        raise UsageError("give a type (such as Q4_K_M) or a target size, one of the two")
    if pure and target_bytes is not None:
        raise UsageError(
            "--pure is one type for every matrix, --target-size a type for each: give one of them"
        )
    recipe = find_recipe(quant or "Q4_K_M")
    overrides = Overrides(
        tensor_types=tuple(parse_tensor_type(text) for text in tensor_types),
        output=_optional_type(output_tensor_type, "--output-tensor-type"),
        token_embedding=_optional_type(token_embedding_type, "--token-embedding-type"),
        pure=pure,
        leave_output=leave_output_tensor,
    )
    importance = Importance(Path(imatrix), read_imatrix(imatrix)) if imatrix is not None else None
    file = GGUFFile.open(resolve_model(source))
    if out is None:
        name = recipe.name if target_bytes is None else size_label(target_bytes)
        out = default_output(file.path, name, Path() if source == DEMO else None)
    plan = plan_quantization(
        file,
        Path(out).expanduser(),
        recipe,
        overrides=overrides,
        importance=importance,
        allow_requantize=allow_requantize,
        keep_split=keep_split,
    )
    if target_bytes is None:
        return plan
    check_outputs(plan, force=force)
    return fit_to_size(
        plan, target_bytes, overrides, keep_split, Quantizer(threads or default_threads()), progress
    )


def _optional_type(name: str | None, flag: str) -> GGMLType | None:
    return None if name is None else find_type(name, flag)


def execute(
    plan: QuantizePlan,
    *,
    force: bool = False,
    allow_nan: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Write the plan's files; see `quantize`."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}, expected at least 1")
    check_outputs(plan, force=force)
    if plan.problem is not None:
        raise UsageError(plan.problem)
    removed = _make_room(plan)
    run = _Run(plan, Quantizer(threads or default_threads()), allow_nan, progress)
    with ExitStack() as stack:
        # All parts are open until the last is complete: a split model appears whole, its first part last.
        writers = [stack.enter_context(output.writer()) for output in plan.outputs]
        with BackgroundWriter() as background:
            for output, writer in zip(plan.outputs, writers, strict=True):
                for tensor in output.tensors:
                    run.tensor(tensor, writer, background)
    by_type: Counter[str] = Counter()
    for tensor in plan.tensors:
        by_type[TYPES[tensor.decl.ggml_type].name] += tensor.decl.nbytes
    return QuantizeResult(
        paths=tuple(output.path for output in plan.outputs),
        nbytes=plan.nbytes,
        source_nbytes=plan.source.nbytes,
        n_params=sum(tensor.source.n_values for tensor in plan.tensors),
        bytes_by_type=dict(by_type.most_common()),
        n_fallback=sum(tensor.why is Why.FALLBACK for tensor in plan.tensors),
        unweighted=tuple(run.unweighted),
        n_replaced=run.n_replaced,
        removed=tuple(removed),
    )


def _make_room(plan: QuantizePlan) -> list[tuple[Path, int]]:
    """Remove what killed runs have left, and check that the disk holds the result."""
    folder = plan.outputs[0].path.parent
    removed = remove_unfinished(folder)
    free = shutil.disk_usage(folder).free
    if plan.nbytes > free:
        raise PintpotError(
            f"{plan.outputs[0].path}: the output needs {plan.nbytes / 1e6:,.1f} MB and the disk has "
            f"{free / 1e6:,.1f} MB free: make room or choose a smaller type"
        )
    return removed


@dataclass(frozen=True, slots=True)
class _Piece:
    """Data to be written, made of bytes [start, stop) of the source tensor."""

    data: U8
    start: int
    stop: int
    buffer: U8 | None = None  # what `data` lies in, to be used again


class _Run:
    """One execution: buffers, counts and what every tensor needs."""

    def __init__(
        self, plan: QuantizePlan, quantizer: Quantizer, allow_nan: bool, progress: Progress | None
    ) -> None:
        self.file = plan.source
        self.importance = plan.importance.imatrix if plan.importance is not None else None
        self.quantizer = quantizer
        self.allow_nan = allow_nan
        self.progress = progress
        self.done = 0
        self.total = sum(tensor.source.nbytes for tensor in plan.tensors)
        self.unweighted: list[str] = []
        self.n_replaced = 0
        capacity = max((_chunk_bytes(t) for t in plan.tensors if t.changes), default=0)
        self.buffers: SimpleQueue[U8] = SimpleQueue()
        for _ in range(_CHUNKS_AHEAD + 1):
            self.buffers.put(np.empty(capacity, np.uint8))

    def tensor(self, tensor: TensorPlan, writer: GGUFWriter, background: BackgroundWriter) -> None:
        """Quantize or copy one tensor."""
        size = tensor.source.nbytes
        for piece in self._quantized(tensor) if tensor.changes else self._copied(tensor):
            if piece.stop < size:
                self.file.prefetch(tensor.name, piece.stop, min(size, 2 * piece.stop - piece.start))
            background.write(writer, tensor.name, piece.data, partial(self._written, tensor.name, piece))
            self.done += piece.stop - piece.start
            if self.progress is not None:
                self.progress(self.done, self.total)

    def _written(self, name: str, piece: _Piece) -> None:
        if piece.buffer is not None:
            self.buffers.put(piece.buffer)
        self.file.release(name, piece.start, piece.stop)

    def _copied(self, tensor: TensorPlan) -> Iterator[_Piece]:
        """The source as it is, in whole rows."""
        data = self.file.data(tensor.name)
        step = row_bytes(tensor.decl.ggml_type, tensor.source.ne[0])
        step *= max(1, _COPY_BYTES // step)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if not self.allow_nan:
                _check_finite(self.file, tensor, piece, start)
            yield _Piece(piece, start, start + len(piece))

    def _quantized(self, tensor: TensorPlan) -> Iterator[_Piece]:
        """The source in blocks of another type."""
        n_mats, rows, cols = matrices(tensor.source)
        source_row = row_bytes(tensor.source.ggml_type, cols)
        out_row = row_bytes(tensor.decl.ggml_type, cols)
        view = TensorView(
            tensor.name, tensor.source.ggml_type, self.file.data(tensor.name), n_mats, rows, cols,
            source_row, rows * source_row,
        )  # fmt: skip
        weights = self._weights(tensor, n_mats)
        step = _chunk_rows(cols)
        for first in range(0, n_mats * rows, step):
            last = min(first + step, n_mats * rows)
            buffer = self.buffers.get()
            out = buffer[: (last - first) * out_row].reshape(last - first, out_row)
            at = first
            while at < last:
                mat, row = divmod(at, rows)
                n = min(rows - row, last - at)
                importance = None if weights is None else weights[mat]
                self._rows(view, mat, row, GGMLType(tensor.decl.ggml_type), out[at - first :][:n], importance)
                at += n
            yield _Piece(out.reshape(-1), first * source_row, last * source_row, buffer)

    def _rows(
        self, view: TensorView, mat: int, row: int, kind: GGMLType, out: U8, importance: F32 | None
    ) -> None:
        """Quantize rows of one matrix into `out`."""
        bad = self.quantizer.quantize(view, mat, row, kind, out, importance).bad_row
        if bad is None:
            return
        if not self.allow_nan:
            raise _not_finite(self.file, view.name, row + bad, mat if view.n_mats > 1 else None, kind)
        start = mat * view.mat_stride + row * view.row_bytes
        raw = view.data[start : start + len(out) * view.row_bytes]
        values = dequantize(view.ggml_type, raw).reshape(len(out), view.cols)
        fine = np.isfinite(values)
        if kind is GGMLType.F16:
            fine &= np.abs(values) <= _F16_MAX
        self.n_replaced += int(fine.size - np.count_nonzero(fine))
        values = np.where(fine, values, np.float32(0))
        size = 4 * view.cols
        repaired = TensorView(
            view.name,
            GGMLType.F32,
            values.view(np.uint8).reshape(-1),
            1,
            len(out),
            view.cols,
            size,
            values.nbytes,
        )
        self.quantizer.quantize(repaired, 0, 0, kind, out, importance)

    def _weights(self, tensor: TensorPlan, n_mats: int) -> F32 | None:
        """Importance of a tensor's columns, float32 [n_mats, cols]."""
        if self.importance is None or tensor.decl.ggml_type in FLOATS:
            return None
        weights = self.importance.weights(tensor.name, n_mats)
        if weights is None:
            self.unweighted.append(tensor.name)
        return weights


def _chunk_rows(cols: int) -> int:
    return max(1, _CHUNK_VALUES // cols)


def _chunk_bytes(tensor: TensorPlan) -> int:
    n_mats, rows, cols = matrices(tensor.source)
    return min(_chunk_rows(cols), n_mats * rows) * row_bytes(tensor.decl.ggml_type, cols)


def _check_finite(file: GGUFFile, tensor: TensorPlan, piece: U8, start: int) -> None:
    """Raises ModelFileError naming the row when floats that are copied are not all finite."""
    kind = tensor.source.ggml_type
    if kind == GGMLType.F32:
        fine = np.isfinite(piece.view("<f4"))
    elif kind in (GGMLType.F16, GGMLType.BF16):
        exponent = 0x7C00 if kind == GGMLType.F16 else 0x7F80
        fine = (piece.view("<u2") & exponent) != exponent
    else:
        return
    if not fine.all():
        _, rows, cols = matrices(tensor.source)
        at = start // row_bytes(kind, cols) + int(np.argmin(fine)) // cols
        mat, row = divmod(at, rows)
        n_mats = matrices(tensor.source)[0]
        raise _not_finite(file, tensor.name, row, mat if n_mats > 1 else None, None)


def _not_finite(
    file: GGUFFile, name: str, row: int, mat: int | None, kind: GGMLType | None
) -> ModelFileError:
    matrix = "" if mat is None else f" of matrix {mat}"
    beyond = " or values beyond F16" if kind is GGMLType.F16 else ""
    return ModelFileError(
        f"{file.path}: tensor {name}: row {row}{matrix} holds NaN or infinity{beyond}: the weights are "
        "damaged, download or convert them again; --allow-nan puts zeros in their place"
    )
