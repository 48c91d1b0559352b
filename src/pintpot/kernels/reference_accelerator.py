"""An accelerator that any machine has: the reference ops in plain torch, in a memory of so many bytes.

Weights lie in it in the file's blocks, caches in their types; the bytes are those of a GPU that keeps them
so. A matrix is unpacked when it is used, one at a time, and forgotten: those floats, and what an op needs
within itself, are the price of formulas in place of kernels, and are not counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from pintpot.errors import PintpotError
from pintpot.kernels.accelerator import Accelerator, copy_expert, expert_bytes
from pintpot.kernels.api import (
    F32,
    I32,
    AttentionWeights,
    DeltaNetWeights,
    MoEWeights,
    Prepared,
    TensorView,
)
from pintpot.kernels.failures import explain_failure
from pintpot.kernels.memory import Kind, MemoryBudget
from pintpot.kernels.reference import FFN, Matrix, ReferenceOps, activate
from pintpot.kernels.reference_state import ReferenceDeltaState, ReferenceKVCache
from pintpot.quants.reference import dequantize
from pintpot.spec.cache import DeltaStateLayout, KVLayout


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """Matrices in their GGUF blocks, uint8 [n_mats, rows * row_bytes]."""

    blocks: Tensor
    ggml_type: int
    rows: int
    cols: int
    recorded_as: str | None

    @property
    def n_mats(self) -> int:
        return len(self.blocks)

    def mat(self, index: int) -> Tensor:
        return _unpack(self.blocks[index], self.ggml_type, self.rows, self.cols)


@dataclass(frozen=True, slots=True)
class RoutedLayer:
    """Router, shared expert, and slots: uint8 [n_slots, expert_bytes]."""

    w: MoEWeights
    router: Matrix | None
    shared: FFN | None
    slots: Tensor


class ReferenceAccelerator(ReferenceOps, Accelerator):
    """The reference ops over a counted memory of `limit_bytes`."""

    name = "CPU accelerator"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(torch.float32)
        self.memory = MemoryBudget(self.name, limit_bytes)
        self._stream = torch.empty(0, dtype=torch.uint8)

    # --- load time

    def matrix(self, view: TensorView) -> PackedMatrix:
        n_bytes = view.rows * view.row_bytes
        self.memory.take(view.n_mats * n_bytes, Kind.DENSE, f"tensor {view.name}")
        blocks = torch.empty((view.n_mats, n_bytes), dtype=torch.uint8)
        for i, target in enumerate(blocks.numpy()):
            target[:] = view.data[i * view.mat_stride : i * view.mat_stride + n_bytes]
        return PackedMatrix(
            blocks, view.ggml_type, view.rows, view.cols, None if view.first_row else view.name
        )

    def vector(self, values: F32, name: str) -> Tensor:
        self.memory.take(values.nbytes, Kind.DENSE, f"tensor {name}")
        return self._values(values)

    def attention_layer(self, w: AttentionWeights) -> Prepared:
        self._take_vectors(w, w.wq.name)
        return super().attention_layer(w)

    def delta_net_layer(self, w: DeltaNetWeights) -> Prepared:
        self._take_vectors(w, w.wqkv.name)
        return super().delta_net_layer(w)

    def moe_layer(self, w: MoEWeights) -> Prepared:
        layer = self.routed_layer(w, w.n_expert)
        for expert in range(w.n_expert):
            self.write_slot(layer, expert, expert)
        return layer

    def routed_layer(self, w: MoEWeights, n_slots: int, *, with_router: bool = True) -> RoutedLayer:
        for values in (w.router_bias, w.shared_gate):
            if values is not None:
                self.memory.take(values.nbytes, Kind.DENSE, f"vectors beside {w.router.name}")
        router = self.matrix(w.router) if with_router else None
        shared = None if w.shared is None else self.ffn_layer(w.shared)
        n_bytes = expert_bytes(w)
        self.memory.take(n_slots * n_bytes, Kind.EXPERTS, f"{n_slots} slots of {w.gate.name}")
        # An expert of NaN is noticed: a slot must be written before it is used.
        slots = torch.full((n_slots, n_bytes), 0xFF, dtype=torch.uint8)
        return RoutedLayer(w, router, shared, slots)

    def with_slots(self, layer: RoutedLayer, n_slots: int) -> RoutedLayer:
        n_bytes = layer.slots.shape[1]
        self.memory.give(layer.slots.nbytes, Kind.EXPERTS)
        self.memory.take(n_slots * n_bytes, Kind.EXPERTS, f"{n_slots} slots of {layer.w.gate.name}")
        return replace(layer, slots=torch.full((n_slots, n_bytes), 0xFF, dtype=torch.uint8))

    def kv_cache(self, layout: KVLayout, layer: int) -> ReferenceKVCache:
        self.memory.take(layout.nbytes, Kind.CACHE, f"the cache of layer {layer}")
        return super().kv_cache(layout, layer)

    def delta_state(self, layout: DeltaStateLayout, layer: int) -> ReferenceDeltaState:
        self.memory.take(layout.nbytes, Kind.CACHE, f"the state of layer {layer}")
        return super().delta_state(layout, layer)

    def reserve_stream(self, n_bytes: int) -> None:
        self.memory.take(n_bytes, Kind.BUFFERS, "the buffers of streamed experts")
        self._stream = torch.empty(n_bytes, dtype=torch.uint8)

    def _take_vectors(self, w: AttentionWeights | DeltaNetWeights, beside: str) -> None:
        vectors = (getattr(w, field.name) for field in dataclasses.fields(w))
        n_bytes = sum(v.nbytes for v in vectors if isinstance(v, np.ndarray))
        self.memory.take(n_bytes, Kind.DENSE, f"vectors beside {beside}")

    # --- step time

    def explain(self, error: BaseException) -> PintpotError | None:
        return explain_failure(self.name, error)

    def upload(self, x: F32) -> Tensor:
        return torch.from_numpy(np.array(x, np.float32))

    def to_numpy(self, x: Tensor) -> F32:
        return np.array(x.numpy())

    def write_slot(self, layer: RoutedLayer, slot: int, expert: int) -> int:
        target = layer.slots[slot].numpy()
        copy_expert(layer.w, expert, target)
        return target.nbytes

    def route(self, x: Tensor, layer: RoutedLayer) -> tuple[I32, F32]:
        if layer.router is None:
            raise ValueError(f"{layer.w.router.name} is not on the accelerator")
        logits = self._linear(x, layer.router, self._opt(layer.w.router_bias))
        ids, weights = self._route(logits, layer.w)
        return ids.to(torch.int32).numpy(), np.ascontiguousarray(weights.numpy())

    def moe(
        self, x: Tensor, layer: Prepared, router_x: Tensor | None = None, routes: I32 | None = None
    ) -> Tensor:
        ids, weights = self.route(x if router_x is None else router_x, layer)
        if routes is not None:
            routes[:] = ids
        return self.slot_experts(x, layer, ids, weights)

    def slot_experts(self, x: Tensor, layer: RoutedLayer, slots: I32, weights: F32) -> Tensor:
        out = torch.zeros_like(x)
        for slot in np.unique(slots[slots >= 0]).tolist():
            self._add_expert(x, layer.w, layer.slots[slot], np.nonzero(slots == slot), weights, out)
        return out if layer.shared is None else out + self._shared(x, layer.shared, layer.w.shared_gate)

    def add_streamed(
        self, x: Tensor, layer: RoutedLayer, experts: Sequence[int], ids: I32, weights: F32, out: Tensor
    ) -> int:
        n_bytes = layer.slots.shape[1]
        buffers = (self._stream[:n_bytes], self._stream[n_bytes : 2 * n_bytes])
        for i, expert in enumerate(experts):
            buffer = buffers[i % 2]
            copy_expert(layer.w, expert, buffer.numpy())
            self._add_expert(x, layer.w, buffer, np.nonzero(ids == expert), weights, out)
        return len(experts) * n_bytes

    def _add_expert(
        self, x: Tensor, w: MoEWeights, expert: Tensor, chosen: tuple[Any, ...], weights: F32, out: Tensor
    ) -> None:
        """out += weight * expert(x) for the (token, place) pairs of `chosen`."""
        token = torch.from_numpy(chosen[0])
        y = self._packed_expert(x[token], w, expert)
        out.index_add_(0, token, y * torch.from_numpy(weights[chosen])[:, None])

    def _packed_expert(self, x: Tensor, w: MoEWeights, expert: Tensor) -> Tensor:
        parts = _Parts(expert)
        gate, up, down = (parts.matrix(view) for view in (w.gate, w.up, w.down))
        gate_bias, up_bias, down_bias = (parts.vector(bias) for bias in (w.gate_bias, w.up_bias, w.down_bias))
        hidden = activate(F.linear(x, gate, gate_bias), F.linear(x, up, up_bias), w.activation)
        y = F.linear(hidden, down)
        scale = parts.vector(w.down_scale)
        y = y if scale is None else y * scale
        return y if down_bias is None else y + down_bias


class _Parts:
    """Reads an expert's parts in the order of `accelerator.expert_parts`."""

    def __init__(self, expert: Tensor) -> None:
        self._expert = expert
        self._at = 0

    def matrix(self, view: TensorView) -> Tensor:
        return _unpack(self._next(view.rows * view.row_bytes), view.ggml_type, view.rows, view.cols)

    def vector(self, values: F32 | None) -> Tensor | None:
        if values is None:
            return None
        return torch.from_numpy(self._next(values[0].nbytes).numpy().copy().view(np.float32))

    def _next(self, n_bytes: int) -> Tensor:
        part = self._expert[self._at : self._at + n_bytes]
        self._at += n_bytes
        return part


def _unpack(blocks: Tensor, ggml_type: int, rows: int, cols: int) -> Tensor:
    return torch.from_numpy(dequantize(ggml_type, blocks.numpy(), (rows, cols)))
