"""Converting a Hugging Face folder to a GGUF file."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from pintpot.errors import ModelFileError, UsageError
from pintpot.gguf import GGMLType, GGUFWriter, TensorDecl, type_name
from pintpot.hf.checkpoint import Checkpoint
from pintpot.hf.config import Config, read_optional_json
from pintpot.hf.model_config import ModelConfig
from pintpot.hf.plan import OutType, Plan, PlannedTensor, make_plan
from pintpot.hf.rope import read_rope, rope_factors
from pintpot.hf.tokenizer import read_tokenizer
from pintpot.hf.values import Array, encode

# Called with (bytes written, bytes in all) after every piece.
Progress: TypeAlias = Callable[[int, int], None]

# llama.cpp's general.file_type (enum llama_ftype).
_FILE_TYPES: Final = {GGMLType.F32: 0, GGMLType.F16: 1, GGMLType.BF16: 32, GGMLType.MXFP4: 38}
# generation_config.json to general.sampling.*
_SAMPLING: Final = {
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "temperature": "temp",
    "repetition_penalty": "penalty_repeat",
}
_ROPE_FREQS: Final = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written. `notes`: what the folder holds and the file does not, a line each."""

    path: Path
    nbytes: int
    n_params: int
    arch: str
    file_type: str
    notes: tuple[str, ...]


def convert(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    outtype: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Writes the model in a Hugging Face `folder` (config.json, safetensors, tokenizer) as one GGUF file.

    `out` defaults to `<folder>/<name>-<TYPE>.gguf`. `outtype` is the type of matrices, f32, f16 or bf16;
    "auto" keeps each one's own, so that nothing is rounded. Vectors, norms and routers are F32 always, MXFP4
    experts stay MXFP4. Memory stays at about one matrix, and nothing is left behind when it fails.

    Raises UsageError when `out` exists and not `force`, or for an unknown `outtype`; UnsupportedError for a
    model or tensor this version does not know; ModelFileError for files that are missing, damaged or
    contradict each other.
    """
    folder = Path(folder)
    kind = _outtype(outtype)
    if not folder.is_dir():
        raise ModelFileError(f"{folder}: is no folder; give the one that holds config.json")
    if out is not None:
        _check_free(Path(out), force)  # before anything is read
    model = ModelConfig.read(folder)
    checkpoint = Checkpoint(folder)
    plan = make_plan(model, checkpoint, kind)
    metadata = model.metadata(plan.n_mtp)
    n_vocab = metadata[f"{model.arch}.vocab_size"]
    tokenizer = read_tokenizer(folder, model.arch, n_vocab, model.text)
    main_type = _main_type(plan)
    path = Path(out) if out is not None else folder / f"{folder.resolve().name}-{type_name(main_type)}.gguf"
    _check_free(path, force)
    values = _general(folder, model, main_type) | metadata | tokenizer.values
    overflowed = _write(path, values, plan, _factors(model, metadata), checkpoint, progress)
    notes = [*model.notes(), *tokenizer.notes]
    if plan.n_skipped:
        notes.append(
            f"{plan.n_skipped} tensors for images or sound are left out: the file holds the text model"
        )
    notes += [
        f"{name}: {n} values are too large for {type_name(main_type)} and became infinite: use bf16"
        for name, n in overflowed.items()
    ]
    n_params = sum(int(np.prod(t.shape)) for t in plan.tensors)
    return Conversion(path, path.stat().st_size, n_params, model.arch, type_name(main_type), tuple(notes))


def _outtype(name: str) -> OutType:
    try:
        return OutType(name.lower())
    except ValueError:
        known = ", ".join(kind.value for kind in OutType)
        raise UsageError(f"--outtype {name}: expected one of {known}") from None


def _check_free(path: Path, force: bool) -> None:
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of the file to write")
    if path.exists() and not force:
        raise UsageError(f"{path}: exists already; choose another name or give --force")


def _main_type(plan: Plan) -> GGMLType:
    """The type that most values of matrices have."""
    n_values: Counter[GGMLType] = Counter()
    for tensor in plan.tensors:
        if len(tensor.shape) > 1:
            n_values[tensor.ggml_type] += int(np.prod(tensor.shape))
    return n_values.most_common(1)[0][0]


def _general(folder: Path, model: ModelConfig, main_type: GGMLType) -> dict[str, Any]:
    values: dict[str, Any] = {
        "general.architecture": model.arch,
        "general.type": "model",
        "general.name": folder.resolve().name,
        "general.file_type": _FILE_TYPES[main_type],
        "general.quantization_version": 2,
    }
    path = folder / "generation_config.json"
    generation = Config(path, read_optional_json(path))
    for key, name in _SAMPLING.items():
        if key in generation:
            whole = key == "top_k"
            value = generation.integer(key, low=0) if whole else generation.number(key)
            values[f"general.sampling.{name}"] = value
    return values


def _factors(model: ModelConfig, metadata: dict[str, Any]) -> Array | None:
    """`rope_freqs.weight`, for full attention where layers differ."""
    head_dim = metadata.get(f"{model.arch}.attention.key_length", model.head_dim)
    return rope_factors(read_rope(model.text, model.kind), head_dim)


def _write(
    path: Path,
    metadata: dict[str, Any],
    plan: Plan,
    factors: Array | None,
    checkpoint: Checkpoint,
    progress: Progress | None,
) -> dict[str, int]:
    """Streams the file; returns how many values of which tensors became infinite."""
    declared = [TensorDecl(t.name, t.ggml_type, t.shape[::-1]) for t in plan.tensors]
    if factors is not None:
        declared.insert(0, TensorDecl(_ROPE_FREQS, GGMLType.F32, factors.shape))
    writer = GGUFWriter(path, metadata, declared)
    if path.parent.is_dir():
        free = shutil.disk_usage(path.parent).free
        if writer.nbytes > free:
            raise UsageError(
                f"{path}: the file needs {writer.nbytes / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free"
            )
    done, total = 0, sum(decl.nbytes for decl in declared)
    overflowed: dict[str, int] = {}
    with writer:
        if factors is not None:
            writer.write(_ROPE_FREQS, factors)
            done += factors.nbytes
        for tensor in plan.tensors:
            for piece, n_infinite in _pieces(tensor):
                writer.write(tensor.name, piece)
                done += piece.nbytes
                if n_infinite:
                    overflowed[tensor.name] = overflowed.get(tensor.name, 0) + n_infinite
                checkpoint.release()
                if progress is not None:
                    progress(done, total)
    return overflowed


def _pieces(tensor: PlannedTensor) -> Iterator[tuple[Array, int]]:
    for values, dtype in tensor.pieces():
        yield from encode(values, dtype, tensor.ggml_type)
