"""The models whose tensor types are held to llama-quantize's answers, and how answers are written down."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pintpot.gguf import GGMLType, TensorDecl, type_name
from pintpot.quants.choice import Overrides, choose_types, parse_tensor_type, traits_of
from pintpot.quants.recipes import RECIPES, Recipe
from pintpot.spec.shape import Experts, Shape
from pintpot.synth.metadata import MetadataValue, model_metadata
from pintpot.synth.presets import PRESETS, TOYS
from pintpot.synth.tensors import tensor_table

_LAYER = re.compile(r"^blk\.(\d+)\.")

# Shapes that reach rules which no preset or toy does.
_MORE: dict[str, Shape] = {
    "llama-70b": replace(PRESETS["llama-3.1-8b"], n_layer=80, n_embd=8192, n_head=64, n_ff=28672),
    "llama-65b": replace(PRESETS["llama-3.1-8b"], n_layer=80, n_embd=8192, n_head=64, n_head_kv=64),
    "qwen2-72b": replace(PRESETS["qwen2.5-7b"], n_layer=80, n_embd=8192, n_head=64, n_head_kv=8),
    "llama-mha": replace(PRESETS["mistral-7b"], n_layer=17, n_head_kv=32),
    "llama-fused": replace(TOYS["llama"], fused_qkv=True, n_layer=19),
    "llama-tied": replace(TOYS["llama"], tied=True, n_layer=9),
    "llama-1-layer": replace(TOYS["llama"], n_layer=1),
    "llama-8-experts": replace(TOYS["mixtral"], n_layer=18, experts=Experts(8, 2, 256)),
    "llama-rows-32": replace(TOYS["llama"], n_layer=18, n_embd=288, n_ff=480),
    "llama-rows-8": replace(TOYS["llama"], n_layer=18, n_embd=264, n_head=8, head_dim=33, n_ff=520),
    "qwen3-rows-32-tied": replace(TOYS["qwen3"], n_embd=224, n_ff=544),
    "qwen3moe-rows-32": replace(TOYS["qwen3moe"], n_layer=16, experts=Experts(10, 4, 96)),
    "qwen3moe-rows-8": replace(TOYS["qwen3moe"], experts=Experts(10, 4, 72)),
    "qwen35-mtp": replace(TOYS["qwen35"], n_layer=16, n_mtp=1),
    "qwen35moe-fused-mtp": replace(TOYS["qwen35moe"], n_layer=16, fused_gate_up=True, n_mtp=1),
    "gemma4-fused": replace(TOYS["gemma4"], k_eq_v=False, n_head_kv=4, fused_qkv=True),
    "gemma4-e-rows-8": replace(TOYS["gemma4-e"], n_embd=264),
    "gpt-oss-fused-288": replace(TOYS["gpt-oss"], n_embd=288, fused_qkv=True),
}
SHAPES: dict[str, Shape] = {**PRESETS, **{f"toy-{name}": shape for name, shape in TOYS.items()}, **_MORE}


# Flags of llama-quantize, and what they are to us.
_PATTERNS = ("attn_q=q8_0", r"blk\.[0-2]\.ffn_down=f16", "ffn_(up|gate)=iq4_nl", "per_layer_tok=q2_k")
FLAGS: dict[str, Overrides] = {
    "": Overrides(),
    "--pure": Overrides(pure=True),
    "--leave-output-tensor": Overrides(leave_output=True),
    "--output-tensor-type q5_k --token-embedding-type q3_k": Overrides(
        output=GGMLType.Q5_K, token_embedding=GGMLType.Q3_K
    ),
    "--output-tensor-type f16": Overrides(output=GGMLType.F16),
    " ".join(f"--tensor-type {p}" for p in _PATTERNS): Overrides(
        tensor_types=tuple(parse_tensor_type(p) for p in _PATTERNS)
    ),
}
# Where flags are compared: their types must fit the rows, without that llama-quantize fails.
_FLAG_SHAPES = frozenset(
    {"llama-3.1-8b", "qwen3.5-35b-a3b", "gemma-4-e2b", "toy-qwen3", "toy-gemma4-moe", "llama-8-experts"}
)
_FLAG_RECIPES = frozenset({"Q8_0", "Q4_K_M", "Q3_K_L", "Q2_K", "IQ4_XS", "Q4_0", "MXFP4_MOE"})


def questions(shape: str) -> Iterator[tuple[str, Recipe, str, bool]]:
    """(key in the file of answers, recipe, flags, whether there is an importance matrix)."""
    for recipe in RECIPES.values():
        for flags in FLAGS:
            if flags and not (shape in _FLAG_SHAPES and recipe.name in _FLAG_RECIPES):
                continue
            for importance in (False, True):
                if importance and flags:
                    continue
                words = (flags, recipe.name, "with importance" if importance else "")
                yield " ".join(filter(None, words)), recipe, flags, importance


@dataclass(frozen=True, slots=True)
class Case:
    """A model as F16 would have it: metadata without a tokenizer, and its tensors."""

    metadata: Mapping[str, MetadataValue]
    tensors: tuple[TensorDecl, ...]


def case(name: str) -> Case:
    """The model of one of SHAPES, all matrices F16."""
    shape = SHAPES[name]
    tensors = tuple(
        TensorDecl(
            t.name, GGMLType.F16 if len(t.shape) > 1 and t.name.endswith("weight") else GGMLType.F32,
            t.shape[::-1],
        )
        for t in tensor_table(shape)
    )  # fmt: skip
    return Case(model_metadata(shape, 1), tensors)


def our_types(model: Case, recipe: Recipe, flags: str = "", *, importance: bool = False) -> dict[str, str]:
    """The names of the types we choose."""
    traits = traits_of(model.metadata, importance=importance)
    chosen = choose_types(recipe, traits, model.tensors, FLAGS[flags])
    return {name: type_name(choice.ggml_type) for name, choice in chosen.items()}


def summarize(types: Mapping[str, str]) -> list[str]:
    """Types by tensor in a few lines, such as `blk.*.attn_v.weight 0-3,5 Q6_K`."""
    layers: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for name, kind in types.items():
        match = _LAYER.match(name)
        stem = f"blk.*.{name[match.end() :]}" if match else name
        layers[stem, kind].append(int(match[1]) if match else -1)
    return sorted(f"{stem} {_runs(found)} {kind}" for (stem, kind), found in layers.items())


def _runs(numbers: list[int]) -> str:
    """0-3,5 for [0, 1, 2, 3, 5]; - for the number -1."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and parts[-1][-1] == n - 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ",".join("-" if p == [-1] else f"{p[0]}-{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in parts)
