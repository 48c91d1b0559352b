"""However a model is parted between CPU and accelerator, it computes the same, within the memory allowed."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import asdict, replace
from threading import Event

import numpy as np
import pytest
from tiny import relative_error

import pintpot
from pintpot.errors import AcceleratorError, UsageError
from pintpot.runtime.assembly import Assembled
from pintpot.spec import MoEFFN
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

TOLERANCE = 1e-4  # of F32 models, relative to the largest logit
MOE = [name for name, shape in TOYS.items() if shape.experts]
SCALARS = {"gemma4": 256}  # bytes
KEPT = {"ctx": 192, "threads": 2, "cache_type_k": "f32", "cache_type_v": "f32"}


@pytest.fixture(autouse=True)
def uncalibrated(monkeypatch, tmp_path):
    """Plans do not depend on what was measured of this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hybrid")
    made = {}

    def file(name, quant="F32"):
        if (name, quant) not in made:
            made[name, quant] = folder / f"{name}-{quant}.gguf"
            write_model(made[name, quant], TOYS[name], quant=quant)
        return made[name, quant]

    return file


@pytest.fixture(scope="module")
def expected(files):
    """Logits and greedy tokens of the CPU alone."""
    found = {}

    def of(name):
        if name not in found:
            llm = pintpot.load(files(name), accelerator="none", batch=48, **KEPT)
            found[name] = llm.logits(prompt(llm)), greedy(llm)
        return found[name]

    return of


def prompt(llm, n=60):
    return np.random.default_rng(5).integers(3, llm.engine.n_tokens, n).tolist()


def greedy(llm):
    generation = llm.generate(prompt(llm, 20), max_tokens=24, temperature=0, ignore_eos=True)
    for _ in generation:
        pass
    return generation.tokens


def load(path, vram, **options):
    return pintpot.load(path, accelerator="cpu", vram=vram, **(KEPT | {"batch": 48} | options))


def whole(path, **options):
    """Bytes of the accelerator that hold everything."""
    return load(path, 1 << 30, **options).assembled.solution.vram.total


def places(assembled: Assembled):
    return assembled.solution.placement


def check_account(llm):
    """What lies on the accelerator is what was planned, to the byte, and was never more than allowed."""
    memory, planned = llm.assembled.memory, asdict(llm.assembled.solution.vram)
    assert planned.pop("overhead") == 0
    used = {kind: memory.by_kind[kind] for kind in planned}
    spare = planned.pop("dense") - used.pop("dense")
    assert spare >= 0
    residence = llm.engine.model.ops.residence
    if residence.mixers == residence.layers:  # else attention lies with another layer's cache, in RAM
        # Gemma 4's output scales and RoPE factors become arguments of kernels.
        assert spare <= SCALARS.get(llm.spec.arch, 0)
    assert used == planned
    assert memory.peak_bytes <= memory.limit_bytes


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("share", [0.4, 0.75, 1.0])
def test_any_budget_computes_the_same(files, expected, name, share):
    logits, tokens = expected(name)
    llm = load(files(name), int(share * whole(files(name))))
    assert places(llm.assembled).n_gpu_layers > 0
    if share == 1.0:
        assert all(places(llm.assembled).dense_on_gpu)
    assert relative_error(llm.logits(prompt(llm)), logits) < TOLERANCE
    assert greedy(llm) == tokens
    check_account(llm)


@pytest.mark.parametrize("name", ["qwen35moe", "gemma4-e", "gpt-oss", "mixtral"])
@pytest.mark.parametrize("n_gpu_layers", [1, 2, 3])
def test_any_number_of_layers_computes_the_same(files, expected, name, n_gpu_layers):
    logits, tokens = expected(name)
    llm = load(files(name), 1 << 30, n_gpu_layers=n_gpu_layers)
    assert places(llm.assembled).n_gpu_layers == n_gpu_layers
    assert relative_error(llm.logits(prompt(llm)), logits) < TOLERANCE
    assert greedy(llm) == tokens
    check_account(llm)


@pytest.mark.parametrize("name", MOE)
@pytest.mark.parametrize("batch", [1, 7, 48])
def test_any_slots_and_chunks_compute_the_same(files, expected, name, batch, monkeypatch):
    """Few tokens a step leave the cold experts to the CPU, many stream them."""
    monkeypatch.setattr("pintpot.planner.residence._stream_tokens", lambda problem: 12)
    logits, tokens = expected(name)
    llm = load(files(name), 1 << 30, gpu_experts=3, batch=batch)
    assert set(places(llm.assembled).resident) == {3}
    assert relative_error(llm.logits(prompt(llm)), logits) < TOLERANCE
    assert greedy(llm) == tokens
    counts = llm.engine.experts.counts
    assert counts.hits > 0
    assert counts.misses > counts.streamed
    assert (counts.streamed > 0) == (batch == 48)
    assert (counts.stream_bytes > 0) == (batch == 48)
    check_account(llm)


RULES = ["exps=CPU", "shexp=CPU", "ffn_gate_inp\\.=CPU", "attn=CPU", "ssm_out=CPU", "norm=CPU", "output=CPU",
         r"blk\.[02]\.=CPU", "ffn_up=CPU", "attn_q=CPU,exps=GPU", r"token_embd=CPU", "."]  # fmt: skip


