"""Rows of every type are the dequantized ones, bit by bit."""

from __future__ import annotations

import pytest
import torch
from weights import ALL_TYPES, smallest_cols, weights

from pintpot.gguf.types import GGMLType
from pintpot.kernels.triton.embed import embed, embed_reference


@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda k: k.name)
def test_rows(kind: GGMLType, device: str) -> None:
    stack, w = weights(kind, 1, 6, 3 * smallest_cols(kind), device)
    rows = torch.tensor([5, 0, 5, 2], dtype=torch.int32, device=device)
    y = embed(stack, rows)
    torch.testing.assert_close(y, w[0, rows.long()], rtol=0, atol=0)
    torch.testing.assert_close(y, embed_reference(stack, rows), rtol=0, atol=0)
