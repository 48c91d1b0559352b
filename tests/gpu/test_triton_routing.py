"""The experts of a token and their weights, against plain torch."""

from __future__ import annotations

import pytest
import torch

from pintpot.kernels.api import Gating
from pintpot.kernels.triton.routing import route, route_reference


@pytest.mark.parametrize("gating", list(Gating))
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("n_expert", "k"), [(7, 3), (64, 8), (5, 1)])
def test_route(n_expert: int, k: int, normalize: bool, gating: Gating, device: str) -> None:
    logits = 2 * torch.randn(4, n_expert, generator=torch.Generator().manual_seed(k))
    logits[1, 2] = logits[1, 4]  # a tie
    logits[2] = -60  # sigmoids so small that their sum meets the floor
    logits = logits.to(device)
    ids, weights = route(logits, k, gating, normalize=normalize, factor=2.5)
    expected_ids, expected = route_reference(logits, k, gating, normalize=normalize, factor=2.5)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(weights, expected)
