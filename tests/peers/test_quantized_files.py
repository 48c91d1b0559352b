"""Files that pintpot quantizes: llama.cpp loads every type and mix, and says the same of them as we do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import SHAPES, kl_divergence, prompt
from llama_oracle import LlamaCpp
from ours import Ours

from pintpot.gguf import GGUFFile
from pintpot.quantization.importance import Imatrix, TensorImportance, write_imatrix
from pintpot.quantization.plan import matrices
from pintpot.quantization.run import quantize
from pintpot.quants.recipes import RECIPES

KL = 1e-3  # as between files of synthetic blocks (test_llama_cpp.py)

MORE = [
    (name, quant)
    for name in ("qwen35moe", "gemma4-e", "gemma4-moe", "gpt-oss-fused-288")
    for quant in ("Q4_K_M", "Q3_K_L", "MXFP4_MOE")
]


@pytest.mark.parametrize(("name", "quant"), [("llama", quant) for quant in RECIPES] + MORE)
def test_logits(name, quant, model_file, ops, tmp_path) -> None:
    """Prefill of 64 tokens at each position, then 8 steps of decoding."""
    source = model_file(name, "F16")
    imatrix = _write_importance(tmp_path / "imatrix.gguf", source) if quant == "Q2_K_S" else None
    (path,) = quantize(source, tmp_path / "model.gguf", quant, imatrix=imatrix, threads=2).paths
    tokens = prompt(SHAPES[name], 72, seed=5)
    with LlamaCpp(path) as oracle:
        expected = np.concatenate([oracle.step(tokens[:64]), *(oracle.step([t]) for t in tokens[64:])])
    ours = Ours(path, ops)
    got = np.concatenate([ours.step(tokens[:64]), *(ours.step([t]) for t in tokens[64:])])
    assert kl_divergence(expected, got).mean() <= KL


def _write_importance(path: Path, source: Path) -> Path:
    """Random importance of every matrix."""
    rng = np.random.default_rng(0)
    tensors = {}
    for info in GGUFFile.open(source).tensors.values():
        n_mats, rows, cols = matrices(info)
        if rows > 1:
            squares = rng.uniform(0.5, 2, (n_mats, cols)).astype(np.float32)
            tensors[info.name] = TensorImportance(squares, np.ones(n_mats, np.int64))
    write_imatrix(path, Imatrix(tensors))
    return path
