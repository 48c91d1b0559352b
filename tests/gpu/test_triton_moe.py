"""Experts by slot against plain torch, few tokens and many."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from weights import weights

from pintpot.gguf.types import GGMLType
from pintpot.kernels.api import Activation
from pintpot.kernels.triton.moe import Experts, fused_moe, fused_moe_reference

N_EMBD, N_FF, N_SLOTS, K = 64, 96, 5, 3


def randn(*shape: int, device: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def experts(kinds: tuple[GGMLType, GGMLType, GGMLType], activation: Activation, device: str) -> Experts:
    gate, _ = weights(kinds[0], N_SLOTS, N_FF, N_EMBD, device, 1)
    up, _ = weights(kinds[1], N_SLOTS, N_FF, N_EMBD, device, 2)
    down, _ = weights(kinds[2], N_SLOTS, N_EMBD, N_FF, device, 3)
    return Experts(gate, up, down, activation)


def routing(n: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    ids = torch.randint(-1, N_SLOTS, (n, K), generator=generator).int()
    ids[0] = -1  # all of this token's experts are elsewhere
    return ids.to(device), torch.rand(n, K, generator=generator).to(device)


def check(e: Experts, n: int, device: str) -> None:
    x = randn(n, N_EMBD, device=device, seed=n)
    ids, w = routing(n, device)
    y = fused_moe(x, e, ids, w, dot_dtype=torch.float32)
    expected = fused_moe_reference(x, e, ids, w)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert torch.all(y[0] == 0)


Q8, Q4, Q5 = GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.Q5_1


@pytest.mark.parametrize("n", [2, 11])
@pytest.mark.parametrize("activation", list(Activation))
def test_every_activation(activation: Activation, n: int, device: str) -> None:
    check(experts((Q8, Q8, Q5), activation, device), n, device)


@pytest.mark.parametrize("n", [3, 13])
def test_types_may_differ_and_slots_have_biases(n: int, device: str) -> None:
    e = dataclasses.replace(
        experts((Q4, Q8, GGMLType.MXFP4), Activation.SWIGLU_OAI, device),
        gate_bias=randn(N_SLOTS, N_FF, device=device, seed=4),
        up_bias=randn(N_SLOTS, N_FF, device=device, seed=5),
        down_bias=randn(N_SLOTS, N_EMBD, device=device, seed=6),
    )
    check(e, n, device)


@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("with_bias", [False, True])
def test_scaled_experts(with_bias: bool, n: int, device: str) -> None:
    e = experts((Q4, Q4, Q4), Activation.GELU_TANH, device)
    scale = randn(N_SLOTS, device=device, seed=7).abs() + 0.5
    bias = randn(N_SLOTS, N_EMBD, device=device, seed=8) if with_bias else None
    check(dataclasses.replace(e, down_scale=scale, down_bias=bias), n, device)
