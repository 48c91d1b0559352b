"""From a recipe and a model's tensors to a type for each of them.

Names and exceptions are llama.cpp's (llama-quant.cpp): what is small and sensitive keeps its type, rows that
a type's blocks do not divide get a type of blocks that do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol

from pintpot.errors import UsageError
from pintpot.gguf.metadata import is_array, is_scalar, show
from pintpot.gguf.types import TYPES, GGMLType
from pintpot.quants.recipes import Recipe, Role, Traits, find_type

_LAYER: Final = re.compile(r"blk\.(\d+)\.")

# The first that the name contains.
_ROLES: Final = (
    ("attn_qkv.weight", Role.ATTN_V),
    ("attn_kv_b.weight", Role.ATTN_V),
    ("attn_v.weight", Role.ATTN_V),
    ("attn_k.weight", Role.ATTN_K),
    ("attn_q.weight", Role.ATTN_Q),
    ("attn_output.weight", Role.ATTN_OUTPUT),
    ("ffn_up", Role.FFN_UP),
    ("ffn_gate", Role.FFN_GATE),
    ("ffn_down", Role.FFN_DOWN),
)
_MANY_NAMES: Final = 1 << 14  # models share most of them, and every format asks for all
_EMBEDDINGS: Final = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})
_FFN: Final = frozenset({Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN})

# Tensors with one of these in their name keep their type: norms, routers, convolutions, positions and other
# small matrices, vision and audio parts.
_KEPT: Final = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel",
    "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight",
    "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight",
    "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight",
    "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight", "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.",
    "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_KEPT_NAMES: Final = frozenset({"position_embd.weight", "token_types.weight"})
_KEPT_BY_ARCH: Final[Mapping[str, tuple[str, ...]]] = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    ),
}  # fmt: skip
# Tensors that a recipe gives no less than Q8_0.
_FINE_BY_ARCH: Final[Mapping[str, tuple[str, ...]]] = {
    "glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj"),
}

# A type of blocks of 256, and its stand-in of blocks of 32.
_FALLBACK: Final = {
    GGMLType.Q2_K: GGMLType.Q4_0,
    GGMLType.Q3_K: GGMLType.Q4_0,
    GGMLType.Q4_K: GGMLType.Q5_0,
    GGMLType.Q5_K: GGMLType.Q5_1,
    GGMLType.Q6_K: GGMLType.Q8_0,
    GGMLType.IQ4_XS: GGMLType.IQ4_NL,
}


class TensorShape(Protocol):
    """What must be known of a tensor; `ne` is in GGUF order, a row's length first."""

    @property
    def name(self) -> str: ...
    @property
    def ggml_type(self) -> int: ...
    @property
    def ne(self) -> tuple[int, ...]: ...


class Why(StrEnum):
    """What decided a tensor's type."""

    KEPT = "kept"  # never quantized, or asked to be left alone
    BASE = "base"  # the recipe's type
    RULE = "rule"  # a rule of the recipe
    FLAG = "flag"  # the user
    BUDGET = "budget"  # the least error within a size
    FALLBACK = "fallback"  # rows are no whole blocks of the type wanted


@dataclass(frozen=True, slots=True)
class Choice:
    """The type a tensor gets, and why."""

    ggml_type: int
    why: Why


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the user asks for beyond the recipe. Patterns are searched in names, the first that fits wins."""

    tensor_types: tuple[tuple[re.Pattern[str], GGMLType], ...] = ()
    output: GGMLType | None = None
    token_embedding: GGMLType | None = None
    pure: bool = False  # the base type for every matrix, no rules
    leave_output: bool = False  # output.weight as it is
    within_budget: Mapping[str, GGMLType] = field(default_factory=dict)  # by name, in place of the recipe's

    def named_type(self, name: str) -> GGMLType | None:
        """The type the user names for the tensor called `name`; None when no flag is about it."""
        by_pattern = next((kind for pattern, kind in self.tensor_types if pattern.search(name)), None)
        # The per-layer embeddings follow the token embeddings unless a pattern names them.
        named = name == "per_layer_token_embd.weight" and by_pattern is not None
        if name in _EMBEDDINGS and self.token_embedding is not None and not named:
            return self.token_embedding
        if name == "output.weight" and self.output is not None:
            return self.output
        return by_pattern

    def constrains(self, name: str, *, tied: bool) -> bool:
        """Whether the tensor called `name` is not free to get a type that fits a budget."""
        head = self.output is not None and role_of(name, tied=tied) is Role.HEAD
        return head or self.named_type(name) is not None


def parse_tensor_type(text: str) -> tuple[re.Pattern[str], GGMLType]:
    """`PATTERN=TYPE` as --tensor-type takes it. Raises UsageError."""
    pattern, equals, kind = text.rpartition("=")
    if not pattern or not equals:
        raise UsageError(f"--tensor-type {show(text)}: expected PATTERN=TYPE, such as attn_v=q8_0")
    try:
        return re.compile(pattern, re.IGNORECASE), find_type(kind, "--tensor-type")
    except re.error as error:
        raise UsageError(f"--tensor-type {show(text)}: {error} in the pattern") from error


def traits_of(metadata: Mapping[str, object], *, importance: bool) -> Traits:
    """The traits of a model, from its GGUF metadata; what is missing counts as the format's default."""
    arch = metadata.get("general.architecture")
    arch = arch if isinstance(arch, str) else ""

    def first(key: str, default: int) -> int:
        value = metadata.get(f"{arch}.{key}", default)
        if isinstance(value, list) or is_array(value):
            value = value[0] if len(value) else default
        if is_scalar(value):
            value = value.item()
        return int(value) if isinstance(value, int) else default

    n_head = first("attention.head_count", 1)
    return Traits(
        arch,
        n_layer=first("block_count", 0),
        n_expert=first("expert_count", 0),
        n_head=n_head,
        n_head_kv=first("attention.head_count_kv", n_head),
        importance=importance,
    )


