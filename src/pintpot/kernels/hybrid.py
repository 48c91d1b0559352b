"""Two backends as one: what the plan puts on the accelerator runs there, the rest on the CPU, where it lies.

Every prepared weight knows its side, and an op runs on the side of its weight; arrays follow. Of a MoE layer
on the accelerator the routed experts are divided once more: those in slots are computed there, the others by
the CPU from the mapped file meanwhile, or streamed through where a step has many tokens for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pintpot.errors import AcceleratorError, UsageError
from pintpot.kernels.accelerator import Accelerator
from pintpot.kernels.api import (
    F32,
    I32,
    Activation,
    Array,
    AttentionWeights,
    DeltaNetWeights,
    FFNWeights,
    InputSums,
    MoEWeights,
    Ops,
    Prepared,
    Segment,
    TensorView,
)
from pintpot.kernels.cpu import CpuOps
from pintpot.kernels.expert_slots import ExpertCounts, ExpertSlots, Split
from pintpot.kernels.memory import Kind, MemoryBudget
from pintpot.planner.residence import Residence
from pintpot.spec.cache import DeltaStateLayout, KVLayout

_LAYER: Final = re.compile(r"blk\.(\d+)\.")
_EMBEDDING: Final = "token_embd.weight"
_COLD_SECONDS: Final = 600  # of one layer and step: far beyond any machine that works
_LOOKED_UP: Final = "per_layer_token_embd.weight"


@dataclass(frozen=True, slots=True)
class Placed:
    """What one side prepared."""

    on_accelerator: bool
    value: Prepared


@dataclass(frozen=True, slots=True)
class PlacedMatrix:
    """A matrix for lookups in RAM (`host`, None where it is never looked up) and for products."""

    host: Prepared
    product: Placed
    rows: int


@dataclass(slots=True)
class RoutedExperts:
    """A MoE layer with its dense part on the accelerator: `host` computes what no slot holds.

    `device` and `slots` are others after `HybridOps.resize_slots`."""

    index: int
    host: Prepared
    device: Prepared
    slots: ExpertSlots
    n_used: int  # experts a token
    routed_there: bool  # the router lies on the accelerator, else in RAM
    shared_here: bool  # the shared expert lies in RAM


@dataclass(frozen=True, slots=True)
class CpuExperts:
    """A MoE layer that lies in RAM with all that it has."""

    host: Prepared
    n_used: int


@dataclass(frozen=True, slots=True)
class HybridBatch:
    host: Prepared
    device: Prepared


class HybridArray:
    """An array on one side at a time. On the accelerator its bytes are counted as long as it lives."""

    __slots__ = ("_account", "_base", "_counted", "on_accelerator", "value")

    def __init__(self, value: Array, account: MemoryBudget | None, base: HybridArray | None = None) -> None:
        """`account`: of activations on the accelerator; None: on the host. A view names its `base`."""
        self._account: MemoryBudget | None = None
        self._base = base
        self._counted = 0
        self.value = value
        self.on_accelerator = account is not None
        if account is not None and base is None:
            self._count(account)

    def __len__(self) -> int:
        return len(self.value)

    def __del__(self) -> None:
        self._release()

    def move(self, value: Array, account: MemoryBudget | None) -> None:
        """The array lies on the other side from now on, as `value`."""
        self._release()
        self._base = None
        self.value = value
        self.on_accelerator = account is not None
        if account is not None:
            self._count(account)

    def _count(self, account: MemoryBudget) -> None:
        account.take(self.value.nbytes, Kind.BUFFERS, f"an array of {tuple(self.value.shape)}")
        self._account, self._counted = account, self.value.nbytes

    def _release(self) -> None:
        if self._account is not None:
            self._account.give(self._counted, Kind.BUFFERS)
            self._account = None


def _layer(name: str) -> int:
    """The layer of a block's tensor. Raises ValueError for one that belongs to none."""
    match = _LAYER.match(name)
    if match is None:
        raise ValueError(f"tensor {name} belongs to no layer")
    return int(match[1])


