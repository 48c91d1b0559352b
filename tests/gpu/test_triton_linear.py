"""Products of every type, for few and many vectors, against float64 over dequantized weights."""

from __future__ import annotations

import pytest
import torch
from weights import ALL_TYPES, ON_GPU, smallest_cols, weights

from pintpot.gguf.types import TYPES, GGMLType
from pintpot.kernels.triton.groups import Groups, by_slot, each_pair, one_matrix
from pintpot.kernels.triton.linear import grouped_linear, grouped_linear_reference

F32_TOLERANCE = 2e-6  # of sum |w x|: order of addition
DOT_TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.2e-2, torch.float32: F32_TOLERANCE}


def worst(y: torch.Tensor, w: torch.Tensor, x: torch.Tensor) -> float:
    """Largest error over sum |w x|; w [rows, cols], x [n, cols]."""
    exact = x.double() @ w.double().T
    size = x.double().abs() @ w.double().abs().T
    return float(((y.double() - exact).abs() / size).max())


def inputs(n: int, cols: int, device: str) -> torch.Tensor:
    return torch.randn(n, cols, generator=torch.Generator().manual_seed(n)).to(device)


@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda k: k.name)
def test_one_vector(kind: GGMLType, device: str) -> None:
    cols = smallest_cols(kind)
    stack, w = weights(kind, 1, 7, cols, device)
    x = inputs(1, cols, device)
    y = grouped_linear(x, stack, one_matrix(1, x.device))
    assert worst(y, w[0], x) < F32_TOLERANCE


@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda k: k.name)
def test_many_vectors(kind: GGMLType, device: str) -> None:
    cols = smallest_cols(kind)
    stack, w = weights(kind, 1, 5, cols, device)
    x = inputs(9, cols, device)  # a block of 16, not full
    y = grouped_linear(x, stack, one_matrix(9, x.device), dot_dtype=torch.float32)
    assert worst(y, w[0], x) < F32_TOLERANCE


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        pytest.param(
            torch.bfloat16,
            marks=pytest.mark.skipif(not ON_GPU, reason="the interpreter multiplies bfloat16 as integers"),
        ),
    ],
)
def test_tiles_in_half_precision(dtype: torch.dtype, device: str) -> None:
    stack, w = weights(GGMLType.Q6_K, 1, 70, 256, device)
    x = inputs(17, 256, device)
    y = grouped_linear(x, stack, one_matrix(17, x.device), dot_dtype=dtype)
    assert worst(y, w[0], x) < DOT_TOLERANCE[dtype]


@pytest.mark.parametrize("n", [2, 3, 8])
def test_few_vectors_share_the_weights(n: int, device: str) -> None:
    stack, w = weights(GGMLType.Q4_K, 1, 6, 768, device)
    x = inputs(n, 768, device)
    groups = one_matrix(n, x.device)
    assert groups.n_blocks == 1
    assert worst(grouped_linear(x, stack, groups), w[0], x) < F32_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda k: k.name)
@pytest.mark.parametrize("n", [1, 2, 5, 8, 16, 33])
@pytest.mark.parametrize(("rows", "blocks"), [(1, 1), (37, 5), (130, 8)])
def test_shapes(kind: GGMLType, n: int, rows: int, blocks: int, device: str) -> None:
    cols = blocks * TYPES[kind].block_values
    stack, w = weights(kind, 1, rows, cols, device)
    x = inputs(n, cols, device)
    y = grouped_linear(x, stack, one_matrix(n, x.device), dot_dtype=torch.float32)
    assert worst(y, w[0], x) < F32_TOLERANCE


IDS = torch.tensor([[2, 0, -1], [0, 3, 2], [-1, -1, -1], [2, 2, 0], [0, 2, 3]], dtype=torch.int32)


@pytest.mark.parametrize("block", [1, 2, 16])
@pytest.mark.parametrize("kind", [GGMLType.Q5_K, GGMLType.MXFP4, GGMLType.BF16], ids=lambda k: k.name)
def test_slots_select_matrices(kind: GGMLType, block: int, device: str) -> None:
    cols = smallest_cols(kind)
    stack, _ = weights(kind, 4, 5, cols, device)
    x = inputs(len(IDS), cols, device)
    bias = inputs(4, 5, device)
    ids = IDS.to(device)
    groups = each_pair(ids) if block == 1 else by_slot(ids, 4, block)
    y = grouped_linear(x, stack, groups, x_div=3, bias=bias, dot_dtype=torch.float32)
    expected = grouped_linear_reference(x, stack, ids, bias=bias)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def covered(groups: Groups) -> list[tuple[int, int]]:
    """(pair, slot) of every block."""
    pairs = groups.pairs.view(groups.n_blocks, groups.block).tolist()
    return sorted(
        (pair, slot)
        for slot, row in zip(groups.slots.tolist(), pairs, strict=True)
        for pair in row
        if pair >= 0 and slot >= 0
    )


@pytest.mark.parametrize("block", [1, 2, 4, 16])
@pytest.mark.parametrize(("n", "k", "n_slots"), [(1, 1, 1), (5, 3, 4), (40, 2, 7), (3, 8, 256)])
def test_every_pair_is_in_one_block_of_its_slot(n: int, k: int, n_slots: int, block: int) -> None:
    ids = torch.randint(-1, n_slots, (n, k), generator=torch.Generator().manual_seed(n)).int()
    wanted = [(p, s) for p, s in enumerate(ids.flatten().tolist()) if s >= 0]
    assert covered(by_slot(ids, n_slots, block)) == wanted


def test_all_pairs_elsewhere() -> None:
    assert covered(by_slot(torch.full((4, 2), -1, dtype=torch.int32), 3, 16)) == []
