"""Gated delta net, token by token and in chunks, against plain torch."""

from __future__ import annotations

import copy

import pytest
import torch

from pintpot.kernels.api import Segment
from pintpot.kernels.triton.batch import device_batch
from pintpot.kernels.triton.delta_net import (
    DeltaShape,
    DeviceDeltaState,
    causal_conv,
    causal_conv_reference,
    delta_rule,
    delta_rule_reference,
    gated_norm,
    gated_norm_reference,
)
from pintpot.spec.cache import DeltaStateLayout

HK, HV, DK, DV, TAPS = 2, 4, 12, 20, 4
CONV_DIM = 2 * HK * DK + HV * DV
DECODE = (Segment(1, 5, 1), Segment(0, 9, 1))
FEW = (Segment(2, 0, 2), Segment(1, 4, 5))
PREFILL = (Segment(0, 0, 37), Segment(2, 8, 1), Segment(1, 3, 16))


def randn(*shape: int, device: str, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def layer(device: str, decay: float = 1.0) -> tuple[DeltaShape, DeviceDeltaState]:
    """A layer and a state that remembers; `decay` scales how fast."""
    shape = DeltaShape(
        HK, HV, DK, DV, 1e-6,
        conv=randn(CONV_DIM, TAPS, device=device, seed=1),
        dt_bias=randn(HV, device=device, seed=2),
        a=-decay * randn(HV, device=device, seed=3).exp(),
        norm=randn(DV, device=device, seed=4),
    )  # fmt: skip
    state = DeviceDeltaState(DeltaStateLayout(3, HV, DK, DV, CONV_DIM, TAPS), device)
    state.conv.copy_(randn(*state.conv.shape, device=device, seed=5))
    state.memory.copy_(randn(*state.memory.shape, device=device, seed=6))
    return shape, state


def same(ours: DeviceDeltaState, theirs: DeviceDeltaState, tolerance: float) -> None:
    torch.testing.assert_close(ours.conv, theirs.conv, rtol=0, atol=0)
    torch.testing.assert_close(ours.memory, theirs.memory, rtol=tolerance, atol=tolerance)


SEGMENTS = pytest.mark.parametrize("segments", [DECODE, FEW, PREFILL], ids=["decode", "few", "prefill"])


@SEGMENTS
def test_convolution(segments: tuple[Segment, ...], device: str) -> None:
    shape, state = layer(device)
    reference = copy.deepcopy(state)
    batch = device_batch(segments, device)
    x = randn(batch.n_tokens, CONV_DIM, device=device, seed=7)
    y = causal_conv(x, state, shape, batch)
    torch.testing.assert_close(y, causal_conv_reference(x, reference, shape, batch), rtol=1e-5, atol=1e-6)
    same(state, reference, 0)


@pytest.mark.parametrize("decay", [0.01, 1.0, 30.0])  # next to none, usual, next to all of it
@pytest.mark.parametrize("chunked", [False, True])
@SEGMENTS
def test_recurrence(segments: tuple[Segment, ...], chunked: bool, decay: float, device: str) -> None:
    shape, state = layer(device, decay)
    reference = copy.deepcopy(state)
    batch = device_batch(segments, device)
    n = batch.n_tokens
    qkv = randn(n, CONV_DIM, device=device, seed=8)
    alpha, beta = (randn(n, HV, device=device, seed=s) for s in (9, 10))
    y = delta_rule(qkv, alpha, beta, state, shape, batch, chunked=chunked)
    expected = delta_rule_reference(qkv, alpha, beta, reference, shape, batch)
    torch.testing.assert_close(y, expected, rtol=3e-5, atol=1e-5)
    same(state, reference, 3e-5)


def test_alike_keys_in_a_chunk(device: str) -> None:
    """The system is worst conditioned when every token writes to one place and nothing decays."""
    shape, state = layer(device, 0.0)
    state.memory.zero_()
    reference = copy.deepcopy(state)
    batch = device_batch((Segment(0, 0, 32),), device)
    qkv = randn(1, CONV_DIM, device=device, seed=8).repeat(32, 1)
    qkv[:, 2 * HK * DK :] = randn(32, HV * DV, device=device, seed=11)
    alpha, beta = torch.zeros(32, HV, device=device), torch.full((32, HV), 9.0, device=device)
    y = delta_rule(qkv, alpha, beta, state, shape, batch)
    expected = delta_rule_reference(qkv, alpha, beta, reference, shape, batch)
    torch.testing.assert_close(y, expected, rtol=3e-5, atol=1e-5)


def test_gated_norm(device: str) -> None:
    shape, _ = layer(device)
    x, z = (randn(3, HV, DV, device=device, seed=s) for s in (1, 2))
    torch.testing.assert_close(gated_norm(x, z.view(3, -1), shape), gated_norm_reference(x, z, shape))


def test_state_is_saved_copied_and_reset(device: str) -> None:
    _, state = layer(device)
    before = copy.deepcopy(state)
    saved = state.save(1)
    state.copy_slot(0, 1)
    assert torch.equal(state.memory[1], before.memory[0])
    state.reset(0)
    assert not state.memory[0].any()
    assert not state.conv[0].any()
    state.restore(1, saved)
    assert torch.equal(state.memory[1], before.memory[1])
    assert torch.equal(state.conv[1], before.conv[1])
