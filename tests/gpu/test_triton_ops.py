"""Toy models of every architecture on Triton kernels give the reference's logits, step for step."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from tiny import CASES, load, new_state, relative_error, run, tokens
from weights import ON_GPU, view_of

from pintpot.gguf import GGMLType, GGUFFile
from pintpot.kernels.api import Gating, MoEWeights
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
    reference.ops.start_recording()
    expected = run(reference, new_state(reference), ids, [len(ids)])
    file = GGUFFile.open(tmp_path / f"{name}.gguf")
    model = load_model(file, TritonOps(device, dot_dtype=torch.float32))
    model.ops.start_recording()
    got = run(model, new_state(model, n_batch=16), ids, [16, 2])
    assert relative_error(got, expected) < TOLERANCE
    ours, theirs = model.ops.recorded(), reference.ops.recorded()
    assert ours.keys() == theirs.keys()
    for tensor, sums in theirs.items():
        assert np.array_equal(ours[tensor].rows, sums.rows), tensor
        np.testing.assert_allclose(ours[tensor].squares, sums.squares, rtol=1e-3, err_msg=tensor)


def test_experts_in_slots_add_up(device: str) -> None:
    """Experts written into slots of two layers, each computing what the other lacks, give the whole."""
    n_expert, k, n_embd, n_ff = 5, 2, 64, 96
    bias = np.random.default_rng(1).normal(size=(n_expert, n_embd)).astype(np.float32)
    w = MoEWeights(
        n_expert, k, Gating.SOFTMAX, True,
        router=view_of(GGMLType.F32, 1, n_expert, n_embd, seed=4),
        gate=view_of(GGMLType.Q4_0, n_expert, n_ff, n_embd, seed=1),
        up=view_of(GGMLType.Q8_0, n_expert, n_ff, n_embd, seed=2),
        down=view_of(GGMLType.Q5_0, n_expert, n_embd, n_ff, seed=3),
        down_bias=bias,
    )  # fmt: skip
    ops = TritonOps(device, dot_dtype=torch.float32)
    x = torch.randn(4, n_embd, generator=torch.Generator().manual_seed(0)).to(device)
    layer = ops.moe_layer(w)
    ids, weights = ops.route_on_device(x, layer)
    whole = ops.experts_on_device(x, layer, ids, weights)
    total = torch.zeros_like(whole)
    for mine in ([3, 0], [1, 4, 2]):
        part = ops.routed_layer(w, len(mine))
        for slot, expert in enumerate(mine):
            ops.write_slot(part, slot, expert)
        slot_of = torch.tensor([mine.index(e) if e in mine else -1 for e in range(n_expert)], device=device)
        total += ops.experts_on_device(x, part, slot_of[ids.long()].int(), weights)
    torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))
