"""Every op in plain torch on the CPU: straightforward formulas over dequantized weights.

The oracle that native and Triton kernels are compared with. Slow, and it holds every weight as a float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from pintpot.kernels.api import (
    F32,
    I32,
    Activation,
    AttentionWeights,
    DeltaNetWeights,
    FFNWeights,
    Gating,
    InputSums,
    MoEWeights,
    Ops,
    Rope,
    Segment,
    TensorView,
)
from pintpot.kernels.reference_state import ReferenceDeltaState, ReferenceKVCache
from pintpot.quants.reference import dequantize
from pintpot.spec.cache import DeltaStateLayout, KVLayout

OAI_ALPHA = 1.702  # slope of gpt-oss's sigmoid
OAI_LIMIT = 7.0  # its clamp
MIN_WEIGHT_SUM = (
    2.0**-14
)  # llama.cpp's floor when dividing expert weights by their sum (f16's smallest normal)


class Matrix(Protocol):
    """`n_mats` matrices of [rows, cols]; `recorded_as` is the tensor its inputs count for."""

    @property
    def recorded_as(self) -> str | None: ...

    @property
    def n_mats(self) -> int: ...

    @property
    def cols(self) -> int: ...

    def mat(self, index: int) -> Tensor:
        """One of them as floats."""


@dataclass(frozen=True, slots=True)
class FloatMatrix:
    """Float values [n_mats, rows, cols]."""

    values: Tensor
    recorded_as: str | None

    @property
    def n_mats(self) -> int:
        return len(self.values)

    @property
    def cols(self) -> int:
        return self.values.shape[2]

    def mat(self, index: int) -> Tensor:
        return self.values[index]


@dataclass(frozen=True, slots=True)
class _Attention:
    w: AttentionWeights
    wq: Matrix
    wk: Matrix | None
    wv: Matrix | None
    wo: Matrix


@dataclass(frozen=True, slots=True)
class _DeltaNet:
    w: DeltaNetWeights
    wqkv: Matrix
    wz: Matrix
    wbeta: Matrix
    walpha: Matrix
    wo: Matrix


@dataclass(frozen=True, slots=True)
class FFN:
    gate: Matrix
    up: Matrix
    down: Matrix
    activation: Activation


@dataclass(frozen=True, slots=True)
class _MoE:
    w: MoEWeights
    router: Matrix
    gate: Matrix
    up: Matrix
    down: Matrix
    shared: FFN | None


def activate(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up, elementwise."""
    match activation:
        case Activation.SILU:
            return F.silu(gate) * up
        case Activation.GELU_TANH:
            return F.gelu(gate, approximate="tanh") * up
        case Activation.SWIGLU_OAI:
            gate = gate.clamp(max=OAI_LIMIT)
            return gate * torch.sigmoid(OAI_ALPHA * gate) * (up.clamp(-OAI_LIMIT, OAI_LIMIT) + 1)


