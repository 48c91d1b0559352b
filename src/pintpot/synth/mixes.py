"""Which type each tensor gets: the one place to replace when exact recipes arrive (quants/recipes.py).

A plain type name (`Q4_K`, `BF16`, ...) gives every matrix that type. A mix name (`Q4_K_M`, ...) follows
llama.cpp's recipes in what decides size and speed: the head, or a tied embedding, in Q6_K; in _M and _L
mixes `attn_v`, `ffn_down` and fused `attn_qkv` a step or two higher, for some mixes only in the first and
last eighth of the layers and every third between. MXFP4_MOE puts experts in MXFP4 and the rest in Q8_0.
`Q6_K` names both a type and a mix, which are the same. Vectors, norms, routers and convolutions stay F32.
A row length that a type's block does not divide falls back to a type with blocks of 32, then to F16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pintpot.errors import UsageError
from pintpot.synth.shape import Shape
from pintpot.synth.tensors import Part, Tensor

TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "IQ4_NL", "IQ4_XS", "MXFP4",
)  # fmt: skip

_FALLBACK = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "IQ4_XS": "IQ4_NL",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_BLOCK_256 = frozenset(_FALLBACK)
_FLOATS = frozenset({"F32", "F16", "BF16"})

# llama.cpp's `general.file_type` numbers.
_FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11,
    "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18,
    "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32, "MXFP4_MOE": 38, "MXFP4": 38, "Q3_K": 12, "Q4_K": 15,
    "Q5_K": 17,
}  # fmt: skip


def _more_bits(layer: int, n_layer: int) -> bool:
    eighth = n_layer // 8
    return layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2


def _always(layer: int, n_layer: int) -> bool:  # noqa: ARG001 - one signature for all rules
    return True


def _first_eighth(layer: int, n_layer: int) -> bool:
    return layer < n_layer // 8


@dataclass(frozen=True, slots=True)
class _Rule:
    """Tensors of `parts`, in the layers that `where` accepts, get `kind`."""

    parts: frozenset[Part]
    kind: str
    where: Callable[[int, int], bool] = _always


_V, _DOWN, _QKV = frozenset({Part.ATTN_V}), frozenset({Part.FFN_DOWN}), frozenset({Part.ATTN_QKV})
_V_DOWN, _OUT = _V | _DOWN, frozenset({Part.ATTN_OUT})

# Mix: (the type of most matrices, exceptions in order of precedence).
_MIXES: dict[str, tuple[str, tuple[_Rule, ...]]] = {
    "Q3_K_S": ("Q3_K", ()),
    "Q3_K_M": ("Q3_K", (_Rule(_V_DOWN | _OUT | _QKV, "Q4_K"),)),
    "Q3_K_L": ("Q3_K", (_Rule(_V_DOWN | _OUT, "Q5_K"), _Rule(_QKV, "Q4_K"))),
    "Q4_K_S": ("Q4_K", (_Rule(_V_DOWN, "Q5_K", _first_eighth),)),
    "Q4_K_M": ("Q4_K", (_Rule(_V_DOWN, "Q6_K", _more_bits), _Rule(_QKV, "Q5_K"))),
    "Q5_K_S": ("Q5_K", ()),
    "Q5_K_M": ("Q5_K", (_Rule(_V_DOWN, "Q6_K", _more_bits), _Rule(_QKV, "Q6_K"))),
    "MXFP4_MOE": ("Q8_0", ()),
}

QUANTS = (*TYPES, *_MIXES)


def file_type(quant: str) -> int:
    """`general.file_type` of a quant name."""
    return _FILE_TYPES[check_quant(quant)]


def check_quant(quant: str) -> str:
    """The canonical spelling; raises UsageError for an unknown name."""
    name = quant.upper()
    if name not in QUANTS:
        raise UsageError(f"--quant {quant} is not known; choose one of: {', '.join(QUANTS)}")
    return name


def choose_type(quant: str, tensor: Tensor, shape: Shape) -> str:
    """The type name of one tensor of a file quantized as `quant`."""
    if tensor.part is Part.F32 or len(tensor.shape) < 2:
        return "F32"
    name = check_quant(quant)
    base, rules = _MIXES.get(name, (name, ()))
    kind = _mix_type(name, base, rules, tensor, shape) if name in _MIXES else base
    return fit_rows(kind, tensor.shape[-1])


def _mix_type(name: str, base: str, rules: tuple[_Rule, ...], tensor: Tensor, shape: Shape) -> str:
    head = tensor.part is Part.OUTPUT or (shape.tied and tensor.name == "token_embd.weight")
    if name == "MXFP4_MOE":
        return "MXFP4" if len(tensor.shape) == 3 else base
    if head:
        return "Q6_K"
    for rule in rules:
        if tensor.part in rule.parts and rule.where(tensor.layer, shape.n_layer):
            return rule.kind
    return base


def fit_rows(kind: str, cols: int) -> str:
    """`kind`, or what it falls back to for rows of `cols` values."""
    if kind in _BLOCK_256 and cols % 256:
        kind = _FALLBACK[kind]
    if kind not in _FLOATS and cols % 32:
        return "F16"
    return kind