def may_quantize(tensor: TensorShape, arch: str = "") -> bool:
    """Whether recipes apply to a tensor at all: a matrix that is not small and sensitive."""
    name = tensor.name
    return n_dims(tensor.ne) > 1 and name.endswith("weight") and not _is_kept(name, arch)


@lru_cache(maxsize=_MANY_NAMES)
def _is_kept(name: str, arch: str) -> bool:
    return name in _KEPT_NAMES or any(part in name for part in (*_KEPT, *_KEPT_BY_ARCH.get(arch, ())))


def n_dims(ne: tuple[int, ...]) -> int:
    """Dimensions of a shape, trailing ones left out."""
    return max((i + 1 for i, n in enumerate(ne) if n > 1), default=1)


def fit_rows(kind: GGMLType, cols: int) -> GGMLType:
    """`kind`, or what stands in for it where rows of `cols` values are no whole blocks."""
    if cols % TYPES[kind].block_values:
        kind = _FALLBACK.get(kind, kind)
    return GGMLType.F16 if cols % TYPES[kind].block_values else kind


@lru_cache(maxsize=_MANY_NAMES)
def role_of(name: str, *, tied: bool) -> Role:
    """What the tensor called `name` does; `tied`: the model has no output.weight."""
    if name == "output.weight" or (tied and name in _EMBEDDINGS):
        return Role.HEAD
    if name in _EMBEDDINGS:
        return Role.TOKEN_EMBD
    return next((role for part, role in _ROLES if part in name), Role.OTHER)


def choose_types(
    recipe: Recipe, traits: Traits, tensors: Sequence[TensorShape], overrides: Overrides | None = None
) -> dict[str, Choice]:
    """The type of each of a model's tensors, in their order. `ggml_type` of a tensor is its present type."""
    chooser = _Chooser(recipe, traits, tensors, overrides or Overrides())
    chosen = {tensor.name: chooser.choose(tensor) for tensor in sorted(tensors, key=_layer_order)}
    return {tensor.name: chosen[tensor.name] for tensor in tensors}


def _layer_order(tensor: TensorShape) -> tuple[int, str]:
    """By layer, then name: the order in which layers are counted, whatever the file's."""
    match = _LAYER.match(tensor.name)
    return (int(match[1]) if match else -1), tensor.name


class _Chooser:
    """Counts layers as it goes: attention layers are counted among those that have a v projection."""

    def __init__(
        self, recipe: Recipe, traits: Traits, tensors: Sequence[TensorShape], overrides: Overrides
    ) -> None:
        self.recipe = recipe
        self.traits = traits
        self.overrides = overrides
        self.tied = all(tensor.name != "output.weight" for tensor in tensors)
        roles = [role_of(tensor.name, tied=self.tied) for tensor in tensors]
        self.n_layer = dict.fromkeys(_FFN, traits.n_layer) | {Role.ATTN_V: roles.count(Role.ATTN_V)}
        self.seen = dict.fromkeys(self.n_layer, 0)

    def choose(self, tensor: TensorShape) -> Choice:
        wishes, base = self.overrides, self.recipe.base
        left = wishes.leave_output and tensor.name == "output.weight"
        if base is None or left or not may_quantize(tensor, self.traits.arch):
            return Choice(tensor.ggml_type, Why.KEPT)
        kind = wishes.named_type(tensor.name)
        why = Why.FLAG
        if kind is None and tensor.name in wishes.within_budget:
            kind, why = wishes.within_budget[tensor.name], Why.BUDGET
        elif kind is None and self.recipe.quantizes and not wishes.pure:
            kind, why = self._rule(tensor)
        elif kind is None:
            kind, why = base, Why.BASE
        fitting = fit_rows(kind, tensor.ne[0])
        return Choice(fitting, why if fitting == kind else Why.FALLBACK)

    def _rule(self, tensor: TensorShape) -> tuple[GGMLType, Why]:
        assert self.recipe.base is not None
        name, traits = tensor.name, self.traits
        role = role_of(name, tied=self.tied)
        layer, n_layer = self._position(role, name)
        if any(part in name for part in _FINE_BY_ARCH.get(traits.arch, ())):
            return GGMLType.Q8_0, Why.RULE
        if role is Role.HEAD and self.overrides.output is not None:
            return self.overrides.output, Why.FLAG
        for rule in self.recipe.rules:
            if role not in rule.roles or not rule.layers.holds(layer, n_layer):
                continue
            if rule.experts_only and not self._is_expert(tensor, role):
                continue
            if all(given.holds(traits) for given in rule.given):
                return rule.type, Why.RULE
        return self.recipe.base, Why.BASE

    def _position(self, role: Role, name: str) -> tuple[int, int]:
        """(i, n): this is the i-th of n layers, as far as rules for its role count them."""
        if role not in self.seen:
            return 0, 1
        at = self.seen[role]
        self.seen[role] += 1
        match = _LAYER.match(name)
        # Experts and shared experts have several tensors a layer: there the name tells the layer.
        if role in _FFN and self.traits.n_expert > 1 and match:
            at = int(match[1])
        return at, self.n_layer[role]

    def _is_expert(self, tensor: TensorShape, role: Role) -> bool:
        # bailingmoe3 has other tensors of three dimensions, projections of its latent attention.
        return n_dims(tensor.ne) > 2 and (self.traits.arch != "bailingmoe3" or role in _FFN)
