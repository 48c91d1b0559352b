"""Which type each tensor gets in a Q4_K_M and every other mix, as data.

A `Recipe` is a base type and rules. A rule says: tensors of these roles, in these layers, given these traits
of the model, get this type; the first that fits wins. `choice.choose_types` applies a recipe to a model.

The choices are those of llama.cpp's `llama-quantize` (llama-quant.cpp, as of November 2026), so that files
have the sizes and the quality that people know these names for; tests hold them to its own answers
(tests/unit/quants/recipes_expected.json).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pintpot.errors import UsageError
from pintpot.gguf.metadata import show
from pintpot.gguf.types import GGMLType
from pintpot.quants.names import parse_quant


class Role(StrEnum):
    """What a tensor does, as far as choosing its type goes."""

    HEAD = "head"  # output.weight, or the token embeddings where they serve as output too
    TOKEN_EMBD = "token_embd"
    ATTN_Q = "attn_q"
    ATTN_K = "attn_k"
    ATTN_V = "attn_v"  # and the fused attn_qkv and attn_kv_b
    ATTN_OUTPUT = "attn_output"
    FFN_GATE = "ffn_gate"
    FFN_UP = "ffn_up"
    FFN_DOWN = "ffn_down"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Traits:
    """What rules may ask about a model."""

    arch: str
    n_layer: int  # all of them, those of multi-token prediction included
    n_expert: int = 0
    n_head: int = 1  # of the first layer
    n_head_kv: int = 1
    importance: bool = False  # whether an importance matrix is at hand

    @property
    def gqa(self) -> int:
        """Query heads that share a KV head; 0 where the first layer has none."""
        return self.n_head // self.n_head_kv if self.n_head_kv else 0

    @property
    def is_70b(self) -> bool:
        """llama.cpp's size class "70B", which it gives by architecture and depth."""
        if self.arch == "llama":
            return self.n_layer == 80 and self.n_head != self.n_head_kv
        return self.n_layer == {"qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}.get(self.arch)


@dataclass(frozen=True, slots=True)
class Given:
    """A condition on the model."""

    text: str
    holds: Callable[[Traits], bool]


@dataclass(frozen=True, slots=True)
class Layers:
    """A choice of layers: `holds(i, n)` for the i-th of n."""

    text: str
    holds: Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """Tensors of `roles`, in `layers`, get `type` if every condition of `given` holds."""

    roles: frozenset[Role]
    type: GGMLType
    layers: Layers
    given: tuple[Given, ...] = ()
    experts_only: bool = False  # tensors that hold a matrix for each expert

    def __str__(self) -> str:
        what = ", ".join(sorted(self.roles)) if len(self.roles) < len(Role) else "every tensor"
        experts = " of experts" if self.experts_only else ""
        where = f" in {self.layers.text}" if self.layers is not EVERY else ""
        given = f" if {' and '.join(g.text for g in self.given)}" if self.given else ""
        return f"{what}{experts}{where}: {self.type.name}{given}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to quantize a model. `base` is the type of every matrix that no rule names; None: keep all."""

    name: str
    file_type: int | None  # llama.cpp's number in `general.file_type`; None: as in the source
    base: GGMLType | None
    rules: tuple[Rule, ...] = ()
    needs_importance: GGMLType | None = None  # tensors of this type are poor without an importance matrix

    @property
    def quantizes(self) -> bool:
        return self.base is not None and self.base not in FLOATS

    def __str__(self) -> str:
        """The recipe in words, a line for the base type and one a rule, in order of precedence."""
        base = f"{self.name}: {self.base.name if self.base is not None else 'every tensor as it is'}"
        return "\n".join([base, *(f"  {rule}" for rule in self.rules)])


FLOATS: Final = frozenset({GGMLType.F32, GGMLType.F16, GGMLType.BF16})

EVERY: Final = Layers("every layer", lambda i, n: True)  # noqa: ARG005 - one signature
_FIRST_2: Final = Layers("the first 2", lambda i, n: i < 2)  # noqa: ARG005
_FIRST_4: Final = Layers("the first 4", lambda i, n: i < 4)  # noqa: ARG005
_SIXTEENTH: Final = Layers("the first sixteenth", lambda i, n: i < n // 16)
_EIGHTH: Final = Layers("the first eighth", lambda i, n: i < n // 8)
_SPREAD: Final = Layers(
    "the first and last eighth and every third between",
    lambda i, n: i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2,
)

_EIGHT_EXPERTS: Final = Given("it has 8 experts", lambda t: t.n_expert == 8)
_NOT_8_EXPERTS: Final = Given("it has not 8 experts", lambda t: t.n_expert != 8)
_GQA_4: Final = Given("4 or more heads share a KV head", lambda t: t.gqa >= 4)
_70B: Final = Given("it is a 70B", lambda t: t.is_70b)
_FALCON: Final = Given("it is a Falcon", lambda t: t.arch == "falcon")
_NO_FALCON: Final = Given("it is no Falcon", lambda t: t.arch != "falcon")
_IMPORTANCE: Final = Given("there is an importance matrix", lambda t: t.importance)
_NO_IMPORTANCE: Final = Given("there is no importance matrix", lambda t: not t.importance)

_HEAD: Final = frozenset({Role.HEAD})
_V: Final = frozenset({Role.ATTN_V})
_V_K: Final = frozenset({Role.ATTN_V, Role.ATTN_K})
_OUT: Final = frozenset({Role.ATTN_OUTPUT})
_DOWN: Final = frozenset({Role.FFN_DOWN})
_ALL: Final = frozenset(Role)

_T = GGMLType


def _rule(roles: frozenset[Role], kind: GGMLType, *given: Given, layers: Layers = EVERY) -> Rule:
    return Rule(roles, kind, layers, given)


def _mix(name: str, number: int, base: GGMLType, *rules: Rule, head: GGMLType = _T.Q6_K) -> Recipe:
    """A recipe with what all mixes have in common: a finer head, and attention of 8-expert models."""
    common = (
        _rule(_HEAD, _T.Q8_0, _FALCON),
        _rule(_HEAD, head),
        _rule(_V_K, _T.Q8_0, _EIGHT_EXPERTS),
    )
    needs = base if name == "Q2_K_S" else None
    return Recipe(name, number, base, (*common, *rules), needs)


_OUT_8_EXPERTS: Final = _rule(_OUT, _T.Q5_K, _NO_FALCON, _EIGHT_EXPERTS)
_V_70B: Final = _rule(_V, _T.Q5_K, _70B)
_IQ4_RULES: Final = (
    _rule(_V, _T.Q5_K, _GQA_4),
    _rule(_DOWN, _T.Q5_K, _NO_IMPORTANCE, layers=_EIGHTH),
    _OUT_8_EXPERTS,
)

_RECIPES: Final = (
    Recipe("F32", 0, _T.F32),
    Recipe("F16", 1, _T.F16),
    Recipe("BF16", 32, _T.BF16),
    _mix("Q8_0", 7, _T.Q8_0, head=_T.Q8_0),
    _mix("Q6_K", 18, _T.Q6_K),
    _mix("Q5_K_S", 16, _T.Q5_K),
    _mix(
        "Q5_K_M", 17, _T.Q5_K,
        _rule(_V, _T.Q6_K, layers=_SPREAD),
        _rule(_DOWN, _T.Q6_K, layers=_SPREAD),
    ),
    _mix(
        "Q4_K_S", 14, _T.Q4_K,
        _rule(_V, _T.Q5_K, layers=_FIRST_4),
        _V_70B,
        _rule(_DOWN, _T.Q5_K, _NO_FALCON, layers=_EIGHTH),
        _OUT_8_EXPERTS,
    ),
    _mix(
        "Q4_K_M", 15, _T.Q4_K,
        _rule(_V, _T.Q6_K, layers=_SPREAD),
        _V_70B,
        _rule(_DOWN, _T.Q6_K, _NO_FALCON, layers=_SPREAD),
        _rule(_DOWN, _T.Q6_K, layers=_SIXTEENTH),
        _rule(_DOWN, _T.Q5_K, layers=_SPREAD),
        _OUT_8_EXPERTS,
    ),
    _mix("Q3_K_S", 11, _T.Q3_K, _V_70B, _OUT_8_EXPERTS),
    _mix(
        "Q3_K_M", 12, _T.Q3_K,
        _rule(_V, _T.Q5_K, layers=_FIRST_2),
        _V_70B,
        _rule(_V, _T.Q4_K),
        _rule(_DOWN, _T.Q5_K, layers=_SIXTEENTH),
        _rule(_DOWN, _T.Q4_K, _NO_FALCON),
        _rule(_DOWN, _T.Q4_K, layers=_SPREAD),
        _OUT_8_EXPERTS,
        _rule(_OUT, _T.Q4_K, _NO_FALCON),
    ),
    _mix(
        "Q3_K_L", 13, _T.Q3_K,
        _rule(_V, _T.Q5_K),
        _rule(_DOWN, _T.Q4_K, _FALCON),
        _rule(_DOWN, _T.Q5_K),
        _rule(_OUT, _T.Q4_K, _FALCON),
        _rule(_OUT, _T.Q5_K, _NOT_8_EXPERTS),
    ),
    _mix(
        "Q2_K", 10, _T.Q2_K,
        _V_70B,
        _rule(_V, _T.Q4_K, _GQA_4),
        _rule(_V, _T.Q3_K),
        _rule(_DOWN, _T.Q3_K),
        _OUT_8_EXPERTS,
        _rule(_OUT, _T.Q3_K, _NO_FALCON),
    ),
    _mix(
        "Q2_K_S", 21, _T.Q2_K,
        _rule(_V, _T.Q5_K, _70B, _GQA_4),
        _rule(_V, _T.Q4_K, _GQA_4),
        _rule(_DOWN, _T.Q4_K, layers=_EIGHTH),
    ),
    _mix("Q4_0", 2, _T.Q4_0, _rule(_DOWN, _T.Q4_1, _IMPORTANCE, layers=_EIGHTH)),
    _mix("Q4_1", 3, _T.Q4_1),
    _mix("Q5_0", 8, _T.Q5_0, _rule(_DOWN, _T.Q5_1, _IMPORTANCE, layers=_EIGHTH)),
    _mix("Q5_1", 9, _T.Q5_1),
    _mix("IQ4_NL", 25, _T.IQ4_NL, *_IQ4_RULES),
    _mix("IQ4_XS", 30, _T.IQ4_XS, *_IQ4_RULES),
    Recipe(
        "MXFP4_MOE", 38, _T.MXFP4,
        (
            _rule(_HEAD, _T.Q8_0),
            Rule(_ALL, _T.MXFP4, EVERY, experts_only=True),
            _rule(_ALL, _T.Q8_0),
        ),
    ),
    Recipe("COPY", None, None),
)  # fmt: skip
RECIPES: Final = MappingProxyType({recipe.name: recipe for recipe in _RECIPES})

# As llama-quantize has them; MXFP4 is ours, for the only recipe of that type.
ALIASES: Final = MappingProxyType(
    {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}
)


def find_recipe(name: str, flag: str = "type") -> Recipe:
    """The recipe called `name`, in any spelling of `quants.names`.

    Raises UsageError that begins with `flag` and suggests near names.
    """
    parsed = parse_quant(name)
    wanted = str(parsed) if parsed else name.strip().upper()
    recipe = RECIPES.get(ALIASES.get(wanted, wanted))
    if recipe is None:
        raise UsageError(f"{flag} {show(name)} is not known; {_suggest(wanted, (*RECIPES, *ALIASES))}")
    return recipe


def find_type(name: str, flag: str) -> GGMLType:
    """The tensor type called `name` (any case). Raises UsageError that begins with `flag`."""
    parsed = parse_quant(name)
    wanted = str(parsed) if parsed else name.strip().upper()
    if wanted not in GGMLType.__members__:
        raise UsageError(f"{flag} {show(name)} is no tensor type; {_suggest(wanted, GGMLType.__members__)}")
    return GGMLType[wanted]


def _suggest(wanted: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.55)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of: {', '.join(names)}"
