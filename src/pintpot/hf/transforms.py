"""What happens to a tensor's values between a Hugging Face checkpoint and a GGUF file.

Sources: llama.cpp's converter (conversion/llama.py, qwen.py, gpt_oss.py) for what its engine, and so every
GGUF file, expects; the modeling code in transformers for what the checkpoint's values mean. All but two only
move values, on whatever bits they are stored in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]


def _same(shape: Shape) -> Shape:
    return shape


@dataclass(frozen=True, slots=True)
class Transform:
    """`apply` makes the result from one tensor, or from each expert's where there are experts; `shape` is
    that of its result. `computes`: it calculates, with float32 in and out. `packed`: its arguments are blocks
    and scales of MXFP4, and it gives GGUF blocks as uint8 (their shape is still counted in values)."""

    apply: Callable[..., Array]
    shape: Callable[[Shape], Shape] = _same
    computes: bool = False
    packed: bool = False


AS_IS: Final = Transform(lambda x: x)

# Qwen 3.5's RMSNorm multiplies by 1 + weight, GGUF's by weight.
PLUS_ONE: Final = Transform(lambda x: x + np.float32(1), computes=True)

# The delta net's decay: transformers computes -exp(A_log) in each step.
NEGATIVE_EXP: Final = Transform(lambda x: -np.exp(x, dtype=np.float64).astype(np.float32), computes=True)

# Matrices that transformers multiplies from the right (gpt-oss's experts).
TRANSPOSED: Final = Transform(lambda x: x.T, lambda s: s[::-1])


def without_axis(axis: int) -> Transform:
    """Drops a dimension of length 1."""
    return Transform(lambda x: np.squeeze(x, axis), lambda s: s[:axis] + s[axis + 1 :])


def interleave_rope(n_head: int) -> Transform:
    """Rows of q or k from (x_0 .. x_n/2, y_0 ..) to (x_0, y_0, x_1, y_1 ..) within each head: transformers
    rotates halves, GGUF's llama adjacent pairs."""

    def apply(x: Array) -> Array:
        return x.reshape(n_head, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)

    return Transform(apply)


def half(which: int) -> Transform:
    """The first or second half of the rows: gate and up in one tensor."""

    def apply(x: Array) -> Array:
        n = len(x) // 2
        return x[which * n : (which + 1) * n]

    return Transform(apply, lambda s: (s[0] // 2, *s[1:]))


def every_other(first: int) -> Transform:
    """Every second value, gpt-oss's way to put the biases of gate and up into one vector."""
    return Transform(lambda x: x[first::2], lambda s: (s[0] // 2,))


def every_other_transposed(first: int) -> Transform:
    """The same of a matrix that is stored transposed."""
    return Transform(lambda x: x[:, first::2].T, lambda s: (s[1] // 2, s[0]))


def tile_value_heads(n_head_k: int, n_head_v: int, *, skip_rows: int = 0, axis: int = 0) -> Transform:
    """From value heads grouped by key head to value head h belonging to key head h % n_head_k.

    `skip_rows` at the start stay where they are: q and k before v.
    """

    def tiled(x: Array) -> Array:
        shape = x.shape
        split = (*shape[:axis], n_head_k, n_head_v // n_head_k, -1, *shape[axis + 1 :])
        return x.reshape(split).swapaxes(axis, axis + 1).reshape(shape)

    if not skip_rows:
        return Transform(tiled)
    return Transform(lambda x: np.concatenate((x[:skip_rows], tiled(x[skip_rows:]))))


def then(first: Transform, second: Transform) -> Transform:
    """`second` of the result of `first`."""
    return Transform(
        lambda x: second.apply(first.apply(x)),
        lambda s: second.shape(first.shape(s)),
        computes=first.computes or second.computes,
    )


def mxfp4(rows: slice = slice(None)) -> Transform:
    """gpt-oss's blocks [rows, cols / 32, 16] and scales [rows, cols / 32] as GGUF's MXFP4 blocks.

    Both hold 32 four-bit codes and an E8M0 scale. A byte of the checkpoint holds codes 2i and 2i + 1; byte j
    of GGUF's block, after the scale, holds codes j and j + 16, the first in the low half.
    """

    def apply(blocks: Array, scales: Array) -> Array:
        blocks, scales = blocks[rows], scales[rows]
        codes = np.empty((*scales.shape, 32), np.uint8)
        codes[..., 0::2] = blocks & 0xF
        codes[..., 1::2] = blocks >> 4
        out = np.empty((*scales.shape, 17), np.uint8)
        out[..., 0] = scales
        out[..., 1:] = codes[..., :16] | codes[..., 16:] << 4
        return out.reshape(len(out), -1)

    def shape(s: Shape) -> Shape:
        return (len(range(s[0])[rows]), s[1] * 32)

    return Transform(apply, shape, packed=True)


def by_expert(apply: Callable[..., Array], stacked: tuple[Array, ...]) -> Iterator[Array]:
    """The results of the experts along the first axis of `stacked`, one by one."""
    for arguments in zip(*stacked, strict=True):
        yield apply(*arguments)
