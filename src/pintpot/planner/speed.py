"""How fast: a roofline. Bytes over bandwidth where memory is the limit, operations over cores elsewhere.

T = fixed + sum over layers (dense part + max(experts on the GPU, experts on the CPU + hand-off)), every
part where the placement has it. Efficiencies come with the engine's profile, bandwidths with the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pintpot.hardware.machine import GPU, Hardware
from pintpot.planner.memory import LayerBytes, ModelBytes
from pintpot.planner.profile import EngineProfile


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model's parts lie; tuples have an entry for every layer. A layer's cache lies with its dense
    part."""

    dense_on_gpu: tuple[bool, ...]
    resident: tuple[int, ...]  # routed experts in VRAM
    output_on_gpu: bool

    @property
    def n_gpu_layers(self) -> int:
        return sum(self.dense_on_gpu)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a machine gives an engine, a second."""

    cpu_bytes: float
    gpu_bytes: float  # 0 without a GPU
    cpu_macs: float
    gpu_macs: float
    pcie_bytes: float


def rates(hardware: Hardware, profile: EngineProfile, n_threads: int | None = None) -> Rates:
    """The lesser of memory and cores on the CPU; bandwidth and matrix units of the first GPU."""
    cores = n_threads or hardware.cpu.cores
    gpu: GPU | None = hardware.gpus[0] if hardware.gpus else None
    return Rates(
        cpu_bytes=min(hardware.ram_bandwidth_bytes_s * profile.ram_efficiency, cores * profile.core_bytes_s),
        gpu_bytes=(gpu.bandwidth_bytes_s or 0.0) * profile.vram_efficiency if gpu else 0.0,
        cpu_macs=cores * profile.core_macs_s,
        gpu_macs=(gpu.f16_flops or 0.0) / 2 * profile.gpu_flops_efficiency if gpu else 0.0,
        pcie_bytes=(gpu.pcie_bytes_s or 0.0) if gpu else 0.0,
    )


@dataclass(frozen=True, slots=True)
class TokenTime:
    """Seconds of one token, by what takes them. GPU and CPU parts of a layer overlap: `total` is no sum."""

    total: float
    gpu: float
    cpu: float
    fixed: float

    @property
    def tokens_s(self) -> float:
        return 1.0 / self.total

    @property
    def bottleneck(self) -> str:
        """What to have more of."""
        parts = {"RAM bandwidth and CPU": self.cpu, "VRAM bandwidth": self.gpu, "fixed costs": self.fixed}
        return max(parts, key=lambda name: parts[name])


def expert_seconds(
    layer: LayerBytes, resident: int, rate: Rates, profile: EngineProfile
) -> tuple[float, float, float]:
    """(elapsed, GPU, CPU) seconds of a layer's routed experts, `resident` of them in VRAM."""
    if not layer.n_expert:
        return 0.0, 0.0, 0.0
    hits = profile.hit_share(resident / layer.n_expert, layer.n_expert) if resident else 0.0
    gpu = layer.routed * hits / rate.gpu_bytes if hits else 0.0
    cpu = layer.routed * (1.0 - hits) / rate.cpu_bytes
    if resident < layer.n_expert:
        cpu += profile.cpu_layer_s + (profile.handoff_s if rate.gpu_bytes else 0.0)
    return max(gpu, cpu), gpu, cpu


def layer_seconds(
    layer: LayerBytes, cache_read: int, resident: int | None, rate: Rates, profile: EngineProfile
) -> tuple[float, float, float, float]:
    """(elapsed, GPU, CPU, fixed) seconds of a layer on the GPU with `resident` of its experts; None: of one
    on the CPU. `cache_read`: bytes of keys, values and state that it reads. Elapsed includes fixed costs."""
    dense = layer.dense + cache_read
    if resident is None:
        cpu = (dense + layer.routed) / rate.cpu_bytes
        return cpu + profile.cpu_layer_s, 0.0, cpu, profile.cpu_layer_s
    here = (dense - layer.dense_in_ram) / rate.gpu_bytes
    there = layer.dense_in_ram / rate.cpu_bytes
    fixed = profile.gpu_layer_s
    if layer.dense_in_ram:
        fixed += profile.cpu_layer_s + profile.handoff_s
    elapsed, on_gpu, on_cpu = expert_seconds(layer, resident, rate, profile)
    return here + there + elapsed + fixed, here + on_gpu, there + on_cpu, fixed


def head_seconds(model: ModelBytes, rate: Rates, *, on_gpu: bool) -> float:
    """Of the output head."""
    return model.head / (rate.gpu_bytes if on_gpu else rate.cpu_bytes)


def decode(
    model: ModelBytes,
    cache_reads: Sequence[int],
    placement: Placement,
    rate: Rates,
    profile: EngineProfile,
) -> TokenTime:
    """One token. `cache_reads`: bytes of keys, values and state read in each layer, which says the depth."""
    fixed = profile.token_s
    head = head_seconds(model, rate, on_gpu=placement.output_on_gpu)
    gpu, cpu = (head, 0.0) if placement.output_on_gpu else (0.0, head)
    total = fixed + head
    for i, layer in enumerate(model.layers):
        resident = placement.resident[i] if placement.dense_on_gpu[i] else None
        elapsed, on_gpu, on_cpu, once = layer_seconds(layer, cache_reads[i], resident, rate, profile)
        total += elapsed
        gpu += on_gpu
        cpu += on_cpu
        fixed += once
    return TokenTime(total, gpu, cpu, fixed)


def prefill_tokens_s(
    model: ModelBytes, placement: Placement, rate: Rates, n_batch: int, profile: EngineProfile
) -> float:
    """Prompt tokens a second, `n_batch` at a time, without what attention adds at depth.

    Every weight is read once a batch and multiplied `n_batch` times. Experts in RAM are computed by the CPU,
    or streamed to the GPU and computed there, whichever is faster.
    """
    total = 0.0
    for i, layer in enumerate(model.layers):
        gpu = placement.dense_on_gpu[i]
        in_ram = layer.dense_in_ram, layer.dense_macs_in_ram
        if gpu and in_ram[0]:
            total += _batch_seconds(*in_ram, n_batch, rate, gpu=False) + profile.handoff_s
            rest = layer.dense - in_ram[0], layer.dense_macs - in_ram[1]
            total += _batch_seconds(*rest, n_batch, rate, gpu=True)
        else:
            total += _batch_seconds(layer.dense, layer.dense_macs, n_batch, rate, gpu=gpu)
        if not layer.n_expert:
            continue
        resident = placement.resident[i] / layer.n_expert
        cold_bytes, cold_macs = layer.experts * (1 - resident), layer.routed_macs * (1 - resident)
        cold = _batch_seconds(cold_bytes, cold_macs, n_batch, rate, gpu=False)
        if gpu and rate.pcie_bytes and cold_bytes:
            streamed = cold_bytes / rate.pcie_bytes + n_batch * cold_macs / rate.gpu_macs
            cold = min(cold, streamed) + profile.handoff_s
        warm = layer.experts * resident, layer.routed_macs * resident
        total += cold + (_batch_seconds(*warm, n_batch, rate, gpu=True) if resident else 0.0)
    return n_batch / (total + profile.token_s)


def _batch_seconds(nbytes: float, macs: float, n_batch: int, rate: Rates, *, gpu: bool) -> float:
    """The longer of reading weights once and multiplying them for every token."""
    if gpu:
        return max(nbytes / rate.gpu_bytes, n_batch * macs / rate.gpu_macs)
    return max(nbytes / rate.cpu_bytes, n_batch * macs / rate.cpu_macs)