class HybridOps(Ops):
    """The ops of a model of which `residence` says what lies where. For one caller at a time.

    `layers`: the MoE layers whose experts are divided, by number; slots are empty until `place_expert` is
    told what to put there. `counts` are totals. `observe(layer, ids)` is called with every routing.
    """

    def __init__(self, cpu: CpuOps, accelerator: Accelerator, residence: Residence) -> None:
        self.name = f"{accelerator.name} + {cpu.name}"
        self.cpu = cpu
        self.accelerator = accelerator
        self.residence = residence
        self.layers: dict[int, RoutedExperts] = {}
        self.counts = ExpertCounts()
        self.observe: Callable[[int, I32], None] | None = None
        self._workspace = accelerator.memory.reserve(residence.step_bytes, Kind.BUFFERS, "a step's arrays")
        accelerator.reserve_stream(residence.stream_bytes)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="cold-experts")
        self._cold: Future[F32] | None = None  # what the worker does, or did last

    # --- load time -------------------------------------------------------------------------------
    def _side(self, on_accelerator: bool) -> Ops:
        return self.accelerator if on_accelerator else self.cpu

    def matrix(self, view: TensorView) -> PlacedMatrix:
        if view.name == _LOOKED_UP or (view.name == _EMBEDDING and not self._multiplied_there):
            host = self.cpu.matrix(view)
            return PlacedMatrix(host, Placed(False, host), view.rows)
        there = self.residence.holds(view.name)
        looked_up = self.cpu.matrix(view) if view.name == _EMBEDDING else None
        return PlacedMatrix(looked_up, Placed(there, self._side(there).matrix(view)), view.rows)

    @property
    def _multiplied_there(self) -> bool:
        """Whether the embedding is also the head, and on the accelerator."""
        return self.residence.tied_head and self.residence.head

    def vector(self, values: F32, name: str) -> Placed:
        there = self.residence.holds(name)
        return Placed(there, self._side(there).vector(values, name))

    def attention_layer(self, w: AttentionWeights) -> Placed:
        there = self.residence.mixers[_layer(w.wq.name)]
        return Placed(there, self._side(there).attention_layer(w))

    def delta_net_layer(self, w: DeltaNetWeights) -> Placed:
        there = self.residence.mixers[_layer(w.wqkv.name)]
        return Placed(there, self._side(there).delta_net_layer(w))

    def ffn_layer(self, w: FFNWeights) -> Placed:
        there = self.residence.holds(w.gate.name, w.up.name, w.down.name)
        return Placed(there, self._side(there).ffn_layer(w))

    def moe_layer(self, w: MoEWeights) -> Placed:
        host = self.cpu.moe_layer(w)
        index = _layer(w.router.name)
        if not self.residence.layers[index]:
            return Placed(False, CpuExperts(host, w.n_expert_used))
        n_slots = self.residence.slots[index]
        routed_there = self.residence.holds(w.router.name)
        shared_there = w.shared is not None and self.residence.holds(
            w.shared.gate.name, w.shared.up.name, w.shared.down.name
        )
        there = w if shared_there else replace(w, shared=None, shared_gate=None)
        there = there if routed_there else replace(there, router_bias=None)
        layer = RoutedExperts(
            index=index,
            host=host,
            device=self.accelerator.routed_layer(there, n_slots, with_router=routed_there),
            slots=ExpertSlots(w.n_expert, n_slots),
            n_used=w.n_expert_used,
            routed_there=routed_there,
            shared_here=w.shared is not None and not shared_there,
        )
        self.layers[index] = layer
        return Placed(True, layer)

    def place_expert(self, layer: int, slot: int, expert: int) -> None:
        """Copies an expert of a layer into a slot of it, in the place of what was there. Between steps."""
        routed = self.layers[layer]
        first = routed.slots.expert_in[slot] < 0
        routed.slots.vacate(slot)  # a copy that fails leaves nobody's bytes there
        n_bytes = self.accelerator.write_slot(routed.device, slot, expert)
        routed.slots.assign(slot, expert)
        if not first:
            self.counts.uploads += 1
            self.counts.upload_bytes += n_bytes

    def resize_slots(self, layer: int, n_slots: int) -> None:
        """Gives a layer `n_slots` empty slots instead of those it has. Between steps."""
        routed = self.layers[layer]
        n_expert = len(routed.slots.slot_of)
        routed.slots = ExpertSlots(n_expert, 0)  # should the rest fail
        routed.device = self.accelerator.with_slots(routed.device, n_slots)
        routed.slots = ExpertSlots(n_expert, n_slots)

    def kv_cache(self, layout: KVLayout, layer: int) -> Prepared:
        return self._side(self.residence.mixers[layer]).kv_cache(layout, layer)

    def delta_state(self, layout: DeltaStateLayout, layer: int) -> Prepared:
        return self._side(self.residence.mixers[layer]).delta_state(layout, layer)

    # --- recording -------------------------------------------------------------------------------
    def start_recording(self) -> None:
        raise UsageError("inputs are recorded on the CPU alone: load the model with --accelerator none")

    def stop_recording(self) -> None:
        """Nothing was begun."""

    def recorded(self) -> dict[str, InputSums]:
        return {}

    # --- arrays ----------------------------------------------------------------------------------
    def _there(self, x: HybridArray) -> Array:
        """x on the accelerator, brought there if need be."""
        if not x.on_accelerator:
            x.move(self.accelerator.upload(x.value), self._workspace)
        return x.value

    def _here(self, x: HybridArray) -> Array:
        """x on the host, brought there if need be."""
        if x.on_accelerator:
            x.move(self.accelerator.to_numpy(x.value), None)
        return x.value

    def _at(self, x: HybridArray, on_accelerator: bool) -> Array:
        return self._there(x) if on_accelerator else self._here(x)

    def _new(self, value: Array, on_accelerator: bool) -> HybridArray:
        return HybridArray(value, self._workspace if on_accelerator else None)

    # --- step time -------------------------------------------------------------------------------
    def batch(self, segments: Sequence[Segment]) -> HybridBatch:
        self._settle()  # a step that was interrupted twice may have left it working
        return HybridBatch(self.cpu.batch(segments), self.accelerator.batch(segments))

    def embed(self, matrix: PlacedMatrix, tokens: I32) -> HybridArray:
        return self._new(self.cpu.embed(matrix.host, tokens), False)

    def rms_norm(self, x: HybridArray, weight: Placed | None, eps: float) -> HybridArray:
        there = x.on_accelerator if weight is None else weight.on_accelerator
        out = self._side(there).rms_norm(self._at(x, there), None if weight is None else weight.value, eps)
        return self._new(out, there)

    def add_rms_norm(self, x: HybridArray, delta: HybridArray, weight: Placed, eps: float) -> HybridArray:
        there = weight.on_accelerator
        out = self._side(there).add_rms_norm(self._at(x, there), self._at(delta, there), weight.value, eps)
        return self._new(out, there)

    def add(self, x: HybridArray, delta: HybridArray) -> None:
        self._side(x.on_accelerator).add(x.value, self._at(delta, x.on_accelerator))

    def scale(self, x: HybridArray, factor: float) -> None:
        self._side(x.on_accelerator).scale(x.value, factor)

    def softcap(self, x: HybridArray, cap: float) -> None:
        self._side(x.on_accelerator).softcap(x.value, cap)

    def gated(self, gate: HybridArray, up: HybridArray, activation: Activation) -> HybridArray:
        there = gate.on_accelerator
        return self._new(self._side(there).gated(gate.value, self._at(up, there), activation), there)

    def linear(self, x: HybridArray, matrix: PlacedMatrix, bias: Placed | None = None) -> HybridArray:
        there = matrix.product.on_accelerator
        rows = None if bias is None else bias.value
        if there and 4 * len(x) * matrix.rows > self._workspace.free_bytes:
            return self._linear_by_rows(x, matrix, rows)
        return self._new(self._side(there).linear(self._at(x, there), matrix.product.value, rows), there)

    def _linear_by_rows(self, x: HybridArray, matrix: PlacedMatrix, bias: Prepared | None) -> HybridArray:
        """On the accelerator some rows of x at a time, as many as there is room for; the result on the host:
        the logits after every token of a long prompt are more than anything else of a step."""
        value = self._there(x)
        n_rows = max(1, self._workspace.free_bytes // (4 * matrix.rows))
        out = np.empty((len(x), matrix.rows), np.float32)
        for start in range(0, len(x), n_rows):
            part = self.accelerator.linear(value[start : start + n_rows], matrix.product.value, bias)
            out[start : start + n_rows] = self.accelerator.to_numpy(self._new(part, True).value)
        return self._new(out, False)

    def rows(self, x: HybridArray, index: I32) -> HybridArray:
        return self._new(self._side(x.on_accelerator).rows(x.value, index), x.on_accelerator)

    def reshape(self, x: HybridArray, width: int) -> HybridArray:
        value = self._side(x.on_accelerator).reshape(x.value, width)
        return HybridArray(value, self._workspace if x.on_accelerator else None, x)

    def columns(self, x: HybridArray, start: int, stop: int) -> HybridArray:
        return self._new(self._side(x.on_accelerator).columns(x.value, start, stop), x.on_accelerator)

    def attention(self, x: HybridArray, layer: Placed, cache: Prepared, batch: HybridBatch) -> HybridArray:
        there = layer.on_accelerator
        steps = batch.device if there else batch.host
        return self._new(self._side(there).attention(self._at(x, there), layer.value, cache, steps), there)

    def delta_net(self, x: HybridArray, layer: Placed, state: Prepared, batch: HybridBatch) -> HybridArray:
        there = layer.on_accelerator
        steps = batch.device if there else batch.host
        return self._new(self._side(there).delta_net(self._at(x, there), layer.value, state, steps), there)

    def ffn(self, x: HybridArray, layer: Placed) -> HybridArray:
        there = layer.on_accelerator
        return self._new(self._side(there).ffn(self._at(x, there), layer.value), there)

    def moe(
        self, x: HybridArray, layer: Placed, router_x: HybridArray | None = None, routes: I32 | None = None
    ) -> HybridArray:
        if isinstance(layer.value, CpuExperts):
            self.counts.misses += len(x) * layer.value.n_used
            seen_here = None if router_x is None else self._here(router_x)
            return self._new(self.cpu.moe(self._here(x), layer.value.host, seen_here, routes), False)
        routed: RoutedExperts = layer.value
        seen = x if router_x is None else router_x
        if routed.routed_there:
            ids, weights = self.accelerator.route(self._there(seen), routed.device)
        else:
            here = self.accelerator.to_numpy(self._there(seen))
            ids, weights = self.cpu.route(here, routed.host, routed.n_used)
        if routes is not None:
            routes[:] = ids
        if self.observe is not None:
            self.observe(routed.index, ids)
        return self._new(self._experts(self._there(x), routed, ids, weights), True)

    def _experts(self, x: Array, layer: RoutedExperts, ids: I32, weights: F32) -> Array:
        """Every part where it lies, both sides at once; joined on the accelerator."""
        split = layer.slots.split(ids, self.residence.stream_tokens)
        self._cold = self._begin_cold(x, layer, split, weights)
        try:
            out = self.accelerator.slot_experts(x, layer.device, split.slots, weights)
            if split.streamed:
                copied = self.accelerator.add_streamed(x, layer.device, split.streamed, ids, weights, out)
                self.counts.stream_bytes += copied
        finally:
            # Whatever happened here, nothing may still run on the CPU's threads when the next op wants them.
            rest = self._settle()
        if rest is not None:
            joined = self._new(self.accelerator.upload(rest), True)
            self.accelerator.add(out, joined.value)
        self.counts.hits += split.n_hits
        self.counts.misses += split.n_streamed + split.n_cpu
        self.counts.streamed += split.n_streamed
        return out

    def _settle(self) -> F32 | None:
        """Waits for the CPU's share; None where it has none. Raises AcceleratorError where it never ends."""
        cold = self._cold
        if cold is None:
            return None
        try:
            return cold.result(timeout=_COLD_SECONDS)
        except TimeoutError:
            raise AcceleratorError(
                f"the CPU's share of a layer's experts took more than {_COLD_SECONDS} s: the machine "
                "hangs, or is out of memory; run with a smaller batch (-b)"
            ) from None
        finally:
            if cold.done():  # else the wait was interrupted, and the next step waits first
                self._cold = None

    def _begin_cold(self, x: Array, layer: RoutedExperts, split: Split, weights: F32) -> Future[F32] | None:
        """The CPU's share, begun in a thread; None where it has none."""
        if not split.n_cpu and not layer.shared_here:
            return None
        host_x = self.accelerator.to_numpy(x)
        return self._worker.submit(
            self.cpu.experts, host_x, layer.host, split.cpu_ids, weights, with_shared=layer.shared_here
        )

    def to_numpy(self, x: HybridArray) -> F32:
        out: F32 = self._side(x.on_accelerator).to_numpy(x.value)
        return out
