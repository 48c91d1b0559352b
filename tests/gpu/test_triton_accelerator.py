"""Toy models parted between Triton kernels and the CPU compute what the CPU computes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CASES, N_VOCAB, relative_error

import pintpot
from pintpot.errors import AcceleratorMemoryError
from pintpot.gguf import GGUFFile
from pintpot.hardware.emulated import with_emulated_gpu
from pintpot.hardware.words import describe
from pintpot.kernels.cpu import CpuOps
from pintpot.kernels.triton_accelerator import TritonAccelerator
from pintpot.planner.limits import Limits, parse_tensor_rules
from pintpot.planner.memory import weigh_file
from pintpot.planner.placement import Problem
from pintpot.planner.profile import PINTPOT
from pintpot.runtime.assembly import Assembled, HotExperts, assemble_planned
from pintpot.runtime.hotset import LRU
from pintpot.runtime.sampler import SamplingParams
from pintpot.runtime.sequence import Request
from pintpot.spec import ModelSpec
from pintpot.spec.cache import KVType
from pintpot.tokenizer import Tokenizer

TOLERANCE = 2e-5  # of the largest logit, in float32
PROMPT = np.random.default_rng(1).integers(3, N_VOCAB, 6).tolist()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("accelerator")
    made = {}
    for name in ("qwen35moe", "gpt-oss"):
        made[name] = folder / f"{name}.gguf"
        pintpot.convert(CASES[name].save(folder / name), made[name])
    return made


def assemble(path: Path, device: str, **wishes: object) -> Assembled:
    file = GGUFFile.open(path)
    spec = ModelSpec.from_gguf(file)
    limits = Limits(ctx_tokens=64, type_k=KVType.F32, type_v=KVType.F32, n_batch=8, use_gpu=True, **wishes)
    machine = with_emulated_gpu(describe("none", None, "64GiB", "60GB/s", 4, None), 1 << 26)
    p = Problem(spec, weigh_file(file, spec, limits.override_tensors), machine, limits, PINTPOT)
    return assemble_planned(
        file,
        Tokenizer.from_metadata(file.metadata, str(path)),
        CpuOps(2),
        p,
        lambda n_bytes: TritonAccelerator(n_bytes, device, dot_dtype=torch.float32),
        HotExperts(LRU),
    )


def greedy(made: Assembled, n: int = 2) -> list[int]:
    sequence = made.engine.submit(
        Request(tuple(PROMPT), SamplingParams(temperature=0), max_tokens=n, ignore_eos=True)
    )
    while made.engine.busy:
        made.engine.step()
    return sequence.answer


WISHES = {
    "slots": {"n_gpu_experts": 2},
    "no-slots": {"n_gpu_experts": 0},
    "layers": {"n_gpu_layers": 2, "n_gpu_experts": 3},
    "rules": {"override_tensors": parse_tensor_rules(["shexp|ffn_gate_inp=CPU"]), "n_gpu_experts": 2},
}
QUICK = [("gpt-oss", "slots")]
CASES_HERE = [
    pytest.param(name, wishes, marks=[] if (name, wishes) in QUICK else pytest.mark.slow)
    for name in ("qwen35moe", "gpt-oss")
    for wishes in WISHES
]


@pytest.mark.parametrize(("name", "wishes"), CASES_HERE)
def test_as_the_cpu_alone(
    paths: dict[str, Path], device: str, name: str, wishes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pintpot.planner.residence._stream_tokens", lambda problem: 3)
    cpu = pintpot.load(
        paths[name], accelerator="none", ctx=64, batch=8, cache_type_k="f32", cache_type_v="f32", threads=2
    )
    made = assemble(paths[name], device, **WISHES[wishes])
    assert relative_error(made.engine.logits(PROMPT), cpu.logits(PROMPT)) < TOLERANCE
    generation = cpu.generate(PROMPT, max_tokens=2, temperature=0, ignore_eos=True)
    list(generation)
    assert greedy(made) == generation.tokens
    counts = made.engine.experts.counts
    assert counts.misses > 0
    assert counts.streamed > 0
    memory = made.memory
    assert memory.peak_bytes <= memory.limit_bytes


@pytest.mark.slow
def test_fewer_slots_after_memory_ran_out(paths: dict[str, Path], device: str) -> None:
    made = assemble(paths["gpt-oss"], device, n_gpu_experts=2)
    expected, used = made.engine.logits(PROMPT), made.memory.used_bytes
    assert made.engine.experts.make_room(AcceleratorMemoryError("taken"))
    assert made.memory.used_bytes < used
    assert relative_error(made.engine.logits(PROMPT), expected) < TOLERANCE
    assert made.engine.experts.make_room(AcceleratorMemoryError("taken"))
    assert not made.engine.experts.make_room(AcceleratorMemoryError("taken"))
    assert relative_error(made.engine.logits(PROMPT), expected) < TOLERANCE
