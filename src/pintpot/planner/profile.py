"""What an engine makes of a machine: the few constants that turn bytes and operations into seconds.

A GPU or CPU part of a token takes its bytes over the bandwidth times an efficiency, the CPU never less than
its cores need to unpack and multiply. `source` says for every constant where it comes from; those of this
project's engine are replaced by what this machine has measured (`planner.calibration`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pintpot.spec.cache import CacheSteps

_FEW_EXPERTS: Final = 64  # below, a token uses a large share of them and skew counts for less


@dataclass(frozen=True, slots=True)
class HitCurve:
    """Share of routed experts found in VRAM when a share r of them is there: 1 - (1 - r^rise)^fall.

    The formula is of Kumaraswamy's distribution, fitted. With rise <= 1 <= fall it is concave: the first
    slots catch most. Both 1: experts are equally likely.
    """

    rise: float = 1.0
    fall: float = 1.0

    def share(self, resident: float) -> float:
        """At `resident`, clamped to 0 to 1."""
        there = min(max(resident, 0.0), 1.0)
        return 1.0 - float((1.0 - there**self.rise) ** self.fall)


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Efficiencies of one engine. Weights count as stored; rates are a second."""

    name: str
    per_expert: bool  # experts are placed one by one, a number of slots in every layer; else whole layers
    ram_efficiency: float  # of the measured read bandwidth, when memory is the limit
    vram_efficiency: float
    core_bytes_s: float  # what one core unpacks and multiplies, one token at a time
    core_macs_s: float  # multiply-adds of one core in prefill
    gpu_flops_efficiency: float
    token_s: float  # fixed, each token: sampling and the step itself
    cpu_layer_s: float  # fixed, each layer the CPU takes part in
    gpu_layer_s: float  # launches of one layer on the GPU
    handoff_s: float  # a layer whose experts are computed on both sides: to the CPU and back
    hits: HitCurve = HitCurve()
    hits_of_few: HitCurve = HitCurve()  # models of few experts
    cache_steps: CacheSteps | None = None  # None: as this project's engine allocates
    source: Mapping[str, str] = field(default_factory=dict)
    calibration: str = "not calibrated: `pintpot bench` measures this machine"

    def hit_share(self, resident: float, n_expert: int) -> float:
        """Share of routed experts found in VRAM when a share `resident` of a layer's `n_expert` is there.

        What the hot set uploads meanwhile counts as not found: it is read from RAM too.
        """
        curve = self.hits_of_few if n_expert < _FEW_EXPERTS else self.hits
        return curve.share(resident)


PINTPOT: Final = EngineProfile(
    name="pintpot",
    per_expert=True,
    ram_efficiency=0.8,
    vram_efficiency=0.75,
    core_bytes_s=13.5e9,
    core_macs_s=100e9,
    gpu_flops_efficiency=0.4,
    token_s=0.3e-3,
    cpu_layer_s=40e-6,
    gpu_layer_s=30e-6,
    handoff_s=30e-6,
    hits=HitCurve(rise=0.62, fall=2.42),
    hits_of_few=HitCurve(rise=0.76, fall=1.5),
    source=MappingProxyType(
        {
            "ram_efficiency": "two Zen 4 cores, decode of a 35B-A3B shape, Q4_K_M: 27 of 33 GB/s",
            "core_bytes_s": "two Zen 4 cores, decode of four shapes, Q4_K_M, Q6_K: 25 to 30 GB/s together",
            "core_macs_s": "two Zen 4 cores, prefill of 256 tokens of a 35B-A3B shape: 187 G/s",
            "token_s": "assumed",
            "cpu_layer_s": "assumed",
            "gpu_flops_efficiency": "assumed",
            "vram_efficiency": "goal of the GPU kernels: not yet run on a GPU",
            "gpu_layer_s": "one CUDA graph node of about 3 us for each of ten kernels: not yet run on a GPU",
            "handoff_s": "two stream memory operations and a poll: not yet run on a GPU",
            "hits": "adaptive hot set, routing simulated after published traces, 8 of 256 experts, the topic "
            "changing within answers (docs/experts.md)",
            "hits_of_few": "adaptive hot set, recorded routing of the demo model, 2 of 16 (docs/experts.md)",
        }
    ),
)

LLAMA_CPP: Final = EngineProfile(
    name="llama.cpp",
    per_expert=False,
    ram_efficiency=0.75,
    vram_efficiency=0.7,
    core_bytes_s=7.5e9,
    core_macs_s=45e9,
    gpu_flops_efficiency=0.4,
    token_s=0.5e-3,
    cpu_layer_s=100e-6,
    gpu_layer_s=60e-6,
    handoff_s=100e-6,
    cache_steps=CacheSteps(ctx_tokens=256, window_tokens=256),
    source=MappingProxyType(
        {
            "core_bytes_s": "assumed: half of the 15 GB/s a core that two Zen 5 cores reach, for barriers",
            "core_macs_s": "two Zen 4 cores, prefill of 256 tokens of a 35B-A3B shape: 70 G/s",
            "ram_efficiency": "assumed",
            "vram_efficiency": "assumed",
            "gpu_flops_efficiency": "assumed",
            "token_s": "assumed",
            "cpu_layer_s": "assumed",
            "gpu_layer_s": "assumed: about twenty launches of 3 us",
            "handoff_s": "assumed: two synchronizations and copies",
        }
    ),
)
