"""Writing a synthetic model file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pintpot.errors import UsageError
from pintpot.gguf import TYPES, GGMLType, GGUFWriter, TensorDecl, TypeInfo
from pintpot.quants.choice import Overrides, choose_types, traits_of
from pintpot.quants.recipes import Recipe, find_recipe
from pintpot.spec.shape import Shape
from pintpot.synth.metadata import model_metadata
from pintpot.synth.presets import find_shape
from pintpot.synth.tensors import Tensor, tensor_table
from pintpot.synth.vocab import tokenizer_metadata
from pintpot.synth.weights import WeightMaker

# Called with (bytes written, bytes in all) after every piece of at most some 16 MB.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Synthesized:
    """What was written."""

    path: Path
    nbytes: int
    n_params: int
    shape: Shape


def synthesize(
    path: Path,
    arch: str,
    *,
    quant: str = "Q4_K_M",
    preset: str | None = None,
    n_layer: int | None = None,
    pure: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Synthesized:
    """Writes a random-weight GGUF of a real shape to `path`.

    `arch` is an architecture (its usual size is taken) or a preset's name; `preset` picks another size, or
    "toy"; `n_layer` cuts the model; `quant` names a recipe (quants.recipes), of which `pure` takes the base
    type for every matrix. The same arguments give the same bytes. Memory stays under about 300 MB whatever
    the size. Raises UsageError for unknown names or when the disk is too small, PintpotError when the file
    cannot be written.
    """
    shape = find_shape(arch, preset)
    if n_layer is not None:
        shape = shape.with_layers(n_layer)
    return write_model(path, shape, quant=quant, pure=pure, seed=seed, progress=progress)


def write_model(
    path: Path,
    shape: Shape,
    *,
    quant: str = "F32",
    pure: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Synthesized:
    """Writes a model of any shape; see `synthesize`."""
    recipe = find_recipe(quant, "--quant")
    if recipe.file_type is None:
        raise UsageError(f"--quant {recipe.name}: there is nothing to copy, choose a type")
    table = tensor_table(shape)
    metadata = model_metadata(shape, recipe.file_type) | tokenizer_metadata(shape)
    types = tensor_types(recipe, shape, table, pure=pure)
    declarations = [TensorDecl(t.name, types[t.name].id, t.shape[::-1]) for t in table]
    writer = GGUFWriter(path, metadata, declarations)
    if path.parent.is_dir():
        free = shutil.disk_usage(path.parent).free
        if writer.nbytes > free:
            raise UsageError(
                f"{path}: the file needs {writer.nbytes / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB "
                "free: choose fewer --layers or a smaller --quant"
            )
    maker = WeightMaker(shape, types, seed)
    done, total = 0, sum(d.nbytes for d in declarations)
    with writer:
        for tensor in table:
            for piece in maker.pieces(tensor):
                writer.write(tensor.name, piece)
                done += piece.nbytes
                if progress is not None:
                    progress(done, total)
    return Synthesized(path, writer.nbytes, sum(t.n_values for t in table), shape)


def tensor_types(
    recipe: Recipe, shape: Shape, table: Sequence[Tensor], *, pure: bool = False
) -> dict[str, TypeInfo]:
    """The type of each tensor of a model made by `recipe`; what it leaves alone is F32."""
    traits = traits_of(model_metadata(shape, recipe.file_type or 0), importance=False)
    sources = [TensorDecl(t.name, GGMLType.F32, t.shape[::-1]) for t in table]
    choices = choose_types(recipe, traits, sources, Overrides(pure=pure))
    return {name: TYPES[choice.ggml_type] for name, choice in choices.items()}
