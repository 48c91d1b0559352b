"""Memory that is missing means a smaller plan; an accelerator that is missing means one clear line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import pintpot
from pintpot.errors import AcceleratorError, AcceleratorMemoryError, UsageError
from pintpot.gguf import GGUFFile
from pintpot.hardware.emulated import with_emulated_gpu
from pintpot.hardware.words import describe
from pintpot.kernels.cpu import CpuOps
from pintpot.kernels.hybrid import HybridOps
from pintpot.kernels.open import AcceleratorKind, accelerator_of
from pintpot.kernels.reference_accelerator import ReferenceAccelerator
from pintpot.planner.limits import Limits
from pintpot.planner.memory import weigh_file
from pintpot.planner.placement import DoesNotFitError, Problem, solve
from pintpot.planner.profile import PINTPOT
from pintpot.planner.residence import residence
from pintpot.runtime.assembly import HotExperts, assemble_planned
from pintpot.runtime.cache import ModelState
from pintpot.runtime.loader import load_model
from pintpot.spec import ModelSpec
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model
from pintpot.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("assembly") / "m.gguf"
    write_model(path, TOYS["qwen3moe"], quant="Q8_0")
    return GGUFFile.open(path)


def problem(file, vram_bytes, **limits):
    spec = ModelSpec.from_gguf(file)
    machine = with_emulated_gpu(describe("none", None, "64GiB", "60GB/s", 4, None), vram_bytes)
    wishes = Limits(ctx_tokens=128, n_batch=32, use_gpu=True, **limits)
    return Problem(spec, weigh_file(file, spec), machine, wishes, PINTPOT)


def assemble(file, p, open_limited):
    tokenizer = Tokenizer.from_metadata(file.metadata, str(file.path))
    return assemble_planned(file, tokenizer, CpuOps(1), p, open_limited, HotExperts())


def load(file, p, limit_bytes):
    """Weights and caches of the plan in a memory of so many bytes."""
    solution = solve(p)
    accelerator = ReferenceAccelerator(limit_bytes)
    model = load_model(file, HybridOps(CpuOps(1), accelerator, residence(p, solution)))
    s = solution.settings
    ModelState(model, n_slots=1, ctx_tokens=s.ctx_tokens, n_batch=s.n_batch, type_k=s.type_k, type_v=s.type_v)
    return accelerator.memory


def test_a_byte_too_few_is_refused(file):
    p = problem(file, 6 << 20)
    needed = solve(p).vram.total
    assert needed <= 6 << 20
    assert load(file, p, needed).free_bytes == 0
    with pytest.raises(
        AcceleratorMemoryError, match=rf"needs [\d,]+ bytes, [\d,]+ of {needed - 1:,} are taken"
    ):
        load(file, p, needed - 1)


@pytest.mark.parametrize("there", [0.9, 0.5])
def test_memory_that_is_not_there_is_planned_around(file, there):
    p = problem(file, 6 << 20)
    planned = solve(p)
    limit = int(there * planned.vram.total)
    made = assemble(file, p, lambda n_bytes: ReferenceAccelerator(min(n_bytes, limit)))
    assert made.notes[0].startswith("planned anew, for ")
    assert "--vram" in made.notes[0]
    assert made.memory.peak_bytes <= limit
    assert sum(made.solution.placement.resident) < sum(planned.placement.resident)


def test_no_memory_at_all_runs_on_the_cpu(file):
    for made in (
        assemble(file, problem(file, 6 << 20), lambda n_bytes: ReferenceAccelerator(1)),
        assemble(file, problem(file, 1 << 10), ReferenceAccelerator),
    ):
        assert made.notes[-1].endswith("the CPU computes all")
        assert made.memory is None
        assert made.engine.experts is None


def test_slots_asked_for_are_there_or_refused(file):
    s = solve(problem(file, 12 << 20, n_gpu_experts=2))
    assert s.placement.resident == (2, 2, 2)
    s = solve(problem(file, 64 << 20, n_gpu_experts=99))
    assert s.placement.resident == (10, 10, 10)
    s = solve(problem(file, 64 << 20, n_gpu_experts=3, n_cpu_moe=1))
    assert s.placement.resident == (0, 3, 3)
    with pytest.raises(DoesNotFitError, match="--gpu-experts 9: 9 experts of each layer take"):
        solve(problem(file, 5 << 20, n_gpu_experts=9))


def test_unknown_accelerators_are_named():
    with pytest.raises(UsageError, match="--accelerator 'tpu': expected auto, none, cpu, cuda"):
        AcceleratorKind.parse("tpu")
    assert AcceleratorKind.parse("CPU") is AcceleratorKind.CPU


@pytest.mark.parametrize(
    ("cuda", "words"), [(None, "was built without CUDA"), ("13.0", "older than CUDA 13.0 needs")]
)
def test_no_cuda_is_said_in_one_line(monkeypatch, cuda, words):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AcceleratorError, match=words) as error:
        accelerator_of(AcceleratorKind.CUDA)
    assert "--accelerator none" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [AcceleratorKind.CPU, AcceleratorKind.CUDA])
def test_no_torch_is_said_in_one_line(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "pintpot.kernels.reference_accelerator", raising=False)
    monkeypatch.delitem(sys.modules, "pintpot.kernels.reference", raising=False)
    with pytest.raises(AcceleratorError, match=f"--accelerator {kind} needs torch .*pip install"):
        accelerator_of(kind)


def test_the_cpu_alone_never_imports_torch():
    code = (
        "import sys, pintpot; "
        "''.join(pintpot.load('demo', accelerator='none', ctx=64).generate('def', max_tokens=2)); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_recording_needs_the_cpu_alone(file):
    llm = pintpot.load(file.path, accelerator="cpu", vram="8MiB", ctx=64)
    with pytest.raises(UsageError, match="--accelerator none"):
        llm.engine.model.ops.start_recording()
