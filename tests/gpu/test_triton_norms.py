"""RMSNorm of rows, and RMSNorm with RoPE of heads, against plain torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pintpot.kernels.api import Rope
from pintpot.kernels.triton.norms import (
    HeadNorm,
    device_rope,
    head_norm_rope,
    head_norm_rope_reference,
    rms_norm,
    rms_norm_reference,
)


def randn(*shape: int, device: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize("width", [1, 48, 301])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows(width: int, weighted: bool, device: str) -> None:
    x = randn(3, width, device=device)
    weight = randn(width, device=device, seed=1) if weighted else None
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), rms_norm_reference(x, weight, 1e-5))


def test_residual_is_added_in_place(device: str) -> None:
    x, delta, weight = (randn(2, 48, device=device, seed=i) for i in range(3))
    theirs = x.clone()
    expected = rms_norm_reference(theirs, weight[0], 1e-6, delta=delta)
    torch.testing.assert_close(rms_norm(x, weight[0], 1e-6, delta=delta), expected)
    torch.testing.assert_close(x, theirs, rtol=0, atol=0)


def test_no_rows(device: str) -> None:
    assert rms_norm(torch.empty(0, 8, device=device), None, 1e-6).shape == (0, 8)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("n_rot", [0, 8, 20])
@pytest.mark.parametrize("norm", [None, "bare", "weight"])
def test_heads(norm: str | None, n_rot: int, interleaved: bool, device: str) -> None:
    n_head, dim, stride = 3, 20, 40
    inv_freq = (10_000.0 ** -(np.arange(0, n_rot, 2) / max(n_rot, 1))).astype(np.float32)
    rope = device_rope(Rope(inv_freq, interleaved, 1.2), device) if n_rot else None
    x = randn(4, n_head * stride, device=device)
    positions = torch.tensor([0, 1, 77, 131_071], dtype=torch.int32, device=device)
    weight = randn(dim, device=device, seed=2) if norm == "weight" else None
    options = {"stride": stride, "norm": HeadNorm(weight, 1e-6) if norm else None, "rope": rope}
    y = head_norm_rope(x, n_head, dim, positions, **options)
    torch.testing.assert_close(y, head_norm_rope_reference(x, n_head, dim, positions, **options))
