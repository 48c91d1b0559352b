"""RoPE scaling as files ask for it: the keys that llama.cpp follows, and those it passes over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cases import prompt, relative_error
from llama_oracle import LlamaCpp
from ours import Ours

from pintpot.gguf import GGUFFile, GGUFWriter, TensorDecl
from pintpot.spec import RopeScaling
from pintpot.synth import TOYS, write_model

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


def with_scaling(source: Path, out: Path, changes: dict[str, str | float]) -> Path:
    """A copy of `source` with other `rope.scaling` keys."""
    file = GGUFFile.open(source)
    metadata = {key: file.metadata[key] for key in file.metadata}
    arch = metadata["general.architecture"]
    metadata |= {f"{arch}.rope.scaling.{key}": value for key, value in changes.items()}
    tensors = list(file.tensors.values())
    with GGUFWriter(out, metadata, [TensorDecl(t.name, t.ggml_type, t.ne) for t in tensors]) as writer:
        for t in tensors:
            writer.write(t.name, file.data(t.name))
    return out


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_scaling_keys_mean_the_same(yarn_file, changes, tmp_path, ops) -> None:
    if changes.get("type") == "none" and yarn_file.stem == "gpt-oss":
        pytest.skip("llama.cpp stretches the windowed layers of gpt-oss whatever the type says")
    path = with_scaling(yarn_file, tmp_path / "m.gguf", changes)
    tokens = prompt(TOYS[yarn_file.stem], 200)
    with LlamaCpp(path) as oracle:
        expected = oracle.step(tokens)
    assert relative_error(Ours(path, ops).step(tokens), expected) <= ERROR
