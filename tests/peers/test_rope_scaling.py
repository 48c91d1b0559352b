"""RoPE scaling as files ask for it: the keys that llama.cpp follows, and those it passes over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cases import prompt, relative_error
from files import with_metadata
from llama_oracle import LlamaCpp
from ours import Ours

from pintpot.spec import RopeScaling
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

ERROR = 1e-3
CHANGES = {
    "attn-factor": {"attn_factor": 1.3},
    "none-with-attn-factor": {"type": "none", "attn_factor": 1.3},
    "original-context-0": {"original_context_length": 0},
    "linear-with-yarn-keys": {"type": "linear", "yarn_ext_factor": 1.0, "yarn_beta_fast": 4.0},
    "beta-fast": {"yarn_beta_fast": 4.0},
    "beta-slow": {"yarn_beta_slow": 3.0},
    "ext-factor": {"yarn_ext_factor": 0.5},
    "yarn-attn-factor": {"yarn_attn_factor": 1.3},
    "log-multiplier": {"yarn_log_multiplier": 0.1},
}


@pytest.fixture(scope="module", params=["llama", "qwen3", "qwen35", "gemma4", "gpt-oss"])
def yarn_file(request, tmp_path_factory) -> Path:
    """A toy of each kind of attention, its context stretched fourfold."""
    path = tmp_path_factory.mktemp("yarn") / f"{request.param}.gguf"
    write_model(path, replace(TOYS[request.param], rope_scaling=RopeScaling("yarn", 4.0, 128)), quant="F32")
    return path


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_scaling_keys_mean_the_same(yarn_file, changes, tmp_path, ops) -> None:
    if changes.get("type") == "none" and yarn_file.stem == "gpt-oss":
        pytest.skip("llama.cpp stretches the windowed layers of gpt-oss whatever the type says")
    arch = TOYS[yarn_file.stem].arch
    keys = {f"{arch}.rope.scaling.{key}": value for key, value in changes.items()}
    path = with_metadata(yarn_file, tmp_path / "m.gguf", keys)
    tokens = prompt(TOYS[yarn_file.stem], 200)
    with LlamaCpp(path) as oracle:
        expected = oracle.step(tokens)
    assert relative_error(Ours(path, ops).step(tokens), expected) <= ERROR
