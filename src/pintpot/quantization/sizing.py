"""Quantizing to a size: the error every type costs every tensor, measured, and the choice that costs least.

What a type costs a tensor is the relative error of the tensor's outputs, sum(w (x - q)^2) / sum(w x^2),
where w is the importance of a column (its mean squared activation; 1 without an importance matrix). For
experts, sums run over the whole stack with each expert weighted by how often it was chosen, which the
matrix knows too. Errors of different tensors are made comparable by what the model's output makes of them:
SENSITIVITY.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.errors import UsageError
from pintpot.gguf import GGMLType, GGUFFile, TensorDecl, TensorInfo, row_bytes
from pintpot.kernels.api import F32, TensorView
from pintpot.kernels.quantize import Quantizer
from pintpot.knapsack import Choice, Group, Option, choose, least_bytes
from pintpot.quantization.importance import Imatrix
from pintpot.quantization.plan import QuantizePlan, matrices, plan_quantization
from pintpot.quants.choice import Overrides, Why, fit_rows, role_of, traits_of
from pintpot.quants.recipes import ALIASES, FLOATS, RECIPES, Recipe, Role
from pintpot.quants.reference import dequantize

# Called with (bytes of the source measured, bytes in all) after every tensor.
Progress: TypeAlias = Callable[[int, int], None]

# Candidates, by size. Q8_0 is as good as F16 to anyone's ear; below Q2_K nothing is of use without training.
CANDIDATES: Final = (
    GGMLType.Q2_K,
    GGMLType.Q3_K,
    GGMLType.IQ4_XS,
    GGMLType.Q4_K,
    GGMLType.Q5_K,
    GGMLType.Q6_K,
    GGMLType.Q8_0,
)

# KL divergence (nats) per relative output error, when only tensors of one role are quantized; of a role
# that every layer has, for one layer of a model of one layer (that is, measured times layers). Measured on
# the demo model at Q3_K: `python -m benchmarks.quantize_sensitivity`.
SENSITIVITY: Final = {
    Role.HEAD: 1.66,
    Role.TOKEN_EMBD: 0.55,
    Role.ATTN_Q: 0.48,
    Role.ATTN_K: 0.48,
    Role.ATTN_V: 1.88,
    Role.ATTN_OUTPUT: 1.97,
    Role.FFN_GATE: 0.98,
    Role.FFN_UP: 0.82,
    Role.FFN_DOWN: 2.01,
    Role.OTHER: 1.88,
}
PER_MODEL: Final = frozenset({Role.HEAD, Role.TOKEN_EMBD})

_SAMPLE_VALUES: Final = 1 << 21  # of a tensor, at most, spread over all its matrices and rows
_RUN_ROWS: Final = 16  # sampled rows lie together this many at a time


@dataclass(frozen=True, slots=True)
class TensorCosts:
    """A tensor and what each type it may get would cost."""

    name: str
    options: tuple[Option[GGMLType], ...]


def fit_to_size(
    plan: QuantizePlan,
    target_bytes: int,
    overrides: Overrides,
    keep_split: bool,
    quantizer: Quantizer,
    progress: Progress | None = None,
) -> QuantizePlan:
    """`plan` with the types that cost least within `target_bytes`, all files together.

    Tensors that the plan keeps, and those the user has named a type for, stay as they are. Raises
    UsageError when the rest does not fit even at the smallest types.
    """
    if plan.problem is not None:
        raise UsageError(plan.problem)
    tied = _is_tied(plan.source)
    free = [t for t in plan.tensors if t.why is not Why.KEPT and not overrides.constrains(t.name, tied=tied)]
    if not free:
        raise UsageError(
            "--target-size: no tensor is left to choose a type for: all are of kinds that are never "
            "quantized, or have their type from a flag"
        )
    alignment = plan.source.alignment

    def padded(nbytes: int) -> int:
        return -(-nbytes // alignment) * alignment

    fixed = plan.nbytes - sum(padded(t.decl.nbytes) for t in free)
    costs = measure_costs(
        plan.source,
        [t.source for t in free],
        quantizer,
        imatrix=plan.importance.imatrix if plan.importance is not None else None,
        progress=progress,
    )
    groups = [Group(Option(o.kind, padded(o.nbytes), o.cost) for o in tensor.options) for tensor in costs]
    least = fixed + least_bytes(groups)
    if target_bytes < least:
        raise UsageError(
            f"--target-size is {target_bytes:,} bytes and the least this model can take is {least:,}: allow "
            f"{-(-least // 1024)}KiB, or choose a smaller model"
        )
    choice = choose(groups, target_bytes - fixed)
    return plan_quantization(
        plan.source,
        plan.outputs[0].path,
        _recipe(choice, size_label(target_bytes)),
        overrides=replace(
            overrides,
            within_budget={t.name: o.kind for t, o in zip(costs, choice.options, strict=True)},
        ),
        importance=plan.importance,
        allow_requantize=plan.allow_requantize,
        keep_split=keep_split,
    )


def size_label(nbytes: int) -> str:
    """A size as a part of file names: 12GiB, 7.5MiB."""
    unit = "GiB" if nbytes >= 1 << 30 else "MiB"
    return f"{nbytes / (1 << (30 if unit == 'GiB' else 20)):.4g}{unit}"


def _recipe(choice: Choice[GGMLType], name: str) -> Recipe:
    """What the file is said to be: the type that most of its bytes have."""
    nbytes: Counter[GGMLType] = Counter()
    for option in choice.options:
        nbytes[option.kind] += option.nbytes
    base = nbytes.most_common(1)[0][0]
    return Recipe(name, RECIPES[ALIASES.get(base.name, base.name)].file_type, base)


def measure_costs(
    file: GGUFFile,
    tensors: Sequence[TensorInfo],
    quantizer: Quantizer,
    *,
    imatrix: Imatrix | None = None,
    kinds: Sequence[GGMLType] = CANDIDATES,
    progress: Progress | None = None,
) -> list[TensorCosts]:
    """The options of each of `tensors` (those of `file` that may be quantized).

    Large tensors are sampled evenly. Rows that a type's blocks do not divide get what stands in for it. A
    tensor that is quantized already may also stay as it is, at no cost.
    """
    tied = _is_tied(file)
    n_layer = max(1, traits_of(file.metadata, importance=imatrix is not None).n_layer)
    costs = []
    done, total = 0, sum(tensor.nbytes for tensor in tensors)
    for tensor in tensors:
        weight = sensitivity(tensor.name, n_layer, tied=tied)
        sample = _Sample(file, tensor, imatrix)
        fitting = dict.fromkeys(fit_rows(kind, tensor.ne[0]) for kind in kinds)
        if tensor.ggml_type not in FLOATS:
            fitting[GGMLType(tensor.ggml_type)] = None
        costs.append(
            TensorCosts(
                tensor.name,
                tuple(
                    Option(
                        kind,
                        TensorDecl(tensor.name, kind, tensor.ne).nbytes,
                        0.0 if kind == tensor.ggml_type else weight * sample.relative_error(quantizer, kind),
                    )
                    for kind in fitting
                ),
            )
        )
        done += tensor.nbytes
        if progress is not None:
            progress(done, total)
    return costs


def sensitivity(name: str, n_layer: int, *, tied: bool) -> float:
    """What the output makes of the relative error of one tensor (nats of KL divergence, to first order).

    Tied embeddings are read at both ends, so both count; per-layer embeddings are only ever looked up.
    """
    role = role_of(name, tied=False)
    found = SENSITIVITY[role] / (1 if role in PER_MODEL else n_layer)
    return found + SENSITIVITY[Role.HEAD] if tied and name == "token_embd.weight" else found


def _is_tied(file: GGUFFile) -> bool:
    return "output.weight" not in file.tensors


def relative_error(
    file: GGUFFile,
    tensor: TensorInfo,
    quantizer: Quantizer,
    kind: GGMLType,
    imatrix: Imatrix | None = None,
) -> float:
    """Relative error of a tensor's outputs when it becomes `kind`; of a large tensor, of a sample."""
    return _Sample(file, tensor, imatrix).relative_error(quantizer, kind)


