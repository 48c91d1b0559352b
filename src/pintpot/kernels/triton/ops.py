"""The ops of `kernels.api` over Triton kernels: weights and caches on one device, arrays are torch tensors.

Every op is a few launches and waits for nothing, except `to_numpy`, recorded `routes`, and recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pintpot.kernels.api import (
    F32,
    I32,
    Activation,
    AttentionWeights,
    DeltaNetWeights,
    FFNWeights,
    InputSums,
    MoEWeights,
    Ops,
    Segment,
    TensorView,
)
from pintpot.kernels.triton.activation import activate_reference
from pintpot.kernels.triton.attention import AttentionShape, attend
from pintpot.kernels.triton.batch import DeviceBatch, device_batch
from pintpot.kernels.triton.delta_net import (
    DeltaShape,
    DeviceDeltaState,
    causal_conv,
    delta_rule,
    gated_norm,
)
from pintpot.kernels.triton.embed import embed
from pintpot.kernels.triton.formats import layout_of
from pintpot.kernels.triton.groups import one_matrix
from pintpot.kernels.triton.kv_cache import DeviceKVCache
from pintpot.kernels.triton.linear import grouped_linear
from pintpot.kernels.triton.moe import Experts, down_sum, gate_up, pair_groups
from pintpot.kernels.triton.norms import DeviceRope, HeadNorm, device_rope, head_norm_rope, rms_norm
from pintpot.kernels.triton.repack import Stack, empty_stack, repack, stack_of, view_bytes
from pintpot.kernels.triton.routing import route
from pintpot.spec.cache import DeltaStateLayout, KVLayout


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight and the tensor that its inputs count for, None where another slice stands for it."""

    stack: Stack
    recorded_as: str | None


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    w: AttentionWeights
    shape: AttentionShape
    wq: Matrix
    wk: Matrix | None
    wv: Matrix | None
    wo: Matrix
    bq: Tensor | None
    bk: Tensor | None
    bv: Tensor | None
    bo: Tensor | None
    q_norm: HeadNorm | None
    k_norm: HeadNorm | None
    sinks: Tensor | None
    rope: DeviceRope | None


@dataclass(frozen=True, slots=True)
class DeltaNetLayer:
    shape: DeltaShape
    wqkv: Matrix
    wz: Matrix
    wbeta: Matrix
    walpha: Matrix
    wo: Matrix


@dataclass(frozen=True, slots=True)
class ExpertMatrices:
    """Gate, up and down in slots, and the tensors that their inputs count for."""

    experts: Experts
    gate_name: str | None
    up_name: str | None
    down_name: str | None


@dataclass(frozen=True, slots=True)
class MoELayer:
    """`routed` has as many slots as were asked for; `w` is where `write_slot` takes experts from."""

    w: MoEWeights
    router: Matrix
    router_bias: Tensor | None
    routed: ExpertMatrices
    shared: ExpertMatrices | None
    shared_gate: Tensor | None


