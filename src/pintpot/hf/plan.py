"""Which tensors a GGUF file gets, of what type, and from which tensors of the checkpoint."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.gguf import GGMLType
from pintpot.hf.checkpoint import Checkpoint
from pintpot.hf.model_config import ModelConfig
from pintpot.hf.names import MTP, TOP_LEVEL, Table, Target, layer_table, top_level_transform
from pintpot.hf.safetensors import StoredTensor
from pintpot.hf.shapes import expected_shape
from pintpot.hf.transforms import Shape, Transform, by_expert
from pintpot.hf.values import Array, to_float32


class OutType(StrEnum):
    """Type of the matrices in the file; `auto` keeps each one's own. Vectors, norms and routers are F32."""

    AUTO = "auto"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"


_STORED: Final = MappingProxyType({"F32": GGMLType.F32, "F16": GGMLType.F16, "BF16": GGMLType.BF16})
_OUT: Final = MappingProxyType(
    {OutType.F32: GGMLType.F32, OutType.F16: GGMLType.F16, OutType.BF16: GGMLType.BF16}
)
# Matrices that engines read as F32 (llama.cpp, conversion/base.py).
_ALWAYS_F32: Final = frozenset({"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_conv1d.weight"})
_LAYER: Final = re.compile(r"(model|mtp)\.layers\.(\d{1,4})\.(.+)")
_EXPERT: Final = re.compile(r"(.*experts)\.(\d{1,5})\.(.+)")
# Towers for images and sound, and what joins them to the language model.
_OTHER_MODALITIES: Final = re.compile(
    r"(model\.)?(visual|vision_tower|audio_tower|embed_vision|embed_audio|vision_embedder"
    r"|multi_modal_projector|vision_model)\."
)
_IGNORED: Final = re.compile(r".*\.rotary_emb\.inv_freq")  # computed from the config; old files have it


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """`shape` is outermost dimension first. Every group of `sources` is the arguments of `transform`, one
    group an expert; with `stacked`, one group of tensors that hold all experts along the first axis."""

    name: str
    ggml_type: GGMLType
    shape: Shape
    sources: tuple[tuple[StoredTensor, ...], ...]
    transform: Transform
    stacked: bool

    def pieces(self) -> Iterator[tuple[Array, str]]:
        """The values from first to last in pieces, each with its stored dtype."""
        for group in self.sources:
            dtype = group[0].dtype
            arrays = tuple(tensor.array() for tensor in group)
            results = (
                by_expert(self._apply(dtype), arrays) if self.stacked else (self._apply(dtype)(*arrays),)
            )
            for result in results:
                yield result, "F32" if self.transform.computes else dtype

    def _apply(self, dtype: str) -> Any:
        if not self.transform.computes:
            return self.transform.apply
        return lambda x: self.transform.apply(to_float32(x, dtype))


@dataclass(frozen=True, slots=True)
class Plan:
    """`n_skipped`: tensors of other modalities. `n_mtp`: multi-token prediction layers."""

    tensors: tuple[PlannedTensor, ...]
    n_mtp: int
    n_skipped: int


_Source: TypeAlias = tuple[int, tuple[StoredTensor, ...]]  # expert, and the arguments of the transform


def make_plan(model: ModelConfig, checkpoint: Checkpoint, outtype: OutType) -> Plan:
    """Raises UnsupportedError for a tensor that belongs to no known model, ModelFileError for one that is
    missing or has the wrong shape."""
    planner = _Planner(model, checkpoint)
    metadata = model.metadata(planner.n_mtp)
    _check_complete(model, checkpoint, planner)
    tensors = [planner.finish(name, metadata, outtype) for name in sorted(planner.found, key=_order)]
    return Plan(tuple(tensors), planner.n_mtp, planner.n_skipped)


