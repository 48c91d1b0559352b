"""`pintpot doctor` as a user meets it."""

import json

import pytest

from pintpot.hardware.health import Check, Status


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """No second of waiting, no test of the disk, and no cache of this machine's."""
    monkeypatch.setattr("pintpot.hardware.disk._read_rate", lambda folder, n_bytes: 1e9)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def found(*checks):
    return lambda *args: list(checks)


def test_the_table_names_what_was_looked_at(pintpot, tmp_path):
    result = pintpot("doctor", "--dir", tmp_path)
    assert result.code in (0, 1)
    for name in ("GPU", "CPU", "RAM", "RAM bandwidth", "huge pages", "disk"):
        assert name in result.out
    assert result.err == ""


def test_json_has_checks_and_the_machine(pintpot, tmp_path):
    facts = json.loads(pintpot("doctor", "--dir", tmp_path, "--json").out)
    assert facts["hardware"]["memory"]["total_bytes"] > 0
    assert facts["disk"]["folder"] == str(tmp_path)
    assert {check["status"] for check in facts["checks"]} <= {"ok", "warn", "problem"}


@pytest.mark.parametrize("flags", [(), ("--json",)])
@pytest.mark.parametrize(("status", "code"), [(Status.OK, 0), (Status.WARN, 0), (Status.PROBLEM, 1)])
def test_only_a_problem_fails(pintpot, tmp_path, monkeypatch, status, code, flags):
    monkeypatch.setattr(
        "pintpot.hardware.health.examine", found(Check("x", status, "a [b] \x1b[31m", "do [c]"))
    )
    result = pintpot("doctor", "--dir", tmp_path, *flags)
    assert result.code == code
    if not flags:
        assert "a [b]" in result.out
        assert "do [c]" in result.out
        assert "\x1b[31m" not in result.out


def test_a_folder_that_is_not_there(pintpot, tmp_path):
    result = pintpot("doctor", "--dir", tmp_path / "nowhere")
    assert result.code == 2
    assert "nowhere: no such folder" in result.err


def test_measure_is_remembered(pintpot, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pintpot.runtime.bandwidth.ram_read_bytes_s", lambda threads, n: dict.fromkeys(threads, 5e9)
    )
    monkeypatch.setattr("pintpot.runtime.bandwidth.gpu_bandwidths", dict)
    assert "5 GB/s (measured" in pintpot("doctor", "--dir", tmp_path, "--measure").out
    assert "5 GB/s (measured" in pintpot("doctor", "--dir", tmp_path).out
