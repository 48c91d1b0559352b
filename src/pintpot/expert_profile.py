"""How often each expert of a model is chosen: from a file the user names, or the one beside the model's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pintpot.errors import PintpotError
from pintpot.quantization.importance import expert_counts, read_imatrix
from pintpot.runtime.experts import Profile
from pintpot.spec import ModelSpec, MoEFFN

NO_PROFILE: Final = "none"  # for --expert-profile: not even what lies beside the model
BESIDE: Final = ".imatrix.gguf"


def find_profile(
    asked: str | Path | None, model: Path, spec: ModelSpec
) -> tuple[Profile | None, tuple[str, ...]]:
    """The counts of the importance matrix `asked` for, else of `<model>.imatrix.gguf` where there is one; and
    lines for the user. What was not asked for and is of no use is left out, and said. Raises ModelFileError
    for a file that was asked for and is none."""
    if asked is not None:
        return (None if str(asked) == NO_PROFILE else expert_counts(read_imatrix(asked))), ()
    beside = model.with_name(model.name.removesuffix(".gguf") + BESIDE)
    if not beside.is_file() or not any(isinstance(layer.ffn, MoEFFN) for layer in spec.layers):
        return None, ()
    try:
        profile = expert_counts(read_imatrix(beside))
    except PintpotError as error:
        return None, (f"no expert profile: {error}",)
    if not all(_fits(spec, layer, len(counts)) for layer, counts in profile.items()):
        return None, (f"no expert profile: {beside} was made of another model",)
    return profile, (f"experts begin as {beside.name} beside the model says (--expert-profile)",)


def _fits(spec: ModelSpec, layer: int, n_expert: int) -> bool:
    ffn = spec.layers[layer].ffn if layer < len(spec.layers) else None
    return isinstance(ffn, MoEFFN) and ffn.n_expert == n_expert
