"""Toy models of every architecture on Triton kernels give the reference's logits, step for step."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from conftest import ON_GPU
from tiny import CASES, load, new_state, relative_error, run, tokens

from pintpot.gguf import GGUFFile
from pintpot.kernels.reference import ReferenceOps
from pintpot.kernels.triton import linear, moe
from pintpot.kernels.triton.ops import TritonOps
from pintpot.runtime.loader import load_model

TOLERANCE = 2e-5  # of the largest logit, in float32
QUICK = ["qwen35moe", "gpt-oss"]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes its time for each program, not for its size."""
    if not ON_GPU:
        for module in (linear, moe):
            monkeypatch.setattr(module, "tiles", lambda layout, block: {"BN": 128, "NG": 1})


def case(name: str) -> object:
    return pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("name", [case(name) for name in CASES])
def test_as_the_reference(name: str, device: str, tmp_path: Path) -> None:
    ids = tokens(18)
    _, reference = load(name, tmp_path, ReferenceOps())
    expected = run(reference, new_state(reference), ids, [len(ids)])
    file = GGUFFile.open(tmp_path / f"{name}.gguf")
    model = load_model(file, TritonOps(device, dot_dtype=torch.float32))
    got = run(model, new_state(model, n_batch=16), ids, [16, 2])
    assert relative_error(got, expected) < TOLERANCE
