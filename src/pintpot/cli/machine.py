"""What commands that plan make of their flags: the machine, the limits, the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pintpot.cli.options import Engine
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.hardware.machine import Hardware
    from pintpot.planner.profile import EngineProfile
    from pintpot.spec.cache import KVType


def read_hardware(
    gpu: str | None, vram: str | None, ram: str | None, ram_bandwidth: str | None, cores: int | None
) -> Hardware:
    """This machine with its remembered measurements, or the one that flags describe."""
    from pintpot.hardware.bandwidth import recall, with_measured
    from pintpot.hardware.probe import probe
    from pintpot.hardware.words import describe

    here = probe()
    here = with_measured(here, recall(here.cpu, here.memory))
    if all(word is None for word in (gpu, vram, ram, ram_bandwidth, cores)):
        return here
    return describe(gpu, vram, ram, ram_bandwidth, cores, here)


def engine_profile(engine: Engine, hardware: Hardware) -> EngineProfile:
    """The constants of an engine; of this project's, as its runs on such a CPU and memory have shown them."""
    from pintpot.planner.calibration import calibrate, recall_runs
    from pintpot.planner.profile import LLAMA_CPP, PINTPOT

    if engine is Engine.LLAMA_CPP:
        return LLAMA_CPP
    return calibrate(PINTPOT, hardware, recall_runs(hardware.cpu, hardware.memory))


def kv_type(flag: str, name: str | None) -> KVType | None:
    """The cache type called `name`. Raises UsageError that begins with `flag`."""
    from pintpot.spec.cache import KVType

    if name is None:
        return None
    try:
        return KVType(name.lower())
    except ValueError:
        raise UsageError(f"{flag} {name}: expected {', '.join(KVType)}") from None
