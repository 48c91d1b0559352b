"""`pintpot quantize` as a user meets it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from pintpot.gguf import GGUFFile, GGUFWriter
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import synthesize, write_model


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "toy-F16.gguf"
    synthesize(path, "qwen3moe", preset="toy", quant="F16")
    return path


def test_type_alone_names_the_output(pintpot, source):
    result = pintpot("quantize", source, "q4_k_m")
    assert result.code == 0
    assert result.out == ""
    out = source.with_name("toy-Q4_K_M.gguf")
    assert result.err.startswith(f"{out}: ")
    assert "bits a weight" in result.err
    assert GGUFFile.open(out).metadata["general.file_type"] == 15


def test_out_and_type(pintpot, source, tmp_path):
    result = pintpot("quantize", source, tmp_path / "x.gguf", "Q8_0", "-t", 2, "--json")
    facts = json.loads(result.out)
    assert facts["files"] == [str(tmp_path / "x.gguf")]
    assert facts["bytes"] == (tmp_path / "x.gguf").stat().st_size
    assert facts["bits_per_weight"] == pytest.approx(8.5, rel=0.05)


def test_the_demo_goes_into_the_current_folder(pintpot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pintpot("quantize", "demo", "Q8_0").code == 0
    assert GGUFFile.open(tmp_path / "demo-Q8_0.gguf").metadata["general.file_type"] == 7


def test_a_dry_run_tells_the_exact_size_and_writes_nothing(pintpot, source, tmp_path):
    facts = json.loads(pintpot("quantize", source, "Q4_K_M", "--dry-run", "--json").out)
    text = pintpot("quantize", source, "Q4_K_M", "--dry-run").out
    assert [p.name for p in tmp_path.iterdir()] == [source.name]
    assert pintpot("quantize", source, "Q4_K_M").code == 0
    size = source.with_name("toy-Q4_K_M.gguf").stat().st_size
    assert facts["bytes"] == size
    assert f"{size:,} bytes" in text
    assert "ffn_down in the first and last eighth" in text
    kinds = {t["name"]: (t["from"], t["to"], t["why"]) for t in facts["tensors"]}
    assert kinds["output.weight"] == ("F16", "Q6_K", "rule")
    assert kinds["blk.0.attn_norm.weight"] == ("F32", "F32", "kept")


def test_a_dry_run_needs_no_weights(pintpot, source):
    """Only the header is read: behind it the file may be a hole."""
    file = GGUFFile.open(source)
    size, start = source.stat().st_size, min(t.offset for t in file.tensors.values())
    del file
    expected = pintpot("quantize", source, "Q5_K_S", "--dry-run", "--json").out
    os.truncate(source, start)
    os.truncate(source, size)
    assert pintpot("quantize", source, "Q5_K_S", "--dry-run", "--json").out == expected


def test_a_dry_run_says_what_would_stop_a_run(pintpot, source, tmp_path):
    pintpot("quantize", source, tmp_path / "x-Q8_0.gguf", "Q8_0")
    facts = json.loads(pintpot("quantize", tmp_path / "x-Q8_0.gguf", "Q4_0", "--dry-run", "--json").out)
    assert "is quantized already" in facts["problem"]
    assert "--allow-requantize" in pintpot("quantize", tmp_path / "x-Q8_0.gguf", "Q4_0", "--dry-run").err


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["SOURCE", "Q4_K_X"], 2, "did you mean Q4_K"),
        (["SOURCE", "a.gguf", "b.gguf", "Q8_0"], 2, "expected IN [OUT] TYPE"),
        (["SOURCE"], 2, "no type is given: expected IN [OUT] TYPE"),
        (
            ["SOURCE", "a.gguf", "Q8_0", "--target-size", "2MiB"],
            2,
            "expected IN [OUT] with --target-size or --fit",
        ),
        (["SOURCE", "q4_k_m", "--target-size", "6MiB"], 2, "q4_k_m is a type; give either"),
        (["SOURCE", "--target-size", "6MiB", "--pure"], 2, "--pure is one type for every matrix"),
        (["SOURCE", "--target-size", "6MiB", "--tensor-type", ".=Q8_0"], 2, "no tensor is left"),
        (["SOURCE", "nosuch/x.gguf", "--target-size", "6MiB"], 1, "nosuch: no such folder"),
        (["SOURCE", "--target-size", "lots"], 2, "--target-size 'lots': expected a size such as 32GiB"),
        (["SOURCE", "--target-size", "10KiB"], 2, "the least this model can take"),
        (["SOURCE", "Q8_0", "--tensor-type", "attn"], 2, "expected PATTERN=TYPE"),
        (["SOURCE", "Q8_0", "--output-tensor-type", "Q7"], 2, "--output-tensor-type Q7 is no tensor type"),
        (["SOURCE", "SOURCE", "Q8_0"], 2, "is the file to be quantized"),
        (["nosuch.gguf", "Q8_0"], 1, "nosuch.gguf: no such file"),
        (["SOURCE", "Q8_0", "--imatrix", "nosuch.dat"], 1, "nosuch.dat: cannot be read"),
        (["SOURCE", "Q2_K_S"], 2, "--imatrix"),
    ],
)
def test_refusals_are_one_line(pintpot, source, args, code, says):
    result = pintpot("quantize", *(source if a == "SOURCE" else a for a in args))
    assert (result.code, result.out) == (code, "")
    assert says in result.err
    assert result.err.count("\n") == 1


def test_to_a_size(pintpot, source, tmp_path):
    out = tmp_path / "sized.gguf"
    result = pintpot("quantize", source, out, "--target-size", "6MiB", "--json")
    assert result.code == 0, result.err
    facts = json.loads(result.out)
    assert facts["files"] == [str(out)]
    assert facts["bytes"] == out.stat().st_size <= 6 << 20
    dry = pintpot("quantize", source, "--target-size", "6MiB", "--dry-run", "--force")
    assert dry.code == 0
    assert "budget" in dry.out
    assert "6MiB" in dry.out


def test_an_existing_output_is_refused_before_errors_are_measured(pintpot, source, tmp_path, monkeypatch):
    out = tmp_path / "sized.gguf"
    out.write_bytes(b"old")
    measured = []
    monkeypatch.setattr("pintpot.quantization.sizing.measure_costs", lambda *_, **__: measured.append(1))
    result = pintpot("quantize", source, out, "--target-size", "6MiB")
    assert (result.code, measured) == (2, [])
    assert "exists already" in result.err


def test_a_file_of_metadata_alone(pintpot, tmp_path):
    """A vocabulary without weights, as llama.cpp's tests use them."""
    path = tmp_path / "vocab.gguf"
    with GGUFWriter(path, {"general.architecture": "llama"}, []):
        pass
    assert pintpot("quantize", path, "Q8_0", "--dry-run").code == 0
    assert pintpot("quantize", path, "Q8_0").code == 0
    assert (tmp_path / "vocab-Q8_0.gguf").exists()
    assert pintpot("quantize", path, "--target-size", "1MiB").code == 2