def apply_rope(x: Tensor, positions: Tensor, rope: Rope) -> Tensor:
    """Rotates the leading values of each head. x [n_tokens, n_head, head_dim]; positions int64 [n_tokens]."""
    n_rot = 2 * len(rope.inv_freq)
    angle = torch.outer(positions.double(), torch.from_numpy(rope.inv_freq).double())[:, None, :]
    cos = (torch.cos(angle) * rope.mscale).to(x.dtype)
    sin = (torch.sin(angle) * rope.mscale).to(x.dtype)
    if rope.interleaved:
        a, b = x[..., 0:n_rot:2], x[..., 1:n_rot:2]
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    else:
        a, b = x[..., : n_rot // 2], x[..., n_rot // 2 : n_rot]
        turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return torch.cat((turned, x[..., n_rot:]), dim=-1)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def l2_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(sum(x^2) + eps) over the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


class ReferenceOps(Ops):
    """The ops in torch, in `dtype` (float32, or float64 to tell rounding from error)."""

    name = "reference"

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._recorded: dict[str, InputSums] | None = None  # while recording

    # --- load time

    def matrix(self, view: TensorView) -> Matrix:
        n_bytes = view.rows * view.row_bytes
        mats = []
        for i in range(view.n_mats):
            raw = view.data[i * view.mat_stride : i * view.mat_stride + n_bytes]
            mats.append(torch.from_numpy(dequantize(view.ggml_type, raw, (view.rows, view.cols))))
        return FloatMatrix(torch.stack(mats).to(self.dtype), None if view.first_row else view.name)

    def vector(self, values: F32, name: str) -> Tensor:  # noqa: ARG002
        return self._values(values)

    def _values(self, values: F32) -> Tensor:
        return torch.tensor(np.asarray(values, np.float32)).to(self.dtype)

    def attention_layer(self, w: AttentionWeights) -> _Attention:
        return _Attention(
            w,
            self.matrix(w.wq),
            None if w.wk is None else self.matrix(w.wk),
            None if w.wv is None else self.matrix(w.wv),
            self.matrix(w.wo),
        )

    def delta_net_layer(self, w: DeltaNetWeights) -> _DeltaNet:
        return _DeltaNet(w, *(self.matrix(m) for m in (w.wqkv, w.wz, w.wbeta, w.walpha, w.wo)))

    def ffn_layer(self, w: FFNWeights) -> FFN:
        return FFN(self.matrix(w.gate), self.matrix(w.up), self.matrix(w.down), w.activation)

    def moe_layer(self, w: MoEWeights) -> _MoE:
        shared = None if w.shared is None else self.ffn_layer(w.shared)
        return _MoE(
            w, self.matrix(w.router), self.matrix(w.gate), self.matrix(w.up), self.matrix(w.down), shared
        )

    def kv_cache(self, layout: KVLayout, layer: int) -> ReferenceKVCache:  # noqa: ARG002
        return ReferenceKVCache(layout, self.dtype)

    def delta_state(self, layout: DeltaStateLayout, layer: int) -> ReferenceDeltaState:  # noqa: ARG002
        return ReferenceDeltaState(layout, self.dtype)

    # --- recording

    def start_recording(self) -> None:
        self._recorded = {}

    def stop_recording(self) -> None:
        self._recorded = None

    def recorded(self) -> dict[str, InputSums]:
        return {
            name: InputSums(sums.squares.copy(), sums.rows.copy())
            for name, sums in (self._recorded or {}).items()
        }

    def _linear(self, x: Tensor, w: Matrix, bias: Tensor | None = None, mat: int = 0) -> Tensor:
        """x @ w[mat].T (+ bias): every product of a weight goes through here."""
        if self._recorded is not None and w.recorded_as is not None:
            if w.recorded_as not in self._recorded:
                self._recorded[w.recorded_as] = InputSums(
                    np.zeros((w.n_mats, w.cols)), np.zeros(w.n_mats, np.int64)
                )
            sums = self._recorded[w.recorded_as]
            sums.squares[mat] += x.double().square().sum(0).numpy()
            sums.rows[mat] += len(x)
        return F.linear(x, w.mat(mat), bias)

    # --- step time

    def batch(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        return tuple(segments)

    def embed(self, matrix: Matrix, tokens: I32) -> Tensor:
        return matrix.mat(0)[torch.from_numpy(np.asarray(tokens, np.int64))]

    def rms_norm(self, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        return rms_norm(x, weight, eps)

    def add_rms_norm(self, x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> Tensor:
        x += delta
        return rms_norm(x, weight, eps)

    def add(self, x: Tensor, delta: Tensor) -> None:
        x += delta

    def scale(self, x: Tensor, factor: float) -> None:
        x *= factor

    def softcap(self, x: Tensor, cap: float) -> None:
        x.copy_(cap * torch.tanh(x / cap))

    def gated(self, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        return activate(gate, up, activation)

    def linear(self, x: Tensor, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
        return self._linear(x, matrix, bias)

    def rows(self, x: Tensor, index: I32) -> Tensor:
        return x[torch.from_numpy(np.asarray(index, np.int64))]

    def reshape(self, x: Tensor, width: int) -> Tensor:
        return x.reshape(-1, width)

    def columns(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x[:, start:stop].contiguous()

    def to_numpy(self, x: Tensor) -> F32:
        return x.to(torch.float32).numpy()

    def attention(
        self, x: Tensor, layer: _Attention, cache: ReferenceKVCache, batch: Sequence[Segment]
    ) -> Tensor:
        w = layer.w
        n = len(x)
        positions = torch.cat([torch.arange(s.past, s.past + s.n) for s in batch])
        q = self._linear(x, layer.wq, self._opt(w.bq)).view(n, w.n_head, -1)
        gate = None
        if w.gated:
            q, gate = q[..., : w.head_dim_k], q[..., w.head_dim_k :]
        q = self._norm_rope(q, w.q_norm, w, positions)
        if layer.wk is not None:
            k = self._linear(x, layer.wk, self._opt(w.bk)).view(n, w.n_head_kv, w.head_dim_k)
            if layer.wv is None:
                v = k
            else:
                v = self._linear(x, layer.wv, self._opt(w.bv)).view(n, w.n_head_kv, w.head_dim_v)
            if w.v_norm:
                v = rms_norm(v, None, w.norm_eps)
            cache.store(batch, self._norm_rope(k, w.k_norm, w, positions), v)
        outs = []
        start = 0
        for s in batch:
            outs.append(self._attend(q[start : start + s.n], w, cache, s))
            start += s.n
        out = torch.cat(outs)
        if gate is not None:
            out = out * torch.sigmoid(gate)
        return self._linear(out.reshape(n, -1), layer.wo, self._opt(w.bo))

    def _norm_rope(self, x: Tensor, norm: F32 | None, w: AttentionWeights, positions: Tensor) -> Tensor:
        if norm is not None:
            x = rms_norm(x, self._values(norm), w.norm_eps)
        return x if w.rope is None else apply_rope(x, positions, w.rope)

    def _attend(self, q: Tensor, w: AttentionWeights, cache: ReferenceKVCache, s: Segment) -> Tensor:
        """Softmax attention of one sequence. q [n, n_head, head_dim_k] -> [n, n_head, head_dim_v]."""
        first = 0 if w.window is None else max(0, s.past + 1 - w.window)
        k, v = cache.load(s.slot, first, s.past + s.n)  # [n_kv, n_head_kv, head_dim]
        k = k.repeat_interleave(w.n_head // w.n_head_kv, dim=1)
        v = v.repeat_interleave(w.n_head // w.n_head_kv, dim=1)
        logits = torch.einsum("qhd,khd->hqk", q, k) * w.scale
        if w.softcap is not None:
            logits = w.softcap * torch.tanh(logits / w.softcap)
        at = torch.arange(s.past, s.past + s.n)[:, None]
        key = torch.arange(first, s.past + s.n)[None, :]
        seen = key <= at
        if w.window is not None:
            seen &= key > at - w.window
        logits = logits.masked_fill(~seen, -math.inf)
        if w.sinks is not None:
            sinks = self._values(w.sinks)[:, None, None].expand(-1, s.n, 1)
            p = torch.softmax(torch.cat((logits, sinks), dim=-1), dim=-1)[..., :-1]
        else:
            p = torch.softmax(logits, dim=-1)
        return torch.einsum("hqk,khd->qhd", p, v)

    def delta_net(
        self, x: Tensor, layer: _DeltaNet, state: ReferenceDeltaState, batch: Sequence[Segment]
    ) -> Tensor:
        w = layer.w
        qkv = self._linear(x, layer.wqkv)
        beta = torch.sigmoid(self._linear(x, layer.wbeta))  # [n, n_head_v]
        decay = torch.exp(
            self._values(w.a)
            * F.softplus(self._linear(x, layer.walpha) + self._values(w.dt_bias), threshold=80)
        )
        outs = []
        start = 0
        for s in batch:
            stop = start + s.n
            qkv_s = self._conv(qkv[start:stop], w, state.conv[s.slot])
            outs.append(self._recur(qkv_s, decay[start:stop], beta[start:stop], w, state.memory[s.slot]))
            start = stop
        out = rms_norm(torch.cat(outs), self._values(w.norm), w.norm_eps)
        z = self._linear(x, layer.wz).view(out.shape)
        return self._linear((out * F.silu(z)).reshape(len(x), -1), layer.wo)

    def _conv(self, x: Tensor, w: DeltaNetWeights, past: Tensor) -> Tensor:
        """silu of the causal convolution; x [n, conv_dim]; `past` [kernel-1, conv_dim] is updated."""
        full = torch.cat((past, x))
        kernel = self._values(w.conv)  # [conv_dim, conv_kernel]
        taps = full.unfold(0, w.conv_kernel, 1)  # [n, conv_dim, conv_kernel]
        past.copy_(full[len(x) :])
        return F.silu((taps * kernel).sum(-1))

    def _recur(self, qkv: Tensor, decay: Tensor, beta: Tensor, w: DeltaNetWeights, memory: Tensor) -> Tensor:
        """The gated delta rule, token by token; `memory` [n_head_v, head_dim_k, head_dim_v] is updated."""
        n, k_width = len(qkv), w.n_head_k * w.head_dim_k
        q, k, v = torch.split(qkv, [k_width, k_width, w.n_head_v * w.head_dim_v], dim=1)
        repeat = (1, w.n_head_v // w.n_head_k, 1)  # v head h reads k head h % n_head_k
        q = l2_norm(q.view(n, w.n_head_k, w.head_dim_k), w.norm_eps).repeat(repeat) * w.head_dim_k**-0.5
        k = l2_norm(k.view(n, w.n_head_k, w.head_dim_k), w.norm_eps).repeat(repeat)
        v = v.view(n, w.n_head_v, w.head_dim_v)
        outs = []
        for t in range(n):
            memory *= decay[t, :, None, None]
            error = v[t] - torch.einsum("hk,hkv->hv", k[t], memory)
            memory += torch.einsum("hk,hv->hkv", k[t], beta[t, :, None] * error)
            outs.append(torch.einsum("hk,hkv->hv", q[t], memory))
        return torch.stack(outs)

    def ffn(self, x: Tensor, layer: FFN) -> Tensor:
        gate, up = self._linear(x, layer.gate), self._linear(x, layer.up)
        return self._linear(activate(gate, up, layer.activation), layer.down)

    def moe(
        self, x: Tensor, layer: _MoE, router_x: Tensor | None = None, routes: I32 | None = None
    ) -> Tensor:
        w = layer.w
        logits = self._linear(x if router_x is None else router_x, layer.router, self._opt(w.router_bias))
        experts, weights = self._route(logits, w)
        if routes is not None:
            routes[:] = experts.numpy()
        out = torch.zeros_like(x)
        for e in torch.unique(experts).tolist():
            token, place = torch.nonzero(experts == e, as_tuple=True)
            y = self._expert(x[token], layer, e)
            out.index_add_(0, token, y * weights[token, place, None])
        return out if layer.shared is None else out + self._shared(x, layer.shared, w.shared_gate)

    def _shared(self, x: Tensor, layer: FFN, gate: F32 | None) -> Tensor:
        """The expert that every token is sent to."""
        y = self.ffn(x, layer)
        return y if gate is None else y * torch.sigmoid(x @ self._values(gate))[:, None]

    def _route(self, logits: Tensor, w: MoEWeights) -> tuple[Tensor, Tensor]:
        """The chosen experts [n, k] and their weights [n, k]."""
        match w.gating:
            case Gating.SOFTMAX:
                scores = torch.softmax(logits, -1)
            case Gating.SIGMOID:
                scores = torch.sigmoid(logits)
            case Gating.SOFTMAX_TOPK:
                scores = logits
        weights, experts = torch.topk(scores, w.n_expert_used, dim=-1)
        if w.gating is Gating.SOFTMAX_TOPK:
            weights = torch.softmax(weights, -1)
        if w.normalize:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=MIN_WEIGHT_SUM)
        return experts, weights * w.weight_scale

    def _expert(self, x: Tensor, layer: _MoE, e: int) -> Tensor:
        w = layer.w
        gate = self._linear(x, layer.gate, self._opt(w.gate_bias, e), e)
        up = self._linear(x, layer.up, self._opt(w.up_bias, e), e)
        y = self._linear(activate(gate, up, w.activation), layer.down, mat=e)
        if w.down_scale is not None:
            y = y * float(w.down_scale[e])
        return y if w.down_bias is None else y + self._values(w.down_bias[e])

    def _opt(self, values: F32 | None, index: int | None = None) -> Tensor | None:
        if values is None:
            return None
        return self._values(values if index is None else values[index])
