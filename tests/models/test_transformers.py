"""The F32 logits of every architecture agree with `transformers`, which also proves the weight transforms."""

from __future__ import annotations

import pytest
from tiny import CASES, hf_logits, load, new_state, relative_error, run, tokens

from pintpot.kernels.cpu import CpuOps
from pintpot.kernels.reference import ReferenceOps

# Float32 in two orders of summation; the delta net and Gemma's per-layer embeddings amplify it most.
TOLERANCE = 1e-4
N_TOKENS = 40  # several times the sliding window
BACKENDS = {"reference": ReferenceOps, "cpu": lambda: CpuOps(2)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(name, backend, tmp_path):
    hf, model = load(name, tmp_path, BACKENDS[backend]())
    ids = tokens(N_TOKENS)
    ours = run(model, new_state(model), ids, [N_TOKENS])
    theirs = hf_logits(hf, ids)
    assert theirs.std() > 0.5  # the models say something
    assert relative_error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["llama-3-rope", "qwen3moe", "qwen35moe", "gemma4-moe", "gpt-oss"])
def test_fused_and_separate_tensors_are_the_same_model(name, tmp_path):
    hf, model = load(name, tmp_path, ReferenceOps(), change_layout=True)
    ids = tokens(N_TOKENS)
    assert relative_error(run(model, new_state(model), ids, [N_TOKENS]), hf_logits(hf, ids)) < TOLERANCE
