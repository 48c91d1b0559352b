"""The accelerator that a GPU is: the Triton ops over a counted part of its memory.

Written for CUDA and tested in Triton's interpreter, on CPU tensors; it has not run on a GPU yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from pintpot.errors import AcceleratorMemoryError, PintpotError
from pintpot.kernels.accelerator import Accelerator
from pintpot.kernels.api import (
    F32,
    I32,
    AttentionWeights,
    DeltaNetWeights,
    FFNWeights,
    MoEWeights,
    Prepared,
    TensorView,
)
from pintpot.kernels.failures import explain_failure
from pintpot.kernels.memory import Kind, MemoryBudget
from pintpot.kernels.triton.delta_net import DeviceDeltaState
from pintpot.kernels.triton.formats import ALIGN_BYTES, layout_of
from pintpot.kernels.triton.kv_cache import DeviceKVCache
from pintpot.kernels.triton.moe import Experts
from pintpot.kernels.triton.ops import ExpertMatrices, Matrix, MoELayer, TritonOps
from pintpot.kernels.triton.repack import ELEMENTS, Stack
from pintpot.planner.memory import STREAMED_AT_ONCE
from pintpot.spec.cache import DeltaStateLayout, KVLayout

_PADDING_BYTES: Final = 3 * 5 * ALIGN_BYTES  # at most, of three matrices


class TritonAccelerator(TritonOps, Accelerator):
    """At most `limit_bytes` of a GPU's memory for weights, caches and what a step's arrays are granted."""

    def __init__(
        self, limit_bytes: int, device: str = "cuda", *, dot_dtype: torch.dtype = torch.float16
    ) -> None:
        super().__init__(device, dot_dtype=dot_dtype)
        self.memory = MemoryBudget(self.name, limit_bytes)
        self._stream = torch.empty(0, dtype=torch.uint8)

    # --- load time -------------------------------------------------------------------------------
    @contextmanager
    def _counted(self, n_bytes: int, kind: Kind, what: str) -> Iterator[None]:
        """Counts what is allocated within, and says in our words that the GPU has less than that."""
        self.memory.take(n_bytes, kind, what)
        try:
            yield
        except torch.OutOfMemoryError as error:
            self.memory.give(n_bytes, kind)
            raise AcceleratorMemoryError(
                f"{self.name}: {what} found no {n_bytes:,} bytes, though {self.memory.free_bytes:,} were "
                "to be had: another program took them"
            ) from error

    def matrix(self, view: TensorView) -> Matrix:
        with self._counted(_stack_bytes(view, view.n_mats), Kind.DENSE, f"tensor {view.name}"):
            return super().matrix(view)

    def vector(self, values: F32, name: str) -> Tensor:
        with self._counted(values.nbytes, Kind.DENSE, f"tensor {name}"):
            return super().vector(values, name)

    def attention_layer(self, w: AttentionWeights) -> Prepared:
        with self._counted(_vector_bytes(w), Kind.DENSE, f"vectors beside {w.wq.name}"):
            return super().attention_layer(w)

    def delta_net_layer(self, w: DeltaNetWeights) -> Prepared:
        with self._counted(_vector_bytes(w), Kind.DENSE, f"vectors beside {w.wqkv.name}"):
            return super().delta_net_layer(w)

    def ffn_layer(self, w: FFNWeights) -> ExpertMatrices:
        n_bytes = sum(_stack_bytes(view, 1) for view in (w.gate, w.up, w.down))
        with self._counted(n_bytes, Kind.DENSE, f"the block of {w.gate.name}"):
            return super().ffn_layer(w)

    def routed_layer(self, w: MoEWeights, n_slots: int, *, with_router: bool = True) -> MoELayer:
        if not with_router:  # a row in its place is never asked for
            w = replace(w, router=w.router.row_slice(0, 1), router_bias=None)
        beside = sum(v.nbytes for v in (w.router_bias, w.shared_gate) if v is not None)
        self.memory.take(beside, Kind.DENSE, f"vectors beside {w.router.name}")
        with self._counted(n_slots * _expert_bytes(w), Kind.EXPERTS, f"{n_slots} slots of {w.gate.name}"):
            return super().routed_layer(w, n_slots)

    def with_slots(self, layer: MoELayer, n_slots: int) -> MoELayer:
        e, size = layer.routed.experts, _expert_bytes(layer.w)
        self.memory.give(e.gate.n_mats * size, Kind.EXPERTS)
        for stack in (e.gate, e.up, e.down):
            stack.data.untyped_storage().resize_(0)
        with self._counted(n_slots * size, Kind.EXPERTS, f"{n_slots} slots of {layer.w.gate.name}"):
            return replace(layer, routed=self.empty_experts(layer.w, n_slots))

    def kv_cache(self, layout: KVLayout, layer: int) -> DeviceKVCache:
        with self._counted(layout.nbytes, Kind.CACHE, f"the cache of layer {layer}"):
            return super().kv_cache(layout, layer)

    def delta_state(self, layout: DeltaStateLayout, layer: int) -> DeviceDeltaState:
        with self._counted(layout.nbytes, Kind.CACHE, f"the state of layer {layer}"):
            return super().delta_state(layout, layer)

    def reserve_stream(self, n_bytes: int) -> None:
        # Layouts pad planes to their alignment: the last bytes are for that.
        with self._counted(n_bytes, Kind.BUFFERS, "the buffers of streamed experts"):
            self._stream = torch.zeros(n_bytes + STREAMED_AT_ONCE * _PADDING_BYTES, dtype=torch.uint8).to(
                self.device
            )

    # --- step time -------------------------------------------------------------------------------
    def explain(self, error: BaseException) -> PintpotError | None:
        return explain_failure(self.name, error)

    def upload(self, x: F32) -> Tensor:
        return torch.from_numpy(np.array(x, np.float32)).to(self.device)

    def to_numpy(self, x: Tensor) -> F32:
        return np.array(x.cpu().numpy())

    def route(self, x: Tensor, layer: MoELayer) -> tuple[I32, F32]:
        ids, weights = self.route_on_device(x, layer)
        return ids.cpu().numpy(), weights.cpu().numpy()

    def slot_experts(self, x: Tensor, layer: MoELayer, slots: I32, weights: F32) -> Tensor:
        if layer.routed.experts.gate.n_mats:
            return self.experts_on_device(x, layer, self._index(slots), self.upload(weights))
        if layer.shared is None:
            return torch.zeros_like(x)
        y = self.ffn(x, layer.shared)
        return y if layer.shared_gate is None else y * torch.sigmoid(x @ layer.shared_gate)[:, None]

    def add_streamed(
        self, x: Tensor, layer: MoELayer, experts: Sequence[int], ids: I32, weights: F32, out: Tensor
    ) -> int:
        # Two at a time: the device orders copies and kernels, and the host copies ahead of them.
        way, factors = self._way_through(layer), self.upload(weights)
        n_bytes = 0
        for start in range(0, len(experts), STREAMED_AT_ONCE):
            slots = np.full_like(ids, -1)
            for slot, expert in enumerate(experts[start : start + STREAMED_AT_ONCE]):
                n_bytes += self.write_slot(way, slot, expert)
                slots[ids == expert] = slot
            out += self.experts_on_device(x, way, self._index(slots), factors)
        return n_bytes

    def _way_through(self, layer: MoELayer) -> MoELayer:
        """The layer with the stream's buffers as its slots, and without its shared expert."""
        at, stacks = 0, []
        e = layer.routed.experts
        for stack in (e.gate, e.up, e.down):
            layout = stack.layout
            stop = at + STREAMED_AT_ONCE * layout.nbytes
            data = self._stream[at:stop].view(STREAMED_AT_ONCE, layout.nbytes)
            stacks.append(Stack(layout, data, data.view(ELEMENTS[layout.element]), data.view(torch.float16)))
            at = stop
        # Biases are some bytes beside buffers of megabytes.
        biases = (
            None if v is None else v.new_zeros(STREAMED_AT_ONCE, *v.shape[1:])
            for v in (e.gate_bias, e.up_bias, e.down_bias, e.down_scale)
        )
        gate, up, down = stacks
        experts = Experts(gate, up, down, e.activation, *biases)
        return replace(layer, routed=replace(layer.routed, experts=experts), shared=None, shared_gate=None)


def _stack_bytes(view: TensorView, n_mats: int) -> int:
    return n_mats * layout_of(view.ggml_type, view.rows, view.cols).nbytes


def _expert_bytes(w: MoEWeights) -> int:
    """Of a slot: the planes of three matrices, and vectors."""
    vectors = (w.gate_bias, w.up_bias, w.down_bias, w.down_scale)
    n_bytes: int = sum(v[0].nbytes for v in vectors if v is not None)
    return n_bytes + sum(_stack_bytes(view, 1) for view in (w.gate, w.up, w.down))


def _vector_bytes(w: AttentionWeights | DeltaNetWeights) -> int:
    values = (getattr(w, field.name) for field in dataclasses.fields(w))
    return sum(v.nbytes for v in values if isinstance(v, np.ndarray))
