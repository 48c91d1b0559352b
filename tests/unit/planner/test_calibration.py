"""Constants are found again from runs that were made with them, a few of them disturbed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pintpot.gguf import GGUFFile
from pintpot.hardware.machine import Hardware
from pintpot.hardware.words import describe
from pintpot.planner.calibration import Run, calibrate, describe_run, recall_runs, remember_runs
from pintpot.planner.limits import Limits
from pintpot.planner.memory import CacheSettings, weigh_file
from pintpot.planner.placement import Problem, solve
from pintpot.planner.profile import PINTPOT
from pintpot.spec import ModelSpec
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

CORE, MACS = 6e9, 70e9


@pytest.fixture
def machine() -> Hardware:
    return describe("none", None, "32GiB", "60GB/s", 4, None)


def run(n_layer: int, nbytes: int, *, n_threads: int = 2, slower: float = 1.0) -> Run:
    seconds = PINTPOT.token_s + n_layer * PINTPOT.cpu_layer_s + nbytes / (n_threads * CORE)
    macs = 2 * nbytes
    prefill_s = macs / (n_threads * MACS)
    return Run(
        "2026-11-01", "Q4_K", n_threads, 128, n_layer, nbytes, macs, seconds * slower, prefill_s * slower
    )


def test_constants_are_found_again(machine: Hardware) -> None:
    runs = [
        run(4, 200_000_000),
        run(30, 900_000_000),
        run(40, 3_000_000_000, n_threads=1),
        run(12, 40_000_000),
    ]
    found = calibrate(PINTPOT, machine, runs)
    assert found.core_bytes_s == pytest.approx(CORE)
    assert found.core_macs_s == pytest.approx(MACS)
    assert found.calibration == "calibrated from 4 runs, last 2026-11-01"


def test_disturbed_runs_do_not_count(machine: Hardware) -> None:
    runs = [run(n, n * b) for n in (8, 24, 40) for b in (5_000_000, 20_000_000, 80_000_000)]
    runs += [run(24, 400_000_000, slower=4.0), run(40, 900_000_000, slower=3.0)]
    found = calibrate(PINTPOT, machine, runs)
    assert found.core_bytes_s == pytest.approx(CORE, rel=0.1)
    assert found.core_macs_s == pytest.approx(MACS, rel=0.1)


def test_runs_count_by_their_bytes(machine: Hardware) -> None:
    """Many runs of a model that lies in a cache say nothing of one that does not."""
    runs = [run(24, 900_000_000), *[run(4, 10_000_000, slower=0.5) for _ in range(20)]]
    found = calibrate(PINTPOT, machine, runs)
    assert found.core_bytes_s == pytest.approx(CORE)
    assert found.core_macs_s == pytest.approx(MACS)


def test_between_two_equal_runs(machine: Hardware) -> None:
    runs = [replace(run(8, 500_000_000), prefill_s=seconds) for seconds in (1.0, 2.0)]
    assert calibrate(PINTPOT, machine, runs).core_macs_s == pytest.approx(0.375 * runs[0].macs)


def test_what_no_run_shows_stays(machine: Hardware) -> None:
    assert calibrate(PINTPOT, machine, ()) is PINTPOT
    only_prefill = replace(run(4, 200_000_000), decode_s=0.0)
    found = calibrate(PINTPOT, machine, [only_prefill])
    assert found.core_macs_s == pytest.approx(MACS)
    assert found.core_bytes_s == PINTPOT.core_bytes_s


def test_a_calibrated_plan_predicts_the_run(tmp_path: Path, machine: Hardware) -> None:
    write_model(tmp_path / "m.gguf", TOYS["qwen3moe"], quant="Q4_K_M")
    file = GGUFFile.open(tmp_path / "m.gguf")
    measured = describe_run(
        file, CacheSettings(256), "2026-11-01", n_threads=2, depth_tokens=64, decode_s=0.002
    )
    profile = calibrate(replace(PINTPOT, cpu_layer_s=0.0), machine, [measured])
    spec = ModelSpec.from_gguf(file)
    limits = Limits(ctx_tokens=256, depth_tokens=64, n_threads=2)
    s = solve(Problem(spec, weigh_file(file, spec), machine, limits, profile))
    assert s.token.total == pytest.approx(0.002)


def test_runs_are_kept_by_machine(tmp_path: Path, machine: Hardware) -> None:
    runs = [run(4, 200_000_000), run(8, 100_000_000)]
    remember_runs(machine.cpu, machine.memory, runs[:1], tmp_path)
    path = remember_runs(machine.cpu, machine.memory, runs[1:], tmp_path)
    assert recall_runs(machine.cpu, machine.memory, tmp_path) == tuple(runs)
    other = replace(machine.cpu, name="another")
    assert recall_runs(other, machine.memory, tmp_path) == ()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["", "[]", '{"format": 99}', '{"format": 1, "machines": 3}'])
def test_a_damaged_file_is_no_runs(tmp_path: Path, machine: Hardware, damage: str) -> None:
    path = remember_runs(machine.cpu, machine.memory, [run(4, 200_000_000)], tmp_path)
    path.write_text(damage, encoding="utf-8")
    assert recall_runs(machine.cpu, machine.memory, tmp_path) == ()
