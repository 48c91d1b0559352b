"""What this machine has shown: an engine's constants fitted to real runs, kept beside what is measured of it.

`pintpot bench` remembers its decode and prefill speeds (`calibration.json` of the cache folder), `calibrate`
makes a profile of them. The model is that of `planner.speed`: a token takes a fixed time, which the profile
knows, and its bytes over a rate, which is the runs' median. A run counts by its bytes: small models tell of
fixed costs and caches, not of memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from pintpot.gguf import GGUFFile
from pintpot.hardware.bandwidth import machine_id
from pintpot.hardware.machine import CPU, Hardware, Memory
from pintpot.planner.memory import CacheSettings, cache_read_bytes, weigh_file
from pintpot.planner.profile import EngineProfile
from pintpot.spec import ModelSpec, summarize_types
from pintpot.store.folders import cache_dir
from pintpot.store.remembered import read_remembered, write_remembered

_FORMAT: Final = 1
_MOST_RUNS: Final = 200  # of a machine; the oldest are forgotten


@dataclass(frozen=True, slots=True)
class Run:
    """One measured speed of a model on the CPU. `nbytes`: weights, keys, values and state read for a token
    at the depth of the run; `macs`: multiply-adds of a token, attention left out."""

    date: str  # ISO 8601, of the day
    types: str  # the file's mix
    n_threads: int
    depth_tokens: int
    n_layer: int
    nbytes: int
    macs: int
    decode_s: float = 0.0  # a token; 0: not measured
    prefill_s: float = 0.0  # a token of a long prompt; 0: not measured


def describe_run(
    file: GGUFFile,
    settings: CacheSettings,
    date: str,
    *,
    n_threads: int,
    depth_tokens: int,
    decode_s: float = 0.0,
    prefill_s: float = 0.0,
) -> Run:
    """A run of a file, with what a token reads and computes in it."""
    spec = ModelSpec.from_gguf(file)
    model = weigh_file(file, spec)
    return Run(
        date=date,
        types=summarize_types(file),
        n_threads=n_threads,
        depth_tokens=depth_tokens,
        n_layer=spec.n_layer,
        nbytes=model.dense
        + sum(layer.routed for layer in model.layers)
        + sum(cache_read_bytes(spec, settings, depth_tokens)),
        macs=model.head_macs + sum(layer.dense_macs + layer.routed_macs for layer in model.layers),
        decode_s=decode_s,
        prefill_s=prefill_s,
    )


def calibrate(profile: EngineProfile, hardware: Hardware, runs: Sequence[Run]) -> EngineProfile:
    """`profile` with the CPU's constants as `runs` have them; those that no run shows stay as they are."""
    found = profile
    decode = [run for run in runs if run.decode_s > 0]
    if decode:
        rates = [(run.n_threads, _rate(profile, run), run.nbytes) for run in decode]
        fastest = max(
            _median((rate, weight) for n, rate, weight in rates if n == threads)
            for threads in {n for n, _, _ in rates}
        )
        found = replace(
            found,
            core_bytes_s=_median((rate / n, weight) for n, rate, weight in rates),
            ram_efficiency=max(profile.ram_efficiency, fastest / hardware.ram_bandwidth_bytes_s),
        )
    prefill = [run for run in runs if run.prefill_s > 0]
    if prefill:
        core = _median((run.macs / run.prefill_s / run.n_threads, run.macs) for run in prefill)
        found = replace(found, core_macs_s=core)
    if not (decode or prefill):
        return profile
    return replace(found, calibration=f"calibrated from {len(runs)} runs, last {max(r.date for r in runs)}")


def _rate(profile: EngineProfile, run: Run) -> float:
    """Bytes a second of a run beside its fixed part, which is never all of it."""
    fixed = min(profile.token_s + run.n_layer * profile.cpu_layer_s, run.decode_s / 2)
    return run.nbytes / (run.decode_s - fixed)


def _median(weighted: Iterable[tuple[float, int]]) -> float:
    """Of values by their weights; the mean of two where half of the weight lies on either side."""
    values = sorted(weighted)
    half, below = sum(weight for _, weight in values) / 2, 0
    for i, (value, weight) in enumerate(values):
        below += weight
        if below == half:
            return (value + values[i + 1][0]) / 2
        if below > half:
            return value
    raise ValueError("expected values")


def recall_runs(cpu: CPU, memory: Memory, folder: Path | None = None) -> tuple[Run, ...]:
    """What is remembered of this machine; nothing where the file is absent, damaged or of another format."""
    entries = read_remembered(_path(folder), _FORMAT).get(machine_id(cpu, memory), [])
    try:
        return tuple(_from_json(entry) for entry in entries)
    except (KeyError, TypeError, ValueError):
        return ()


def remember_runs(cpu: CPU, memory: Memory, runs: Sequence[Run], folder: Path | None = None) -> Path:
    """Adds runs, atomically. Raises OSError where it cannot write."""
    path = _path(folder)
    machines = read_remembered(path, _FORMAT)
    kept = [*recall_runs(cpu, memory, folder), *runs][-_MOST_RUNS:]
    machines[machine_id(cpu, memory)] = [asdict(run) for run in kept]
    write_remembered(path, _FORMAT, machines)
    return path


def _path(folder: Path | None) -> Path:
    return (folder or cache_dir()) / "calibration.json"


def _from_json(entry: dict[str, Any]) -> Run:
    run = Run(**entry)
    counts = (run.n_threads, run.n_layer, run.nbytes, run.macs)
    seconds = (run.decode_s, run.prefill_s)
    if not all(c > 0 for c in counts) or not all(math.isfinite(s) and s >= 0 for s in seconds):
        raise ValueError("not a run")
    return run