class _Planner:
    """Collects the sources of each GGUF tensor."""

    def __init__(self, model: ModelConfig, checkpoint: Checkpoint) -> None:
        self.model = model
        self.checkpoint = checkpoint
        self.n_skipped = 0
        self.n_mtp = 0
        self.table: Table = layer_table(model)
        self.found: dict[str, tuple[Target, list[_Source]]] = {}
        self.layers: defaultdict[int, set[str]] = defaultdict(set)
        names: dict[str, StoredTensor] = {}
        for tensor in checkpoint.tensors.values():
            twin = names.setdefault(_canonical(tensor.name), tensor)
            if twin is not tensor:
                raise self._error(tensor, f"is there twice: {twin.name} is the same weight")
        for name in names:
            match = _LAYER.fullmatch(name)
            if match is not None and match[1] == "mtp":
                self.n_mtp = max(self.n_mtp, int(match[2]) + 1)
        for name, tensor in names.items():
            if _OTHER_MODALITIES.match(name):
                self.n_skipped += 1
            elif not _IGNORED.fullmatch(name) and not (name == "lm_head.weight" and model.tied):
                self._add(name, tensor, names)

    def _add(self, name: str, tensor: StoredTensor, names: Mapping[str, StoredTensor]) -> None:
        if name in TOP_LEVEL:
            self._put(TOP_LEVEL[name], self._single(TOP_LEVEL[name]), -1, (tensor,))
            return
        if name in MTP and self.n_mtp:
            target = f"blk.{self.model.n_layer}.{MTP[name]}"
            self._put(target, self._single(target), -1, (tensor,))
            return
        match = _LAYER.fullmatch(name)
        if match is None:
            raise self._unknown(tensor)
        layer = int(match[2]) + (self.model.n_layer if match[1] == "mtp" else 0)
        if match[1] == "model" and layer >= self.model.n_layer:
            raise self._error(tensor, f"is of layer {layer}, config.json says {self.model.n_layer} layers")
        if (match[1] == "mtp") and self.model.arch not in ("qwen35", "qwen35moe"):
            raise self._unknown(tensor)
        rest = match[3]
        arguments: tuple[StoredTensor, ...] = (tensor,)
        if rest.endswith("_scales") and rest.removesuffix("_scales") + "_blocks" in self.table:
            return  # comes with its blocks
        if rest.endswith("_blocks"):
            scales = names.get(name.removesuffix("_blocks") + "_scales")
            if scales is None:
                raise self._error(tensor, "has no _scales beside it")
            arguments = (tensor, scales)
        expert = -1
        if (numbered := _EXPERT.fullmatch(rest)) is not None:
            expert = int(numbered[2])
            rest = f"{numbered[1]}.{{e}}.{numbered[3]}"
        targets = self.table.get(rest)
        if targets is None:
            raise self._unknown(tensor)
        self.layers[layer].add(re.sub("_blocks$", "", rest))
        for part in targets:
            self._put(f"blk.{layer}.{part.name}", part, expert, arguments)

    def _single(self, gguf_name: str) -> Target:
        return Target(gguf_name, top_level_transform(self.model, gguf_name))

    def _put(self, name: str, target: Target, expert: int, arguments: tuple[StoredTensor, ...]) -> None:
        known = self.found.setdefault(name, (target, []))[1]
        if known and (expert < 0 or known[0][0] < 0):
            raise self._error(arguments[0], f"is there twice: {known[0][1][0].name} is the same weight")
        known.append((expert, arguments))

    def finish(self, name: str, metadata: Mapping[str, Any], outtype: OutType) -> PlannedTensor:
        """The tensor `name`, its sources complete and of the right shape."""
        target, sources = self.found[name]
        sources.sort(key=lambda source: source[0])
        groups = tuple(arguments for _, arguments in sources)
        first = groups[0][0]
        numbered = sources[0][0] >= 0
        stacked = target.stacked and not numbered
        for group in groups:
            self._check_source(group, target, stacked)
            if group[0].shape != first.shape:
                raise self._error(
                    group[0], f"has shape {list(group[0].shape)}, {first.name} {list(first.shape)}"
                )
        expected = expected_shape(self.model.arch, metadata, name)
        if numbered and [expert for expert, _ in sources] != list(range(expected[0])):
            have = {expert for expert, _ in sources}
            missing = next((e for e in range(expected[0]) if e not in have), max(have))
            raise ModelFileError(
                f"{self.checkpoint.folder}: {name} has {expected[0]} experts, says config.json: expert"
                f" {missing} is missing or too many: the files are incomplete or of another model"
            )
        shape = _result_shape(target.transform, first.shape, len(groups) if numbered else None, stacked)
        if shape != expected:
            raise self._error(
                first,
                f"has shape {list(first.shape)}, which makes {name} {list(shape)}, config.json says"
                f" {list(expected)}",
            )
        return PlannedTensor(
            name=name,
            ggml_type=_choose_type(name, shape, target, {group[0].dtype for group in groups}, outtype),
            shape=shape,
            sources=groups,
            transform=target.transform,
            stacked=stacked,
        )

    def _check_source(self, group: tuple[StoredTensor, ...], target: Target, stacked: bool) -> None:
        wanted = ("U8",) if target.transform.packed else tuple(_STORED)
        for tensor in group:
            if tensor.dtype not in wanted:
                raise UnsupportedError(
                    f"{tensor.file.path}: tensor {tensor.name} is {tensor.dtype}, expected"
                    f" {' or '.join(wanted)}"
                )
        if stacked and len(group[0].shape) < 2:
            raise self._error(group[0], f"has shape {list(group[0].shape)}, expected one of all experts")
        if target.transform.packed:
            blocks, scales = group
            if len(blocks.shape) != 4 or blocks.shape != (*scales.shape, 16):
                raise self._error(
                    blocks,
                    f"has shape {list(blocks.shape)}, its scales {list(scales.shape)}: expected"
                    " [experts, rows, blocks, 16]",
                )

    def _error(self, tensor: StoredTensor, problem: str) -> ModelFileError:
        return ModelFileError(f"{tensor.file.path}: tensor {tensor.name} {problem}")

    def _unknown(self, tensor: StoredTensor) -> UnsupportedError:
        return UnsupportedError(
            f"{tensor.file.path}: tensor {tensor.name} is not part of a {self.model.arch} model as this"
            " version knows it"
        )


