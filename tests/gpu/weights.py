"""Random weights of every type, as the kernels take them and as floats."""

from __future__ import annotations

import numpy as np
import torch

from pintpot.gguf.types import TYPES, GGMLType, row_bytes
from pintpot.kernels.api import TensorView
from pintpot.kernels.triton.repack import Stack, stack_of
from pintpot.quants.random_blocks import random_blocks
from pintpot.quants.reference import dequantize

ALL_TYPES = list(GGMLType)
ON_GPU = torch.cuda.is_available()  # else kernels are interpreted


def smallest_cols(kind: GGMLType) -> int:
    """Columns of an odd number of the type's blocks; floats may have any number."""
    return {1: 43, 32: 96, 256: 256}[TYPES[kind].block_values]


def view_of(kind: GGMLType, n_mats: int, rows: int, cols: int, seed: int = 0, std: float = 0.5) -> TensorView:
    rng = np.random.default_rng(seed)
    stride = row_bytes(kind, cols)
    n_blocks = n_mats * rows * cols // TYPES[kind].block_values
    data = random_blocks(kind, n_blocks, rng, std)
    return TensorView(f"{kind.name}.weight", kind, data, n_mats, rows, cols, stride, rows * stride)


def floats_of(view: TensorView) -> torch.Tensor:
    shape = (view.n_mats, view.rows, view.cols)
    return torch.from_numpy(dequantize(view.ggml_type, view.data[: view.n_mats * view.mat_stride], shape))


def weights(
    kind: GGMLType, n_mats: int, rows: int, cols: int, device: str, seed: int = 0
) -> tuple[Stack, torch.Tensor]:
    """A stack on `device` and its float32 values [n_mats, rows, cols]."""
    view = view_of(kind, n_mats, rows, cols, seed)
    return stack_of(view, device), floats_of(view).to(device)
