"""The benchmark of the hybrid path: all of its logic on an emulated accelerator; no speed is judged."""

from __future__ import annotations

import json

import pytest
from benchmarks import gpu_hybrid

from pintpot.gguf import GGUFFile
from pintpot.kernels.open import AcceleratorKind
from pintpot.planner.limits import Limits
from pintpot.planner.placement import solve
from pintpot.runtime.assembly import accelerated_problem
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model


@pytest.fixture(autouse=True)
def uncalibrated(monkeypatch, tmp_path):
    """Plans do not depend on what was measured of this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_rehearsal_measures_every_budget_and_keeps_to_the_plan(tmp_path, capsys):
    out = tmp_path / "runs.json"
    gpu_hybrid.main(
        ["--accelerator", "cpu", "--vram", "1KiB,8MiB", "-p", "4", "-n", "2", "-t", "1", "-o", str(out)]
    )
    (run,) = json.loads(out.read_text(encoding="utf-8"))
    nothing, found = run["budgets"]
    assert nothing["failed"] == "nothing lies on the accelerator"
    assert found["used_bytes"]["total"] == sum(found["plan"].values())
    assert sum(found["slots"]) > 0
    assert found["llama_cpp"] == {"skipped": "no --llama-bin given"}
    assert [row["depth"] for row in found["rows"]] == [16, 128]
    for row in found["rows"]:
        assert 0 < row["hit_share"] < 1
        assert row["decode_tokens_s"] > 0
        assert row["prefill_tokens_s"] > 0
    near, far = (row["token_bytes"]["vram"] for row in found["rows"])
    assert far > near
    assert {row["kernel"] for row in run["products"]} >= {"attn_q.weight", "output.weight"}
    assert run["machine"]["cpus"] >= 1
    said = capsys.readouterr().out
    assert "8MiB: 4 layers" in said
    assert "experts in slots" in said
    assert "llama.cpp: no --llama-bin given" in said


def test_bytes_of_a_token_are_parted_and_none_is_lost(tmp_path):
    path = tmp_path / "m.gguf"
    write_model(path, TOYS["qwen35moe"], quant="Q6_K")
    problem = accelerated_problem(
        GGUFFile.open(path), AcceleratorKind.CPU, Limits(vram_bytes=8 << 20, ctx_tokens=256, n_batch=32)
    )
    solution = solve(problem)
    parts = [gpu_hybrid.token_bytes(problem, solution, 64, share) for share in (0.0, 0.5, 1.0)]
    assert len({sum(part.values()) for part in parts}) == 1
    assert parts[-1]["ram"] == 0
    assert parts[0]["ram"] == sum(layer.routed for layer in problem.model.layers)


def test_llama_cpp_gets_the_fewest_layers_in_ram_that_fit(tmp_path):
    path = tmp_path / "m.gguf"
    write_model(path, TOYS["qwen35moe"], quant="Q6_K")
    file = GGUFFile.open(path)

    def least(mib):
        problem = accelerated_problem(
            file, AcceleratorKind.CPU, Limits(vram_bytes=mib << 20, ctx_tokens=256, n_batch=32)
        )
        return gpu_hybrid.least_cpu_moe(problem, solve(problem))

    found = [least(mib) for mib in range(1, 16)]
    fitting = [n for n in found if n is not None]
    assert found[0] is None
    assert found[-len(fitting) :] == fitting == sorted(fitting, reverse=True)
    assert (fitting[0], fitting[-1]) == (TOYS["qwen35moe"].n_layer, 0)