class TritonOps(Ops):
    """On `device`: "cuda" (NVIDIA, or AMD under ROCm), or "cpu" in Triton's interpreter.

    Products with 16 vectors and more, and attention, multiply in `dot_dtype` and add in float32; float16
    holds inputs up to 65,504, for models that exceed it there is bfloat16.
    """

    def __init__(self, device: str = "cuda", *, dot_dtype: torch.dtype = torch.float16) -> None:
        self.name = f"Triton ({device})"
        self.device = torch.device(device)
        self.dot_dtype = dot_dtype
        self._recorded: dict[str, tuple[Tensor, Tensor]] | None = None  # squares, rows; while recording

    # --- load time -------------------------------------------------------------------------------
    def matrix(self, view: TensorView) -> Matrix:
        return Matrix(stack_of(view, self.device), _recorded_name(view))

    def _optional_matrix(self, view: TensorView | None) -> Matrix | None:
        return None if view is None else self.matrix(view)

    def vector(self, values: F32, name: str) -> Tensor:  # noqa: ARG002
        return self._vector(values)

    def _vector(self, values: F32) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(self.device)

    def _optional_vector(self, values: F32 | None) -> Tensor | None:
        return None if values is None else self._vector(values)

    def attention_layer(self, w: AttentionWeights) -> AttentionLayer:
        def norm(weight: F32 | None) -> HeadNorm | None:
            return None if weight is None else HeadNorm(self._vector(weight), w.norm_eps)

        return AttentionLayer(
            w=w,
            shape=AttentionShape(
                w.n_head, w.n_head_kv, w.head_dim_k, w.head_dim_v, w.scale, w.window, w.softcap
            ),
            wq=self.matrix(w.wq),
            wk=self._optional_matrix(w.wk),
            wv=self._optional_matrix(w.wv),
            wo=self.matrix(w.wo),
            bq=self._optional_vector(w.bq),
            bk=self._optional_vector(w.bk),
            bv=self._optional_vector(w.bv),
            bo=self._optional_vector(w.bo),
            q_norm=norm(w.q_norm),
            k_norm=norm(w.k_norm),
            sinks=self._optional_vector(w.sinks),
            rope=None if w.rope is None else device_rope(w.rope, self.device),
        )

    def delta_net_layer(self, w: DeltaNetWeights) -> DeltaNetLayer:
        shape = DeltaShape(
            w.n_head_k,
            w.n_head_v,
            w.head_dim_k,
            w.head_dim_v,
            w.norm_eps,
            conv=self._vector(w.conv),
            dt_bias=self._vector(w.dt_bias),
            a=self._vector(w.a),
            norm=self._vector(w.norm),
        )
        return DeltaNetLayer(shape, *(self.matrix(m) for m in (w.wqkv, w.wz, w.wbeta, w.walpha, w.wo)))

    def ffn_layer(self, w: FFNWeights) -> ExpertMatrices:
        gate, up, down = (stack_of(view, self.device) for view in (w.gate, w.up, w.down))
        return _named(Experts(gate, up, down, w.activation), w)

    def moe_layer(self, w: MoEWeights) -> MoELayer:
        layer = self.routed_layer(w, w.n_expert)
        for expert in range(w.n_expert):
            self.write_slot(layer, expert, expert)
        return layer

    def routed_layer(self, w: MoEWeights, n_slots: int) -> MoELayer:
        """A MoE layer of which `n_slots` experts, none as yet, are on the device."""
        return MoELayer(
            w,
            self.matrix(w.router),
            self._optional_vector(w.router_bias),
            self.empty_experts(w, n_slots),
            None if w.shared is None else self.ffn_layer(w.shared),
            self._optional_vector(w.shared_gate),
        )

    def empty_experts(self, w: MoEWeights, n_slots: int) -> ExpertMatrices:
        """Room for `n_slots` experts."""

        def room(view: TensorView) -> Stack:
            return empty_stack(layout_of(view.ggml_type, view.rows, view.cols), n_slots, self.device)

        def per_slot(values: F32 | None) -> Tensor | None:
            return None if values is None else torch.zeros(n_slots, *values.shape[1:], device=self.device)

        experts = Experts(
            room(w.gate),
            room(w.up),
            room(w.down),
            w.activation,
            gate_bias=per_slot(w.gate_bias),
            up_bias=per_slot(w.up_bias),
            down_bias=per_slot(w.down_bias),
            down_scale=per_slot(w.down_scale),
        )
        return _named(experts, w)

    def write_slot(self, layer: MoELayer, slot: int, expert: int) -> int:
        """Copies an expert from the file into a slot; returns the bytes copied."""
        w, e = layer.w, layer.routed.experts
        n_bytes = 0
        for view, stack in ((w.gate, e.gate), (w.up, e.up), (w.down, e.down)):
            blocks = view_bytes(view, expert, self.device)
            repack(blocks, stack, slot)
            n_bytes += blocks.nbytes
        vectors = (w.gate_bias, w.up_bias, w.down_bias, w.down_scale)
        for values, per_slot in zip(
            vectors, (e.gate_bias, e.up_bias, e.down_bias, e.down_scale), strict=True
        ):
            if values is not None and per_slot is not None:
                per_slot[slot] = self._vector(np.asarray(values[expert]))
                n_bytes += values[expert].nbytes
        return n_bytes

    def kv_cache(self, layout: KVLayout, layer: int) -> DeviceKVCache:  # noqa: ARG002
        return DeviceKVCache(layout, self.device)

    def delta_state(self, layout: DeltaStateLayout, layer: int) -> DeviceDeltaState:  # noqa: ARG002
        return DeviceDeltaState(layout, self.device)

    # --- recording -------------------------------------------------------------------------------
    def start_recording(self) -> None:
        self._recorded = {}

    def stop_recording(self) -> None:
        self._recorded = None

    def recorded(self) -> dict[str, InputSums]:
        return {
            name: InputSums(squares.cpu().numpy(), rows.cpu().numpy())
            for name, (squares, rows) in (self._recorded or {}).items()
        }

    def _record(self, name: str | None, n_mats: int, x: Tensor, ids: Tensor | None = None) -> None:
        """Counts the rows of x as inputs of matrix 0, or those of pairs as inputs of their slots."""
        if self._recorded is None or name is None:
            return
        if name not in self._recorded:
            self._recorded[name] = (
                torch.zeros(n_mats, x.shape[1], dtype=torch.float64, device=self.device),
                torch.zeros(n_mats, dtype=torch.int64, device=self.device),
            )
        squares, rows = self._recorded[name]
        slots = torch.zeros(len(x), dtype=torch.long, device=self.device) if ids is None else ids.flatten()
        here = slots >= 0
        slots = slots[here].long()
        squares.index_add_(0, slots, x[here].double().square())
        rows.index_add_(0, slots, torch.ones_like(slots))

    # --- step time -------------------------------------------------------------------------------
    def batch(self, segments: Sequence[Segment]) -> DeviceBatch:
        return device_batch(segments, self.device)

    def _index(self, values: I32) -> Tensor:
        return torch.from_numpy(np.array(values, np.int32)).to(self.device)

    def embed(self, matrix: Matrix, tokens: I32) -> Tensor:
        return embed(matrix.stack, self._index(tokens))

    def rms_norm(self, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        return rms_norm(x, weight, eps)

    def add_rms_norm(self, x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight, eps, delta=delta)

    def add(self, x: Tensor, delta: Tensor) -> None:
        x += delta

    def scale(self, x: Tensor, factor: float) -> None:
        x *= factor

    def softcap(self, x: Tensor, cap: float) -> None:
        x.div_(cap).tanh_().mul_(cap)

    def gated(self, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        return activate_reference(gate, up, activation)

    def linear(self, x: Tensor, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
        self._record(matrix.recorded_as, 1, x)
        groups = one_matrix(len(x), self.device)
        return grouped_linear(x, matrix.stack, groups, bias=bias, dot_dtype=self.dot_dtype)

    def rows(self, x: Tensor, index: I32) -> Tensor:
        return x[self._index(index).long()]

    def reshape(self, x: Tensor, width: int) -> Tensor:
        return x.reshape(-1, width)

    def columns(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x[:, start:stop].contiguous()

    def attention(self, x: Tensor, layer: AttentionLayer, cache: DeviceKVCache, batch: DeviceBatch) -> Tensor:
        w, at, rope = layer.w, batch.positions, layer.rope
        dk, dv = w.head_dim_k, w.head_dim_v
        stride = 2 * dk if w.gated else dk
        fused = self.linear(x, layer.wq, layer.bq)  # [n, n_head * stride], q then gate within each head
        q = head_norm_rope(fused, w.n_head, dk, at, stride=stride, norm=layer.q_norm, rope=rope)
        if layer.wk is not None:
            k = self.linear(x, layer.wk, layer.bk)
            v = k if layer.wv is None else self.linear(x, layer.wv, layer.bv)
            v = v.view(-1, w.n_head_kv, dv)
            k = head_norm_rope(k, w.n_head_kv, dk, at, norm=layer.k_norm, rope=rope)
            cache.store(batch, k, rms_norm(v, None, w.norm_eps) if w.v_norm else v)
        gate = fused.view(-1)[dk:] if w.gated else None
        out = attend(
            q, cache, batch, layer.shape,
            sinks=layer.sinks, gate=gate, gate_stride=stride, dot_dtype=self.dot_dtype,
        )  # fmt: skip
        return self.linear(out, layer.wo, layer.bo)

    def delta_net(
        self, x: Tensor, layer: DeltaNetLayer, state: DeviceDeltaState, batch: DeviceBatch
    ) -> Tensor:
        qkv = causal_conv(self.linear(x, layer.wqkv), state, layer.shape, batch)
        alpha, beta = self.linear(x, layer.walpha), self.linear(x, layer.wbeta)
        read = delta_rule(qkv, alpha, beta, state, layer.shape, batch)
        out = gated_norm(read, self.linear(x, layer.wz), layer.shape)
        return self.linear(out.view(len(x), -1), layer.wo)

    def ffn(self, x: Tensor, layer: ExpertMatrices) -> Tensor:
        e, groups = layer.experts, one_matrix(len(x), self.device)
        self._record(layer.gate_name, 1, x)
        self._record(layer.up_name, 1, x)
        h = gate_up(x, e, groups, x_div=1, dot_dtype=self.dot_dtype)
        self._record(layer.down_name, 1, h)
        return grouped_linear(h, e.down, groups, dot_dtype=self.dot_dtype)

    def moe(
        self, x: Tensor, layer: MoELayer, router_x: Tensor | None = None, routes: I32 | None = None
    ) -> Tensor:
        ids, weights = self.route_on_device(x if router_x is None else router_x, layer)
        if routes is not None:
            routes[:] = ids.cpu().numpy()
        return self.experts_on_device(x, layer, ids, weights)

    def route_on_device(self, x: Tensor, layer: MoELayer) -> tuple[Tensor, Tensor]:
        """The chosen experts of each token, int32, and their weights, [n_tokens, n_expert_used]."""
        w = layer.w
        logits = self.linear(x, layer.router, layer.router_bias)
        return route(logits, w.n_expert_used, w.gating, normalize=w.normalize, factor=w.weight_scale)

    def experts_on_device(self, x: Tensor, layer: MoELayer, slots: Tensor, weights: Tensor) -> Tensor:
        """The sum of weights * expert(x) over `slots` (negative: computed elsewhere), plus the shared
        expert where there is one."""
        routed = layer.routed
        e, k = routed.experts, slots.shape[1]
        groups = pair_groups(slots, e.gate.n_mats)
        if self._recorded is not None:
            pairs = x.repeat_interleave(k, 0)
            self._record(routed.gate_name, e.gate.n_mats, pairs, slots)
            self._record(routed.up_name, e.up.n_mats, pairs, slots)
        h = gate_up(x, e, groups, x_div=k, dot_dtype=self.dot_dtype)
        self._record(routed.down_name, e.down.n_mats, h, slots)
        out = down_sum(h, e, slots, weights, groups, dot_dtype=self.dot_dtype)
        if layer.shared is not None:
            y = self.ffn(x, layer.shared)
            if layer.shared_gate is not None:
                y *= torch.sigmoid(x @ layer.shared_gate)[:, None]
            out += y
        return out

    def to_numpy(self, x: Tensor) -> F32:
        values: F32 = x.cpu().numpy()
        return values


def _recorded_name(view: TensorView) -> str | None:
    return None if view.first_row else view.name


def _named(experts: Experts, w: FFNWeights | MoEWeights) -> ExpertMatrices:
    gate, up, down = (_recorded_name(view) for view in (w.gate, w.up, w.down))
    return ExpertMatrices(experts, gate, up, down)