def test_to_what_fits_this_machine(pintpot, source):
    """A toy fits any machine: its most exact types."""
    facts = json.loads(pintpot("quantize", source, "--fit", "--dry-run", "--json").out)
    assert {t["to"] for t in facts["tensors"] if t["why"] == "budget"} == {"Q8_0"}
    both = pintpot("quantize", source, "--fit", "--target-size", "6MiB")
    assert both.code == 2
    assert "give one of them" in both.err


def _start(source, out, **options):
    command = [sys.executable, "-m", "pintpot.cli", "quantize", str(source), str(out), "Q3_K_S", "-t", "1"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def big_source(tmp_path_factory):
    """Takes some tenths of a second to quantize: time to be interrupted in."""
    path = tmp_path_factory.mktemp("big") / "big.gguf"
    write_model(path, replace(TOYS["llama"], n_embd=1024, n_ff=4096, n_layer=6), quant="F16")
    return path


def _wait_for_part(folder, process):
    while not list(folder.glob(".pintpot-*.part")):
        assert process.poll() is None
        time.sleep(0.005)


def test_killed_or_interrupted_the_old_file_stays(big_source, tmp_path):
    out = tmp_path / "out.gguf"
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        out.unlink(missing_ok=True)
        process = _start(big_source, out)
        _wait_for_part(tmp_path, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert "Traceback" not in errors
        assert ("interrupted while quantizing: nothing was written" in errors) is (code == 130)
        assert not out.exists()
        left = list(tmp_path.glob(".pintpot-*.part"))
        assert len(left) == (1 if number == signal.SIGKILL else 0)
        for path in left:
            path.unlink()


def test_a_disk_that_fills_up(source, tmp_path):
    """A limit on file sizes stands in for a full disk."""
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    command = [sys.executable, "-m", "pintpot.cli", "quantize", str(source), str(out), "Q8_0", "--force"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )
    assert done.returncode == 1
    assert done.stderr == f"pintpot: {out}: cannot be written: File too large\n"
    assert out.read_bytes() == b"old"
    assert not list(tmp_path.glob(".pintpot-*.part"))