def _canonical(name: str) -> str:
    """Names of the language model inside a larger one as if it stood alone."""
    for prefix, plain in (("model.language_model.", "model."), ("language_model.", "")):
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name


def _order(name: str) -> tuple[int, int, str]:
    """Input, layers, output."""
    if name.startswith("blk."):
        _, layer, stem = name.split(".", 2)
        return 1, int(layer), stem
    return (2 if name.startswith("output") else 0), 0, name


def _result_shape(transform: Transform, stored: Shape, n_groups: int | None, stacked: bool) -> Shape:
    if stacked:
        return (stored[0], *transform.shape(stored[1:]))
    one = transform.shape(stored)
    return one if n_groups is None else (n_groups, *one)


def _choose_type(name: str, shape: Shape, target: Target, stored: set[str], outtype: OutType) -> GGMLType:
    if target.transform.packed:
        return GGMLType.MXFP4
    stem = name.split(".", 2)[2] if name.startswith("blk.") else name
    is_vector = len(shape) == 1 or not name.endswith(".weight") or name.endswith("_norm.weight")
    if is_vector or stem in _ALWAYS_F32:
        return GGMLType.F32
    if outtype is OutType.AUTO:
        return _STORED[next(iter(stored))] if len(stored) == 1 else GGMLType.F32
    return _OUT[outtype]


def _check_complete(model: ModelConfig, checkpoint: Checkpoint, planner: _Planner) -> None:
    """Raises ModelFileError when something every model has is missing, or layers of one kind differ."""
    needed = ["token_embd.weight", "output_norm.weight"]
    if model.tied is False:
        needed.append("output.weight")
    for name in needed:
        if name not in planner.found:
            stored = next(hf for hf, gguf in TOP_LEVEL.items() if gguf == name)
            raise ModelFileError(f"{checkpoint.folder}: no file has the tensor {stored}: download them again")
    kinds: dict[str, int] = {}
    types = model.layer_types or ["" for _ in range(model.n_layer)]
    n_shared = model.text.integer("num_kv_shared_layers", 0, low=0)
    for layer in range(model.n_layer):
        kind = f"{types[layer]} {layer >= model.n_layer - n_shared}"
        first = kinds.setdefault(kind, layer)
        odd = sorted(planner.layers[layer] ^ planner.layers[first])
        if odd or not planner.layers[layer]:
            lacking = first if odd and odd[0] in planner.layers[layer] else layer
            what = odd[0] if odd else "any tensor"
            raise ModelFileError(
                f"{checkpoint.folder}: layer {lacking} lacks {what}, which other layers of its kind have:"
                " the files are incomplete, download them again"
            )
