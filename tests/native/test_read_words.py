"""Reading memory for the bandwidth measurement: every word is read, exactly once."""

from __future__ import annotations

import numpy as np
import pytest

from pintpot import _native
from pintpot.hardware.bandwidth import recall
from pintpot.hardware.machine import CPU, Hardware, Memory
from pintpot.kernels import bandwidth
from pintpot.runtime.bandwidth import measure_bandwidth

CHUNK = 1 << 19


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_every_word_counts(n: int, threads: int) -> None:
    data = np.random.default_rng(n).integers(0, 2**64, n, dtype=np.uint64)
    assert _native.read_words(_native.Engine(threads), data) == int(np.bitwise_xor.reduce(data, initial=0))


def test_rates_for_each_number_of_threads() -> None:
    rates = bandwidth.ram_read_bytes_s([1, 2], 1 << 20, seconds=0)
    assert set(rates) == {1, 2}
    assert all(rate > 0 for rate in rates.values())


def test_no_gpu_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bandwidth.gpu_bandwidths() == {}


def test_measuring_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("pintpot.runtime.bandwidth.gpu_bandwidths", dict)
    hardware = Hardware(CPU("test", 3, 3, "avx2"), Memory(1 << 30, 1 << 23))
    result = measure_bandwidth(hardware)
    measured = recall(hardware.cpu, hardware.memory)
    assert measured is not None
    assert sorted(measured.ram_bytes_s) == [1, 2, 3]
    assert result.ram_bandwidth_bytes_s == max(measured.ram_bytes_s.values())
    assert result.ram_bandwidth_source.startswith("measured ")


def test_a_cache_that_cannot_be_written_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "pintpot").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("pintpot.runtime.bandwidth.gpu_bandwidths", dict)
    monkeypatch.setattr(
        "pintpot.runtime.bandwidth.ram_read_bytes_s", lambda threads, n: dict.fromkeys(threads, 1e9)
    )
    result = measure_bandwidth(Hardware(CPU("test", 1, 1, "avx2"), Memory(1 << 30, 1 << 29)))
    assert result.ram_bandwidth_bytes_s == 1e9
    assert any("not remembered" in note for note in result.notes)
