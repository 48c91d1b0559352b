"""Whichever experts have slots, and whenever they change, answers are the same and every copy is counted."""

from __future__ import annotations

import numpy as np
import pytest

import pintpot
from pintpot.errors import UsageError
from pintpot.gguf import GGUFFile
from pintpot.kernels.accelerator import expert_bytes
from pintpot.quantization.importance import Imatrix, TensorImportance, write_imatrix
from pintpot.runtime.experts import POLICIES, ResidentExperts, parse_policy
from pintpot.spec import ModelSpec
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

ARCHES = ("qwen35moe", "gemma4-moe")
N_SLOTS = 4


@pytest.fixture(autouse=True)
def uncalibrated(monkeypatch, tmp_path):
    """Plans do not depend on what was measured of this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    for name in ARCHES:
        write_model(folder / f"{name}.gguf", TOYS[name], quant="F32")
    return {name: folder / f"{name}.gguf" for name in ARCHES}


def load(path, **options):
    kept = {"ctx": 256, "batch": 16, "cache_type_k": "f32", "cache_type_v": "f32", "threads": 2}
    return pintpot.load(path, accelerator="cpu", vram=1 << 30, gpu_experts=N_SLOTS, **(kept | options))


def ask(llm, n_prompt=40, max_tokens=40):
    prompt = np.random.default_rng(7).integers(3, llm.engine.n_tokens, n_prompt).tolist()
    return llm.generate(prompt, max_tokens=max_tokens, temperature=0, ignore_eos=True)


def residents(llm):
    return {i: routed.slots.expert_in.tolist() for i, routed in llm.engine.model.ops.layers.items()}


def check_slots(llm):
    """The bytes in every slot are those of the expert that is said to be there."""
    for routed in llm.engine.model.ops.layers.values():
        for slot, expert in enumerate(routed.slots.expert_in.tolist()):
            before = routed.device.slots[slot].clone()
            llm.engine.model.ops.accelerator.write_slot(routed.device, slot, expert)
            assert bool((routed.device.slots[slot] == before).all())


@pytest.mark.parametrize("name", ARCHES)
def test_policies_change_slots_and_no_answer(files, name):
    cpu = pintpot.load(
        files[name], accelerator="none", ctx=256, batch=16, threads=2, cache_type_k="f32", cache_type_v="f32"
    )
    want = ask(cpu)
    list(want)
    for policy in POLICIES:
        llm = load(files[name], expert_policy=policy)
        first, used = residents(llm), llm.assembled.memory.used_bytes
        got = ask(llm)
        list(got)
        assert got.tokens == want.tokens
        counts = llm.engine.experts.counts
        assert (counts.uploads > 0) == (policy != "static")
        assert (residents(llm) != first) == (policy != "static")
        sizes = {expert_bytes(routed.device.w) for routed in llm.engine.model.ops.layers.values()}
        assert [counts.upload_bytes] == [counts.uploads * size for size in sizes]
        assert llm.assembled.memory.used_bytes == used
        assert llm.assembled.memory.peak_bytes == used
        check_slots(llm)


def test_reading_a_prompt_changes_no_slot_until_its_end(files):
    llm = load(files["qwen35moe"], expert_policy="lru")
    first = residents(llm)
    generation = ask(llm, n_prompt=40)
    for prompt_done in (16, 32):
        generation.step()
        assert generation.prompt_done == prompt_done
        assert residents(llm) == first
    generation.step()
    assert len(generation.tokens) == 1
    assert residents(llm) != first
    uploads = llm.engine.experts.counts.uploads
    selections = len(llm.engine.model.ops.layers) * 4
    while generation.step() is not None:
        now = llm.engine.experts.counts.uploads
        assert now - uploads <= max(1, round(selections / 40))
        uploads = now


def test_what_is_not_generated_is_not_learned_from(files):
    llm = load(files["qwen35moe"], expert_policy="lru")
    first = residents(llm)
    llm.logits(np.arange(3, 60))
    assert residents(llm) == first
    assert llm.engine.experts.counts.hits > 0
    list(ask(llm))
    assert residents(llm) != first


def test_a_profile_says_who_is_there_first(files, tmp_path):
    spec = ModelSpec.from_gguf(GGUFFile.open(files["qwen35moe"]))
    rng = np.random.default_rng(0)
    likely = {i: rng.permutation(10) for i in range(spec.n_layer)}
    tensors = {
        f"blk.{i}.ffn_gate_exps.weight": TensorImportance(
            np.ones((10, 256), np.float32), np.argsort(order)[::-1].astype(np.int64) * 10
        )
        for i, order in likely.items()
    }
    want = {
        i: sorted(np.argsort(-tensors[f"blk.{i}.ffn_gate_exps.weight"].counts, kind="stable")[:N_SLOTS])
        for i in likely
    }
    write_imatrix(tmp_path / "p.gguf", Imatrix(tensors, ("x",), 1, 512))
    llm = load(files["qwen35moe"], expert_profile=tmp_path / "p.gguf")
    assert {i: sorted(experts) for i, experts in residents(llm).items()} == want
    check_slots(llm)


def test_a_profile_of_another_model_is_refused(files):
    ops = load(files["qwen35moe"]).engine.model.ops
    with pytest.raises(UsageError, match="layer 1 has 3 experts in it and 10 in the model"):
        ResidentExperts(ops, profile={1: np.ones(3)})


def test_policies_have_names():
    assert parse_policy("LRU").name == "lru"
    with pytest.raises(UsageError, match="--expert-policy 'magic': expected adaptive, static, lru, lfu"):
        parse_policy("magic")
