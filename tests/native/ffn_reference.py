"""Feed-forwards and mixtures of experts in float64 NumPy, and random weights in GGUF blocks for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

from pintpot import _native
from pintpot.kernels.api import Activation, Gating

# Byte offsets of the half-precision scales in a block, and their usual size.
_HALVES = {T.Q8_0: (0,), T.Q4_0: (0,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,), T.IQ4_XS: (0,)}
_SCALE = {T.Q8_0: 4e-4, T.Q4_0: 6e-3, T.Q4_K: 1.5e-4, T.Q5_K: 8e-5, T.Q6_K: 3e-5, T.IQ4_XS: 2e-5}
_SUPER = (T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_XS)


@dataclass(frozen=True)
class Weights:
    """Random matrices: the native view, and what they hold as float64 [n_mats, rows, cols]."""

    native: Any
    values: np.ndarray
    kind: T


def random_weights(rng: np.random.Generator, kind: T, n_mats: int, rows: int, cols: int) -> Weights:
    """Valid blocks of any kind with weights of about 1/16."""
    if kind in (T.F32, T.F16):
        plain = (rng.standard_normal((n_mats * rows, cols)) / 16).astype(
            np.float32 if kind == T.F32 else np.float16
        )
        raw = plain.view(np.uint8)
    else:
        n_values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (n_mats * rows, cols // n_values, n_bytes), dtype=np.uint8)
        if kind == T.MXFP4:
            blocks[..., 0] = rng.integers(121, 125, blocks.shape[:-1])
        for at in _HALVES.get(kind, ()):
            scales = _SCALE[kind] * rng.uniform(0.5, 1.5, blocks.shape[:-1]).astype(np.float16)
            blocks[..., at : at + 2] = scales.astype(np.float16)[..., None].view(np.uint8)
        raw = blocks.reshape(n_mats * rows, -1)
    values = gguf.quants.dequantize(raw, kind).astype(np.float64).reshape(n_mats, rows, cols)
    data = np.ascontiguousarray(raw).reshape(-1)
    row_bytes = raw.shape[-1]
    native = _native.Matrix(data, int(kind), n_mats, rows, cols, row_bytes, rows * row_bytes, data)
    return Weights(native, values, kind)


def seen_by(kind: T, x: np.ndarray) -> np.ndarray:
    """x as the kernels of a weight type see it: int8 with a scale per 32 or 256 values, or as it is."""
    if kind in (T.F32, T.F16, T.BF16):
        return x
    blocks = x.astype(np.float32).reshape(*x.shape[:-1], -1, 256 if kind in _SUPER else 32)
    largest = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    scale = np.divide(1, inverse, out=np.zeros_like(inverse), where=inverse > 0)
    if kind not in _SUPER:  # a half's 11 significant bits
        mantissa, exponent = np.frexp(scale)
        scale = np.ldexp(np.rint(mantissa * 2048) / 2048, exponent).astype(np.float32)
    return (np.rint(blocks * inverse) * scale).astype(np.float64).reshape(x.shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def activate(activation: Activation, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    if activation == Activation.SILU:
        return gate * sigmoid(gate) * up
    if activation == Activation.GELU_TANH:
        return 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
    gate = np.minimum(gate, 7.0)
    return gate * sigmoid(1.702 * gate) * (np.clip(up, -7.0, 7.0) + 1)


def feed_forward(
    x: np.ndarray,
    gate: Weights,
    up: Weights,
    down: Weights,
    activation: Activation,
    mat: int = 0,
    gate_bias: np.ndarray | float = 0.0,
    up_bias: np.ndarray | float = 0.0,
) -> np.ndarray:
    g = seen_by(gate.kind, x) @ gate.values[mat].T + gate_bias
    u = seen_by(up.kind, x) @ up.values[mat].T + up_bias
    return seen_by(down.kind, activate(activation, g, u)) @ down.values[mat].T


@dataclass
class MoECase:
    """A layer: keyword arguments of `_native.MoELayer`, and the same in float64."""

    n_expert: int
    n_expert_used: int
    gating: Gating
    normalize: bool
    activation: Activation
    router: Weights
    gate: Weights
    up: Weights
    down: Weights
    weight_scale: float = 1.0
    router_bias: np.ndarray | None = None
    gate_bias: np.ndarray | None = None
    up_bias: np.ndarray | None = None
    down_bias: np.ndarray | None = None
    down_scale: np.ndarray | None = None
    shared: tuple[Weights, Weights, Weights] | None = None
    shared_gate: np.ndarray | None = None
    _layer: Any = field(default=None, repr=False)

    @property
    def layer(self) -> Any:
        if self._layer is None:
            shared = None
            if self.shared is not None:
                shared = _native.FFNLayer(*(w.native for w in self.shared), self.activation)
            optional = ("router_bias", "gate_bias", "up_bias", "down_bias", "down_scale", "shared_gate")
            self._layer = _native.MoELayer(
                n_expert=self.n_expert,
                n_expert_used=self.n_expert_used,
                gating=self.gating,
                normalize=self.normalize,
                router=self.router.native,
                gate=self.gate.native,
                up=self.up.native,
                down=self.down.native,
                activation=self.activation,
                weight_scale=self.weight_scale,
                shared=shared,
                **{name: getattr(self, name) for name in optional},
            )
        return self._layer

    def route(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expert ids, best first and lower first among equals, and their weights."""
        logits = seen_by(self.router.kind, x) @ self.router.values[0].T
        if self.router_bias is not None:
            logits = logits + self.router_bias
        scores = logits
        if self.gating == Gating.SOFTMAX:
            scores = softmax(logits)
        elif self.gating == Gating.SIGMOID:
            scores = sigmoid(logits)
        ids = np.argsort(-scores, axis=-1, kind="stable")[:, : self.n_expert_used]
        weights = np.take_along_axis(scores, ids, -1)
        if self.gating == Gating.SOFTMAX_TOPK:
            weights = softmax(weights)
        if self.normalize:
            weights = weights / np.maximum(weights.sum(-1, keepdims=True), 6.103515625e-5)
        return ids, weights * self.weight_scale

    def experts(self, x: np.ndarray, ids: np.ndarray, weights: np.ndarray, shared: bool = True) -> np.ndarray:
        out = np.zeros_like(x, dtype=np.float64)
        for e in range(self.n_expert):
            tokens, slots = np.nonzero(ids == e)
            if not len(tokens):
                continue
            y = feed_forward(
                x[tokens],
                self.gate,
                self.up,
                self.down,
                self.activation,
                e,
                0.0 if self.gate_bias is None else self.gate_bias[e],
                0.0 if self.up_bias is None else self.up_bias[e],
            )
            if self.down_scale is not None:
                y = y * self.down_scale[e]
            if self.down_bias is not None:
                y = y + self.down_bias[e]
            out[tokens] += weights[tokens, slots][:, None] * y
        if shared and self.shared is not None:
            y = feed_forward(x, *self.shared, self.activation)
            if self.shared_gate is not None:
                y = y * sigmoid(x @ self.shared_gate.astype(np.float64))[:, None]
            out += y
        return out

    def run(
        self, engine: Any, x: np.ndarray, router_x: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The native op: its result and the routes."""
        out = np.full(x.shape, np.nan, np.float32)
        routes = np.full((len(x), self.n_expert_used), -7, np.int32)
        _native.moe(engine, self.layer, x, out, router_x, routes)
        return out, routes


def make_moe(
    rng: np.random.Generator,
    *,
    n_expert: int = 8,
    n_expert_used: int = 2,
    n_embd: int = 64,
    n_ff: int = 48,
    n_ff_shared: int = 0,
    gating: Gating = Gating.SOFTMAX,
    normalize: bool = True,
    activation: Activation = Activation.SILU,
    kinds: tuple[T, T, T] = (T.F32, T.F32, T.F32),
    shared_kinds: tuple[T, T, T] | None = None,
    router_kind: T = T.F32,
    biases: bool = False,
    shared_gate: bool = False,
    down_scale: bool = False,
    weight_scale: float = 1.0,
) -> MoECase:
    """A random layer. Router weights are large enough that no two experts are close to equal."""
    gate, up, down = kinds

    def vector(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    case = MoECase(
        n_expert,
        n_expert_used,
        gating,
        normalize,
        activation,
        random_weights(rng, router_kind, 1, n_expert, n_embd),
        random_weights(rng, gate, n_expert, n_ff, n_embd),
        random_weights(rng, up, n_expert, n_ff, n_embd),
        random_weights(rng, down, n_expert, n_embd, n_ff),
        weight_scale,
    )
    if biases:
        case.router_bias, case.down_bias = vector(n_expert), vector(n_expert, n_embd)
        case.gate_bias, case.up_bias = vector(n_expert, n_ff), vector(n_expert, n_ff)
    if down_scale:
        case.down_scale = vector(n_expert)
    if n_ff_shared:
        sg, su, sd = shared_kinds or kinds
        case.shared = (
            random_weights(rng, sg, 1, n_ff_shared, n_embd),
            random_weights(rng, su, 1, n_ff_shared, n_embd),
            random_weights(rng, sd, 1, n_embd, n_ff_shared),
        )
        if shared_gate:
            case.shared_gate = vector(n_embd) / 4
    return case


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest error over the largest value; infinite when `got` is not finite."""
    if not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max() / np.abs(want).max())
