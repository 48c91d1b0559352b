"""Memory that another program takes means fewer experts, an accelerator that fails one clear line; both while
an answer is generated, and nothing hangs."""

from __future__ import annotations

import pytest
import torch

import pintpot
from pintpot.errors import AcceleratorError, AcceleratorMemoryError
from pintpot.kernels.failures import explain_failure
from pintpot.kernels.reference_accelerator import ReferenceAccelerator
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

KEPT = {"ctx": 192, "threads": 1, "batch": 32, "cache_type_k": "f32", "cache_type_v": "f32"}
PROMPT = list(range(3, 43))


class Failing(ReferenceAccelerator):
    """Works until it has routed `steps` layers' tokens; then `fail` says what happens."""

    def __init__(self, limit_bytes):
        super().__init__(limit_bytes)
        self.left = None  # bytes of other programs' making; None: all
        self.error = None
        self.after = 0

    def strike(self):
        self.after -= 1
        if self.after >= 0:
            return
        if self.left is not None and self.memory.used_bytes > self.left:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.\nMore lines")
        if self.error is not None:
            raise self.error

    def slot_experts(self, *args):
        self.strike()
        return super().slot_experts(*args)

    def write_slot(self, *args):
        self.strike()
        return super().write_slot(*args)


@pytest.fixture(autouse=True)
def doubled(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("pintpot.runtime.assembly.accelerator_of", lambda kind: Failing)


@pytest.fixture(scope="module", params=["qwen3moe", "qwen35moe"])
def path(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("failures") / "m.gguf"
    write_model(made, TOYS[request.param], quant="F32")
    return made


def load(path, **options):
    return pintpot.load(path, accelerator="cpu", vram=1 << 30, gpu_experts=8, **(KEPT | options))


def start(llm, n=24):
    return llm.generate(PROMPT, max_tokens=n, temperature=0, ignore_eos=True)


def greedy(llm, n=24):
    generation = start(llm, n)
    for _ in generation:
        pass
    return generation.tokens


def slots(llm):
    return [layer.slots.n_slots for layer in llm.engine.model.ops.layers.values()]


@pytest.mark.parametrize("after", [0, 3, 9])
def test_memory_taken_in_an_answer_costs_experts_and_no_token(path, after):
    expected = greedy(load(path))
    llm = load(path)
    device, planned = llm.engine.model.ops.accelerator, slots(llm)
    generation = start(llm)
    tokens = iter(generation)
    next(tokens)
    device.left, device.after = int(device.memory.used_bytes * 0.97), after
    for _ in tokens:
        pass
    assert generation.tokens == expected
    assert all(now < before for now, before in zip(slots(llm), planned, strict=True))
    assert device.memory.used_bytes <= device.left
    assert any("went on with" in line and "out of memory" in line for line in llm.notes)
    assert llm.notes[-1].count("\n") == 0
    assert greedy(llm) == expected


def test_guesses_of_a_lost_step_are_forgotten(path):
    options = {"spec_type": "ngram-simple", "spec_ngram_simple_size_n": 1}
    expected = greedy(load(path), 48)
    llm = load(path, **options)
    device = llm.engine.model.ops.accelerator
    generation = start(llm, 48)
    for i, _ in enumerate(generation):
        if i == 20:
            device.left = int(device.memory.used_bytes * 0.97)
    assert generation.tokens == expected
    assert slots(llm)[0] < 8
    assert greedy(llm, 48) == expected


def test_memory_taken_while_a_prompt_is_read_costs_no_token(path):
    expected = greedy(load(path))
    llm = load(path)
    device = llm.engine.model.ops.accelerator
    device.left, device.after = int(device.memory.used_bytes * 0.97), 5
    assert greedy(llm) == expected
    assert slots(llm)[0] < 8


def test_where_no_slot_is_left_the_answer_ends_and_the_session_goes_on(path):
    llm = load(path)
    expected, device = greedy(llm), llm.engine.model.ops.accelerator
    device.left = 0
    with pytest.raises(AcceleratorMemoryError, match="another program took some"):
        greedy(llm, 30)
    assert slots(llm) == [0] * len(slots(llm))
    assert not llm.engine.busy
    device.left = None
    assert greedy(llm) == expected


@pytest.mark.parametrize("after", [0, 4])
def test_a_lost_accelerator_is_one_clear_line(path, after):
    llm = load(path)
    device = llm.engine.model.ops.accelerator
    generation = start(llm)
    tokens = iter(generation)
    next(tokens)
    device.error = RuntimeError(
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might"
    )
    device.after = after
    with pytest.raises(AcceleratorError, match=r"illegal memory access.*--accelerator none") as caught:
        list(tokens)
    assert "\n" not in str(caught.value)
    assert llm.engine.model.ops._cold is None
    assert not llm.engine.busy
    with pytest.raises(AcceleratorError, match="is lost to this process"):
        greedy(llm)


def test_other_errors_are_not_the_devices():
    assert explain_failure("card", ValueError("CUDA error: no")) is None
    assert explain_failure("card", RuntimeError("shapes do not match")) is None
    assert explain_failure("card", KeyboardInterrupt()) is None
    assert explain_failure("card", AcceleratorMemoryError("said")) is None
    short = explain_failure("card", RuntimeError("CUDA error: out of memory"))
    assert isinstance(short, AcceleratorMemoryError)
    lost = explain_failure("card", RuntimeError("Triton Error [CUDA]: device-side assert triggered"))
    assert isinstance(lost, AcceleratorError)
