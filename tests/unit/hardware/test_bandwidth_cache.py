"""Assumed and remembered bandwidths."""

import json
from dataclasses import replace

import pytest
from machines import GIB, FakeNVML

from pintpot.hardware.bandwidth import (
    GPUBandwidth,
    Measured,
    assumed_ram_bandwidth,
    machine_id,
    recall,
    remember,
    with_measured,
)
from pintpot.hardware.machine import CPU, Memory
from pintpot.store.folders import cache_dir

CPU_ = CPU("AMD Ryzen 9 7950X", cores=16, threads=32, isa="avx512")
MEMORY = Memory(64 * GIB, 48 * GIB)
MEASURED = Measured(
    "2026-11-25",
    {1: 30e9, 8: 66e9, 16: 61e9},
    {"NVIDIA GeForce RTX 5060 Ti": GPUBandwidth(400e9, 12e9)},
)


@pytest.mark.parametrize(
    ("name", "cores", "gb_s", "words"),
    [
        ("AMD Ryzen 9 9950X 16-Core Processor", 16, 66.6, "2 channels DDR5-5200"),
        ("AMD Ryzen 7 5800X 8-Core Processor", 8, 41.0, "2 channels DDR4-3200"),
        ("AMD Ryzen AI MAX+ 395 w/ Radeon 8060S", 16, 204.8, "LPDDR5X-8000"),
        ("AMD EPYC 9654 96-Core Processor", 96, 368.6, "12 channels DDR5-4800"),
        ("AMD EPYC 9654 96-Core Processor", 2, 70.0, "2 cores can ask for"),
        ("Intel(R) Core(TM) Ultra 9 285K", 24, 71.7, "DDR5-5600"),
        ("Intel(R) Xeon(R) Platinum 8480+", 56, 245.8, "8 channels DDR5-4800"),
        ("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", 32, 163.8, "8 channels DDR4-3200"),
        ("Intel(R) Core(TM) i5-8400", 6, 41.0, "tells nothing"),
    ],
)
def test_assumptions_follow_the_name_and_say_so(name, cores, gb_s, words):
    rate, source = assumed_ram_bandwidth(CPU(name, cores, cores, "avx2"))
    assert rate == pytest.approx(gb_s * 1e9, rel=0.01)
    assert source.startswith("assumed: ")
    assert words in source


def test_what_is_remembered_is_recalled(tmp_path):
    assert recall(CPU_, MEMORY, tmp_path) is None
    path = remember(CPU_, MEMORY, MEASURED, tmp_path / "new")
    assert recall(CPU_, MEMORY, tmp_path / "new") == MEASURED
    assert [p.name for p in path.parent.iterdir()] == ["bandwidth.json"]


def test_machines_do_not_mix(tmp_path):
    other = replace(CPU_, cores=8)
    remember(CPU_, MEMORY, MEASURED, tmp_path)
    assert recall(other, MEMORY, tmp_path) is None
    assert recall(CPU_, replace(MEMORY, total_bytes=32 * GIB), tmp_path) is None
    remember(other, MEMORY, replace(MEASURED, date="2027-01-01"), tmp_path)
    assert recall(CPU_, MEMORY, tmp_path) == MEASURED
    # What the kernel keeps for itself changes with its version.
    assert recall(CPU_, replace(MEMORY, total_bytes=64 * GIB - (90 << 20)), tmp_path) == MEASURED


def entry(**changes):
    whole = {"date": "x", "ram_bytes_s": {"1": 1e9}, "gpus": {}}
    return json.dumps({"format": 1, "machines": {machine_id(CPU_, MEMORY): whole | changes}})


def test_the_entry_the_damage_is_done_to_is_whole(tmp_path):
    (tmp_path / "bandwidth.json").write_text(entry())
    assert recall(CPU_, MEMORY, tmp_path) == Measured("x", {1: 1e9}, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"format": 2, "machines": {}}',
        '{"format": 1}',
        '{"format": 1, "machines": []}',
        entry(ram_bytes_s={}),
        entry(ram_bytes_s={"one": 1e9}),
        entry(ram_bytes_s={"1": "fast"}),
        entry(ram_bytes_s={"1": -1}),
        entry(ram_bytes_s={"1": float("nan")}),
        entry(ram_bytes_s=[1]),
        entry(gpus=None),
        entry(gpus={"x": {"vram_bytes_s": 1}}),
        json.dumps({"format": 1, "machines": {machine_id(CPU_, MEMORY): [1]}}),
    ],
)
def test_a_damaged_file_is_measured_again(tmp_path, text):
    path = tmp_path / "bandwidth.json"
    path.write_text(text)
    assert recall(CPU_, MEMORY, tmp_path) is None
    remember(CPU_, MEMORY, MEASURED, tmp_path)
    assert recall(CPU_, MEMORY, tmp_path) == MEASURED


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "bandwidth.json").write_bytes(b"\xff\xfe\0")
    assert recall(CPU_, MEMORY, tmp_path) is None


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    remember(CPU_, MEMORY, MEASURED, tmp_path)
    monkeypatch.setattr("pathlib.Path.replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        remember(CPU_, MEMORY, replace(MEASURED, date="later"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["bandwidth.json"]
    assert recall(CPU_, MEMORY, tmp_path) == MEASURED


def test_probe_uses_what_was_measured(probed, tmp_path):
    h = probed(nvml=FakeNVML())
    remember(h.cpu, h.memory, MEASURED, tmp_path / "cache")
    again = probed(nvml=FakeNVML())
    assert again == with_measured(h, MEASURED)
    assert again.ram_bandwidth_bytes_s == 66e9
    assert again.ram_bandwidth_source == "measured 2026-11-25 with 8 threads"
    (gpu,) = again.gpus
    assert (gpu.bandwidth_bytes_s, gpu.pcie_bytes_s) == (400e9, 12e9)
    assert gpu.bandwidth_source == gpu.pcie_source == "measured 2026-11-25"


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "pintpot"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_dir() == tmp_path / "me" / ".cache" / "pintpot"
