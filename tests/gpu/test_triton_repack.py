"""Repacking loses and adds no bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from weights import ALL_TYPES, floats_of, smallest_cols, view_of

from pintpot.gguf.types import TYPES, GGMLType
from pintpot.kernels.triton.formats import ALIGN_BYTES, layout_of
from pintpot.kernels.triton.repack import dequantize, empty_stack, repack, stack_of


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a.view(torch.int32), b.view(torch.int32)))


@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda k: k.name)
@pytest.mark.parametrize("wide", [False, True], ids=["odd", "wide"])
def test_values_are_those_of_the_blocks(kind: GGMLType, wide: bool, device: str) -> None:
    view = view_of(kind, 2, 5, 512 if wide else smallest_cols(kind))
    stack = stack_of(view, device)
    assert same_bits(dequantize(stack).cpu(), floats_of(view))


@pytest.mark.parametrize("kind", ALL_TYPES, ids=lambda k: k.name)
def test_bytes_are_those_of_the_blocks_and_every_one_counts(kind: GGMLType) -> None:
    """Planes cover as many bytes as the blocks, and turning any bit of a block turns some bit of a plane."""
    cols = smallest_cols(kind)
    layout = layout_of(kind, 1, cols)
    n_bytes = cols // TYPES[kind].block_values * TYPES[kind].block_bytes
    assert layout.nbytes - layout.padding_bytes == n_bytes
    assert layout.padding_bytes < 6 * ALIGN_BYTES
    assert all(at % ALIGN_BYTES == 0 for at, size in layout.plane_bytes if size)
    planes = torch.zeros(8 * n_bytes, 8 * layout.nbytes, dtype=torch.bool)
    stack = empty_stack(layout, 1, "cpu")
    for bit in range(8 * n_bytes):
        block = np.zeros(n_bytes, np.uint8)
        block[bit // 8] = 1 << bit % 8
        repack(torch.from_numpy(block), stack, 0)
        planes[bit] = torch.from_numpy(np.unpackbits(stack.data[0].numpy())).bool()
    # Each bit lands in a place of its own: repacking is a permutation of bits.
    assert torch.all(planes.sum(1) == 1)
    assert planes.any(0).sum() == 8 * n_bytes


def test_one_slot_is_written_alone(device: str) -> None:
    view = view_of(GGMLType.Q5_K, 3, 4, 256)
    stack = stack_of(view, device)
    before = stack.data.clone()
    other = view_of(GGMLType.Q5_K, 1, 4, 256, seed=9)
    repack(torch.from_numpy(other.data.copy()).to(device), stack, 1)
    assert torch.equal(stack.data[0], before[0])
    assert torch.equal(stack.data[2], before[2])
    assert same_bits(dequantize(stack, [1]).cpu(), floats_of(other))


def test_a_slice_of_a_fused_tensor(device: str) -> None:
    view = view_of(GGMLType.Q4_K, 2, 6, 256)
    part = view.row_slice(2, 5)
    assert same_bits(dequantize(stack_of(part, device)).cpu(), floats_of(view)[:, 2:5])


def test_rows_of_no_whole_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="100 columns are no multiple of the Q4_0 block of 32"):
        layout_of(GGMLType.Q4_0, 4, 100)
    with pytest.raises(ValueError, match="type 16 has no GPU layout"):
        layout_of(16, 4, 256)
