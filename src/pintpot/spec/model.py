"""ModelSpec and how it is read from a file."""

from __future__ import annotations

from dataclasses import dataclass

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.gguf.metadata import show
from pintpot.gguf.reader import GGUFFile
from pintpot.spec.architectures import ARCHITECTURES, Common, read_common
from pintpot.spec.keys import Keys
from pintpot.spec.layers import LayerSpec


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model's shape. Layers of multi-token prediction (MTP) are counted apart and not run."""

    arch: str  # `general.architecture`, verbatim
    name: str
    n_layer: int  # without MTP layers
    n_layer_mtp: int
    n_embd: int
    n_vocab: int
    ctx_train: int
    norm_eps: float
    layers: tuple[LayerSpec, ...]
    tied_output: bool  # `output.weight` is absent: the token embedding is used
    logit_softcap: float | None = None
    n_embd_per_layer: int = 0  # Gemma 4 E2B/E4B: width of the per-layer token embeddings

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> ModelSpec:
        """Read and check the spec of an open file.

        Raises UnsupportedError for an architecture this version does not know, ModelFileError, naming the
        metadata key or tensor, for one that is missing, impossible, or contradicts another.
        """
        arch = file.metadata.get("general.architecture")
        if not isinstance(arch, str):
            raise ModelFileError(
                f"{file.path}: metadata key general.architecture is {show(arch)}, expected a model's name"
            )
        read_layers = ARCHITECTURES.get(arch)
        if read_layers is None:
            raise UnsupportedError(
                f"{file.path}: architecture {show(arch)} is not supported, these are:"
                f" {', '.join(ARCHITECTURES)}"
            )
        keys = Keys(file, arch)
        common = read_common(keys)
        n_vocab = _check_tensors(file, common)
        softcap = keys.number("final_logit_softcapping", 0.0, high=1e6) if arch == "gemma4" else 0.0
        per_layer = 0
        if arch == "gemma4":
            per_layer = keys.integer("embedding_length_per_layer_input", low=0)
        return cls(
            arch=arch,
            name=_display_name(file),
            n_layer=common.n_layer,
            n_layer_mtp=common.n_layer_mtp,
            n_embd=common.n_embd,
            n_vocab=n_vocab,
            ctx_train=common.ctx_train,
            norm_eps=keys.number("attention.layer_norm_rms_epsilon", high=1.0),
            layers=tuple(read_layers(keys, common)),
            tied_output="output.weight" not in file.tensors,
            logit_softcap=softcap or None,
            n_embd_per_layer=per_layer,
        )


def _display_name(file: GGUFFile) -> str:
    """`general.name`, or the file's; without control characters, since it is printed to terminals."""
    name = file.metadata.get("general.name")
    if not isinstance(name, str) or not name.strip():
        name = file.path.stem
    return "".join(c if c.isprintable() else " " for c in name[:200]).strip()


def _check_tensors(file: GGUFFile, common: Common) -> int:
    """Vocabulary size; raises ModelFileError where tensors and metadata contradict each other."""
    embd = file.tensors.get("token_embd.weight")
    if embd is None:
        raise ModelFileError(f"{file.path}: tensor token_embd.weight is missing: this is no whole model")
    if len(embd.ne) != 2 or embd.ne[0] != common.n_embd:
        raise ModelFileError(
            f"{file.path}: tensor token_embd.weight has shape {list(embd.shape)}, the metadata says"
            f" embedding_length {common.n_embd}"
        )
    n_vocab = embd.ne[1]
    if n_vocab >= 1 << 31:
        raise ModelFileError(f"{file.path}: tensor token_embd.weight has {n_vocab} rows, no vocabulary has")
    if "tokenizer.ggml.tokens" in file.metadata:
        array = file.metadata.array_info("tokenizer.ggml.tokens")
        if array is None or array[1] > n_vocab:
            raise ModelFileError(
                f"{file.path}: metadata key tokenizer.ggml.tokens holds"
                f" {array[1] if array else 'no array of'} tokens, token_embd.weight has {n_vocab} rows"
            )
    for layer in range(common.n_layer):
        if f"blk.{layer}.attn_norm.weight" not in file.tensors:
            raise ModelFileError(
                f"{file.path}: tensor blk.{layer}.attn_norm.weight is missing, the metadata says the model"
                f" has {common.n_layer} layers"
            )
    return n_vocab
