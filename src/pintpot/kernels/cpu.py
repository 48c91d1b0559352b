"""The CPU backend: NumPy arrays, and one call of the native module for each op.

An op allocates its result and hands everything to C++; nothing here looks at a value. Weights are views of
the memory-mapped file, kept alive by the prepared layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from pintpot import _native
from pintpot.errors import ModelFileError
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
from pintpot.spec.cache import DeltaStateLayout, KVLayout


@contextmanager
def _weights_of(name: str) -> Iterator[None]:
    """What the native module says of impossible weights becomes an error that names the tensor."""
    try:
        yield
    except ValueError as error:
        raise ModelFileError(f"tensor {name}: {error}") from error


def native_matrix(view: TensorView, source: int = -1) -> _native.Matrix:
    """The native view of a weight; `source` is its number where inputs are recorded.

    Raises ModelFileError where its geometry does not fit its data.
    """
    with _weights_of(view.name):
        return _native.Matrix(
            view.data,
            view.ggml_type,
            view.n_mats,
            view.rows,
            view.cols,
            view.row_bytes,
            view.mat_stride,
            view.data,
            source,
        )


def _values(values: F32) -> F32:
    """Contiguous, aligned float32, as the native module reads them (usually the array itself)."""
    return np.require(values, np.float32, ("C", "A"))


def _optional_values(values: F32 | None) -> F32 | None:
    return None if values is None else _values(values)


class CpuOps(Ops):
    """Every op on `n_threads` threads (the calling one included), for one caller at a time."""

    def __init__(self, n_threads: int) -> None:
        self.name = f"CPU ({_native.active_isa().name})"
        self.engine = _native.Engine(n_threads)
        self._sources: list[str] = []  # tensor names, by the number their inputs are recorded under

    # --- load time -------------------------------------------------------------------------------
    def matrix(self, view: TensorView) -> _native.Matrix:
        source = -1
        if view.first_row == 0:
            source = len(self._sources)
            self._sources.append(view.name)
        return native_matrix(view, source)

    def _optional_matrix(self, view: TensorView | None) -> _native.Matrix | None:
        return None if view is None else self.matrix(view)

    def vector(self, values: F32, name: str) -> F32:  # noqa: ARG002
        return _values(values)

    def attention_layer(self, w: AttentionWeights) -> _native.AttentionLayer:
        rope = w.rope
        with _weights_of(w.wq.name):
            return _native.AttentionLayer(
                n_head=w.n_head,
                n_head_kv=w.n_head_kv,
                head_dim_k=w.head_dim_k,
                head_dim_v=w.head_dim_v,
                scale=w.scale,
                wq=self.matrix(w.wq),
                wk=self._optional_matrix(w.wk),
                wv=self._optional_matrix(w.wv),
                wo=self.matrix(w.wo),
                rope_inv_freq=None if rope is None else _values(rope.inv_freq),
                rope_interleaved=rope is not None and rope.interleaved,
                rope_mscale=1.0 if rope is None else rope.mscale,
                bq=_optional_values(w.bq),
                bk=_optional_values(w.bk),
                bv=_optional_values(w.bv),
                bo=_optional_values(w.bo),
                q_norm=_optional_values(w.q_norm),
                k_norm=_optional_values(w.k_norm),
                v_norm=w.v_norm,
                norm_eps=w.norm_eps,
                gated=w.gated,
                sinks=_optional_values(w.sinks),
                window=w.window,
                softcap=w.softcap,
            )

    def delta_net_layer(self, w: DeltaNetWeights) -> _native.DeltaNetLayer:
        with _weights_of(w.wqkv.name):
            return _native.DeltaNetLayer(
                n_head_k=w.n_head_k,
                n_head_v=w.n_head_v,
                head_dim_k=w.head_dim_k,
                head_dim_v=w.head_dim_v,
                conv_kernel=w.conv_kernel,
                norm_eps=w.norm_eps,
                wqkv=self.matrix(w.wqkv),
                wz=self.matrix(w.wz),
                wbeta=self.matrix(w.wbeta),
                walpha=self.matrix(w.walpha),
                wo=self.matrix(w.wo),
                conv=_values(w.conv),
                dt_bias=_values(w.dt_bias),
                a=_values(w.a),
                norm=_values(w.norm),
            )

    def ffn_layer(self, w: FFNWeights) -> _native.FFNLayer:
        with _weights_of(w.gate.name):
            return _native.FFNLayer(self.matrix(w.gate), self.matrix(w.up), self.matrix(w.down), w.activation)

    def moe_layer(self, w: MoEWeights) -> _native.MoELayer:
        with _weights_of(w.gate.name):
            return _native.MoELayer(
                n_expert=w.n_expert,
                n_expert_used=w.n_expert_used,
                gating=w.gating,
                normalize=w.normalize,
                router=self.matrix(w.router),
                gate=self.matrix(w.gate),
                up=self.matrix(w.up),
                down=self.matrix(w.down),
                activation=w.activation,
                weight_scale=w.weight_scale,
                router_bias=_optional_values(w.router_bias),
                gate_bias=_optional_values(w.gate_bias),
                up_bias=_optional_values(w.up_bias),
                down_bias=_optional_values(w.down_bias),
                down_scale=_optional_values(w.down_scale),
                shared=None if w.shared is None else self.ffn_layer(w.shared),
                shared_gate=_optional_values(w.shared_gate),
            )

    def kv_cache(self, layout: KVLayout, layer: int) -> _native.KVCache:  # noqa: ARG002
        return _native.KVCache(
            layout.n_slots,
            layout.capacity,
            layout.n_head_kv,
            layout.head_dim_k,
            layout.head_dim_v,
            layout.type_k,
            layout.type_v,
        )

    def delta_state(self, layout: DeltaStateLayout, layer: int) -> _native.DeltaState:  # noqa: ARG002
        return _native.DeltaState(
            layout.n_slots,
            layout.n_head_v,
            layout.head_dim_k,
            layout.head_dim_v,
            layout.conv_dim,
            layout.conv_kernel,
        )

    # --- recording -------------------------------------------------------------------------------
    def start_recording(self) -> None:
        self.engine.start_recording()

    def stop_recording(self) -> None:
        self.engine.stop_recording()

    def recorded(self) -> dict[str, InputSums]:
        return {
            self._sources[source]: InputSums(squares, rows)
            for source, (squares, rows) in self.engine.recorded().items()
        }

    # --- step time -------------------------------------------------------------------------------
    def batch(self, segments: Sequence[Segment]) -> _native.Batch:
        return _native.Batch([s.slot for s in segments], [s.past for s in segments], [s.n for s in segments])

    def embed(self, matrix: _native.Matrix, tokens: I32) -> F32:
        out = np.empty((len(tokens), matrix.cols), np.float32)
        _native.embed(self.engine, matrix, tokens, out)
        return out

    def rms_norm(self, x: F32, weight: F32 | None, eps: float) -> F32:
        out = np.empty(x.shape, np.float32)
        _native.rms_norm(self.engine, x, weight, eps, out)
        return out

    def add_rms_norm(self, x: F32, delta: F32, weight: F32, eps: float) -> F32:
        out = np.empty(x.shape, np.float32)
        _native.add_rms_norm(self.engine, x, delta, weight, eps, out)
        return out

    def add(self, x: F32, delta: F32) -> None:
        _native.add(self.engine, x, delta)

    def scale(self, x: F32, factor: float) -> None:
        _native.scale(self.engine, x, factor)

    def softcap(self, x: F32, cap: float) -> None:
        _native.softcap(self.engine, x, cap)

    def gated(self, gate: F32, up: F32, activation: Activation) -> F32:
        out = np.empty(gate.shape, np.float32)
        _native.gated(self.engine, gate, up, activation, out)
        return out

    def linear(self, x: F32, matrix: _native.Matrix, bias: F32 | None = None) -> F32:
        out = np.empty((x.shape[0], matrix.rows), np.float32)
        _native.matmul(self.engine, matrix, 0, x, out, bias)
        return out

    def rows(self, x: F32, index: I32) -> F32:
        return x[index]

    def reshape(self, x: F32, width: int) -> F32:
        return x.reshape(-1, width)

    def columns(self, x: F32, start: int, stop: int) -> F32:
        return np.ascontiguousarray(x[:, start:stop])

    def attention(
        self, x: F32, layer: _native.AttentionLayer, cache: _native.KVCache, batch: _native.Batch
    ) -> F32:
        out = np.empty(x.shape, np.float32)
        _native.attention(self.engine, layer, x, cache, batch, out)
        return out

    def delta_net(
        self, x: F32, layer: _native.DeltaNetLayer, state: _native.DeltaState, batch: _native.Batch
    ) -> F32:
        out = np.empty(x.shape, np.float32)
        _native.delta_net(self.engine, layer, x, state, batch, out)
        return out

    def ffn(self, x: F32, layer: _native.FFNLayer) -> F32:
        out = np.empty(x.shape, np.float32)
        _native.ffn(self.engine, layer, x, out)
        return out

    def moe(
        self, x: F32, layer: _native.MoELayer, router_x: F32 | None = None, routes: I32 | None = None
    ) -> F32:
        out = np.empty(x.shape, np.float32)
        _native.moe(self.engine, layer, x, out, router_x, routes)
        return out

    def route(self, x: F32, layer: _native.MoELayer, n_used: int) -> tuple[I32, F32]:
        """The routing of a MoE layer alone: experts and their weights, [n_tokens, n_used]."""
        ids, weights = np.empty((len(x), n_used), np.int32), np.empty((len(x), n_used), np.float32)
        _native.moe_route(self.engine, layer, x, ids, weights)
        return ids, weights

    def experts(self, x: F32, layer: _native.MoELayer, ids: I32, weights: F32, *, with_shared: bool) -> F32:
        """The experts of a MoE layer alone: the sum of weights * expert(x) over `ids`, both
        [n_tokens, n_expert_used]; negative ids are computed elsewhere."""
        out = np.empty(x.shape, np.float32)
        _native.moe_experts(self.engine, layer, x, ids, weights, with_shared, out)
        return out

    def to_numpy(self, x: F32) -> F32:
        return x
