"""What commands that plan make of their flags: the machine, the limits, the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pintpot.cli.options import Engine
from pintpot.cli.text import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pintpot.hardware.machine import Hardware
    from pintpot.planner.limits import Limits
    from pintpot.planner.profile import EngineProfile


def read_hardware(
    gpu: str | None, vram: str | None, ram: str | None, ram_bandwidth: str | None, cores: int | None
) -> Hardware:
    """This machine with its remembered measurements, or the one that flags describe.

    What could not be read of it is said on stderr, unless the flags name the GPU.
    """
    from pintpot.hardware.bandwidth import recall, with_measured
    from pintpot.hardware.probe import probe
    from pintpot.hardware.words import describe

    here = probe()
    here = with_measured(here, recall(here.cpu, here.memory))
    if gpu is None:
        for line in here.notes:
            note(line)
    if all(word is None for word in (gpu, vram, ram, ram_bandwidth, cores)):
        return here
    return describe(gpu, vram, ram, ram_bandwidth, cores, here)


def emulated_hardware(
    gpu: str | None, vram: str | None, ram: str | None, ram_bandwidth: str | None, cores: int | None
) -> Hardware:
    """The same with the GPU that `run --accelerator cpu` emulates in `vram` bytes."""
    from pintpot.errors import UsageError
    from pintpot.hardware.emulated import with_emulated_gpu
    from pintpot.hardware.words import parse_bytes

    if gpu is not None or vram is None:
        raise UsageError("--accelerator cpu: takes its memory from --vram, such as 12MiB, and no --gpu")
    return with_emulated_gpu(
        read_hardware("none", None, ram, ram_bandwidth, cores), parse_bytes("--vram", vram)
    )


def engine_profile(engine: Engine, hardware: Hardware) -> EngineProfile:
    """The constants of an engine; of this project's, as its runs on such a CPU and memory have shown them."""
    from pintpot.planner.calibration import calibrate, recall_runs
    from pintpot.planner.profile import LLAMA_CPP, PINTPOT

    if engine is Engine.LLAMA_CPP:
        return LLAMA_CPP
    return calibrate(PINTPOT, hardware, recall_runs(hardware.cpu, hardware.memory))


def read_limits(
    ctx: int | None,
    cache_type_k: str | None,
    cache_type_v: str | None,
    n_gpu_layers: int | None,
    n_cpu_moe: int | None,
    depth: int | None,
    override_tensor: Sequence[str] = (),
    n_gpu_experts: int | None = None,
) -> Limits:
    """What the flags allow. Raises UsageError that names the flag."""
    from pintpot.planner.limits import Limits, parse_tensor_rules
    from pintpot.spec.cache import KVType

    return Limits(
        ctx_tokens=ctx,
        type_k=None if cache_type_k is None else KVType.parse(cache_type_k, "-ctk"),
        type_v=None if cache_type_v is None else KVType.parse(cache_type_v, "-ctv"),
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=n_cpu_moe,
        override_tensors=parse_tensor_rules(override_tensor),
        n_gpu_experts=n_gpu_experts,
        depth_tokens=depth,
    )