class _Sample:
    """Rows of one tensor, spread evenly, as float32 with the weights of their columns."""

    def __init__(self, file: GGUFFile, tensor: TensorInfo, imatrix: Imatrix | None) -> None:
        n_mats, rows, self.cols = matrices(tensor)
        weights = _weights(imatrix, tensor.name, n_mats)
        shares = _shares(imatrix, tensor.name, n_mats)
        n_runs = max(1, _SAMPLE_VALUES // (self.cols * _RUN_ROWS * n_mats))
        self.parts: list[tuple[F32, F32 | None, float]] = []
        stride = row_bytes(tensor.ggml_type, self.cols)
        data = file.data(tensor.name)
        for mat in range(n_mats):
            blocks = []
            for first in _spread(rows, n_runs):
                start = (mat * rows + first) * stride
                n = min(_RUN_ROWS, rows - first)
                raw = data[start : start + n * stride]
                blocks.append(dequantize(tensor.ggml_type, raw, (n, self.cols)))
            values = np.concatenate(blocks).astype(np.float32, copy=False)
            # A run stops at what is not finite, or makes it zero (--allow-nan).
            values = np.where(np.isfinite(values), values, np.float32(0))
            self.parts.append((values, None if weights is None else weights[mat], float(shares[mat])))
        file.release(tensor.name, 0, tensor.nbytes)
        self.power = 0.0
        for values, columns, share in self.parts:
            squares = np.einsum("rc,rc->c", values, values, dtype=np.float64)
            self.power += share * float(squares.sum() if columns is None else squares @ columns)

    def relative_error(self, quantizer: Quantizer, kind: GGMLType) -> float:
        if self.power == 0.0:
            return 0.0
        error = 0.0
        for values, weights, share in self.parts:
            out = np.empty((len(values), row_bytes(kind, self.cols)), np.uint8)
            found = quantizer.quantize(_view(values), 0, 0, kind, out, weights, measure=True)
            if found.bad_row is None:  # else F16 overflows: the run itself will stop there and name the row
                error += share * found.squared_error
        return error / self.power


def _weights(imatrix: Imatrix | None, name: str, n_mats: int) -> F32 | None:
    """Importance of columns, float32 [n_mats, cols]. An expert the text never reached gets the mean of the
    others, since here experts are compared with each other."""
    weights = None if imatrix is None else imatrix.weights(name, n_mats)
    if imatrix is None or weights is None:
        return None
    unreached = imatrix.tensors[name].counts == 0
    if len(unreached) != n_mats or not unreached.any() or unreached.all():
        return weights
    return np.where(unreached[:, None], weights[~unreached].mean(axis=0), weights)


def _shares(imatrix: Imatrix | None, name: str, n_mats: int) -> npt.NDArray[np.float64]:
    """How often each matrix of a stack was used, summing to the number of matrices."""
    found = None if imatrix is None else imatrix.tensors.get(name)
    if found is None or len(found.counts) != n_mats or not found.counts.any():
        return np.ones(n_mats)
    # An expert the text never reached still counts a little: another text may.
    counts = found.counts + 0.01 * found.counts.mean()
    shares: npt.NDArray[np.float64] = counts / counts.mean()
    return shares


def _spread(rows: int, n_runs: int) -> list[int]:
    """First rows of `n_runs` runs over `rows` rows; all rows where that is all there is."""
    if n_runs * _RUN_ROWS >= rows:
        return list(range(0, rows, _RUN_ROWS))
    return [i * (rows - _RUN_ROWS) // max(1, n_runs - 1) for i in range(n_runs)]


def _view(values: F32) -> TensorView:
    rows, cols = values.shape
    data = values.view(np.uint8).reshape(-1)
    return TensorView("sample", GGMLType.F32, data, 1, rows, cols, 4 * cols, values.nbytes)
