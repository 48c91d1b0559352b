"""Where the experts that lie on the accelerator at first come from."""

from __future__ import annotations

import numpy as np
import pytest

import pintpot
from pintpot.demo import demo_model_path
from pintpot.errors import ModelFileError
from pintpot.expert_profile import find_profile
from pintpot.gguf import GGUFFile
from pintpot.quantization.importance import Imatrix, TensorImportance, write_imatrix
from pintpot.spec import ModelSpec
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

N_EXPERT = 10


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "m.gguf"
    write_model(path, TOYS["qwen35moe"], quant="Q8_0")
    return path


def write_profile(path, n_expert=N_EXPERT, favourite=7):
    counts = np.ones(n_expert, np.int64)
    counts[favourite] = 99
    importance = TensorImportance(np.ones((n_expert, 1), np.float32), counts)
    write_imatrix(path, Imatrix({"blk.1.ffn_gate_exps.weight": importance}, ("x",), 1, 512))
    return path


def load(model, **options):
    return pintpot.load(
        model, accelerator="cpu", vram=1 << 30, gpu_experts=1, ctx=64, batch=16, threads=1, **options
    )


def resident(llm):
    return llm.engine.model.ops.layers[1].slots.expert_in.tolist()


def test_the_file_beside_the_model_is_the_default_and_is_named(model):
    beside = write_profile(model.with_name("m.imatrix.gguf"))
    llm = load(model)
    assert resident(llm) == [7]
    assert any(beside.name in line for line in llm.notes)


def test_what_is_asked_for_comes_first(model, tmp_path):
    write_profile(model.with_name("m.imatrix.gguf"))
    asked = load(model, expert_profile=write_profile(tmp_path / "other.gguf", favourite=3))
    assert resident(asked) == [3]
    nothing = load(model, expert_profile="none")
    assert resident(nothing) == [0]
    assert not any("imatrix" in line for line in (*asked.notes, *nothing.notes))


def test_what_is_of_no_use_beside_the_model_is_left_out_and_said(model):
    beside = model.with_name("m.imatrix.gguf")
    spec = ModelSpec.from_gguf(GGUFFile.open(model))
    assert find_profile(None, model, spec) == (None, ())
    write_profile(beside, n_expert=8)
    profile, notes = find_profile(None, model, spec)
    assert profile is None
    assert "was made of another model" in notes[0]
    beside.write_bytes(b"GGUF")
    profile, notes = find_profile(None, model, spec)
    assert profile is None
    assert notes[0].startswith("no expert profile: ")
    assert beside.name in notes[0]
    with pytest.raises(ModelFileError, match=r"m\.imatrix\.gguf"):
        find_profile(beside, model, spec)


def test_the_demo_has_one_of_all_its_experts():
    path = demo_model_path()
    spec = ModelSpec.from_gguf(GGUFFile.open(path))
    profile, notes = find_profile(None, path, spec)
    assert profile is not None
    assert notes
    assert {layer: len(counts) for layer, counts in profile.items()} == dict.fromkeys(range(spec.n_layer), 16)
    assert all(counts.min() > 0 for counts in profile.values())