@pytest.mark.parametrize("name", ["qwen35moe", "gpt-oss", "gemma4-e", "gemma4-moe", "qwen2"])
@pytest.mark.parametrize("rule", RULES)
def test_tensors_lie_where_rules_say(files, expected, name, rule):
    logits, tokens = expected(name)
    rule = rule if "=" in rule else f"{rule}=CPU"
    llm = load(files(name), 1 << 30, override_tensor=[rule])
    assert relative_error(llm.logits(prompt(llm)), logits) < TOLERANCE
    assert greedy(llm) == tokens
    use = llm.memory.accelerator
    assert use.peak_bytes <= llm.assembled.solution.vram.total  # nothing was planned anew either
    assert not any("planned anew" in line for line in llm.notes)


@pytest.mark.parametrize("name", MOE)
@pytest.mark.parametrize("n_gpu_layers", [None, 2])
def test_every_selection_is_a_hit_or_a_miss(files, name, n_gpu_layers):
    llm = load(files(name), 1 << 30, gpu_experts=2, n_gpu_layers=n_gpu_layers)
    generation = llm.generate(prompt(llm, 30), max_tokens=5, temperature=0, ignore_eos=True)
    for _ in generation:
        pass
    layers = [layer.ffn for layer in llm.spec.layers if isinstance(layer.ffn, MoEFFN)]
    # The last layer computes one row of the prompt alone.
    n_rows = [34] * (len(layers) - 1) + [5]
    selections = sum(n * ffn.n_expert_used for n, ffn in zip(n_rows, layers, strict=True))
    counts = llm.engine.experts.counts
    assert counts.hits + counts.misses == selections
    assert 0 < counts.hits < selections
    both = replace(generation.timings.prompt_experts)
    both.add(generation.timings.answer_experts)
    assert both == counts


@pytest.mark.parametrize("name", ["qwen3moe", "gpt-oss"])
def test_experts_of_mixed_types(files, name):
    """Slots are as large as their own layer's experts. Products of the CPU round activations to 8 bits."""
    path = files(name, "Q4_K_M")
    want = pintpot.load(path, accelerator="none", batch=48, **KEPT)
    llm = load(path, 1 << 30, gpu_experts=3)
    sizes = {len(routed.device.slots[0]) for routed in llm.engine.model.ops.layers.values()}
    assert len(sizes) > 1
    assert relative_error(llm.logits(prompt(llm)), want.logits(prompt(want))) < 0.1
    check_account(llm)


def test_sequences_share_a_step(files, expected):
    llm = load(files("qwen35moe"), int(0.75 * whole(files("qwen35moe"), slots=3)), slots=3)
    generations = [
        llm.generate(prompt(llm, 20), max_tokens=24, temperature=0, ignore_eos=True) for _ in range(3)
    ]
    while any(g.step() is not None for g in generations):
        pass
    for generation in generations:
        assert generation.tokens == expected("qwen35moe")[1]
    check_account(llm)


@pytest.mark.parametrize("flags", [{"vram": 1 << 20}, {"n_gpu_layers": 1}, {"gpu_experts": 2}])
def test_flags_of_an_accelerator_need_one(files, flags):
    with pytest.raises(UsageError, match="there is no accelerator"):
        pintpot.load(files("llama"), accelerator="none", **flags)


def test_an_emulated_accelerator_needs_its_size(files):
    with pytest.raises(UsageError, match="--vram 12MiB"):
        pintpot.load(files("llama"), accelerator="cpu")


def test_too_little_memory_runs_on_the_cpu_and_says_so(files, expected):
    llm = load(files("llama"), 4096)
    assert "the CPU computes all" in llm.notes[-1]
    assert llm.memory.accelerator is None
    assert greedy(llm) == expected("llama")[1]


def test_an_interrupted_wait_leaves_nothing_behind(files, expected, monkeypatch):
    """Ctrl-C while the CPU's share is computed: the next answer waits for it, and is right."""
    name = "qwen3moe"
    llm = load(files(name), 1 << 30, gpu_experts=2)
    result = Future.result
    interrupted = []

    def interrupt_once(future, timeout=None):
        if not interrupted:
            interrupted.append(future)
            raise KeyboardInterrupt
        return result(future, timeout)

    monkeypatch.setattr(Future, "result", interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        greedy(llm)
    assert interrupted
    assert greedy(llm) == expected(name)[1]
    assert llm.engine.model.ops._cold is None


def test_a_share_that_never_ends_is_an_error(files, monkeypatch):
    llm = load(files("qwen3moe"), 1 << 30, gpu_experts=2)
    monkeypatch.setattr("pintpot.kernels.hybrid._COLD_SECONDS", 0.01)
    ops = llm.engine.model.ops
    experts, release = ops.cpu.experts, Event()

    def stuck(*args, **kwargs):
        release.wait(30)
        return experts(*args, **kwargs)

    monkeypatch.setattr(ops.cpu, "experts", stuck)
    with pytest.raises(AcceleratorError, match="took more than"):
        greedy(llm)
    release.set()
