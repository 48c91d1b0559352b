"""What attention and recurrent layers need to know of a step, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
from torch import Tensor

from pintpot.kernels.api import Segment

MOST_QUERY_TOKENS = 16  # a block of queries, from one sequence


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """`segments` and, int32 on the device, what kernels read of them.

    `slots`, `positions`, `places` [n_tokens]: cache slot, position in the sequence, place in the segment.
    `starts`, `counts`, `segment_slots` [n_segments]: first token, number of tokens, cache slot.
    `query_blocks` [n_blocks, 4]: at most `block_tokens` consecutive tokens of a segment as (slot, first
    token, number of tokens, position of the first). `longest`: most tokens in a slot after the step;
    `most_new`: most tokens of a segment.
    """

    segments: tuple[Segment, ...]
    slots: Tensor
    positions: Tensor
    places: Tensor
    starts: Tensor
    counts: Tensor
    segment_slots: Tensor
    query_blocks: Tensor
    block_tokens: int
    longest: int
    most_new: int

    @property
    def n_tokens(self) -> int:
        return self.slots.shape[0]


def device_batch(segments: Sequence[Segment], device: torch.device | str) -> DeviceBatch:
    """The arrays of a step, in one copy to the device."""
    n = [s.n for s in segments]
    starts = np.cumsum([0, *n[:-1]])
    block_tokens = triton.next_power_of_2(min(MOST_QUERY_TOKENS, max(n)))
    blocks = [
        (s.slot, start + at, min(block_tokens, s.n - at), s.past + at)
        for s, start in zip(segments, starts, strict=True)
        for at in range(0, s.n, block_tokens)
    ]
    parts = (
        np.repeat([s.slot for s in segments], n),
        np.concatenate([np.arange(s.past, s.past + s.n) for s in segments]),
        np.concatenate([np.arange(s.n) for s in segments]),
        starts,
        n,
        [s.slot for s in segments],
        np.ravel(blocks),
    )
    packed = torch.from_numpy(np.concatenate(parts).astype(np.int32)).to(device)
    slots, positions, places, first, counts, owners, query_blocks = packed.split(
        [len(part) for part in parts]
    )
    return DeviceBatch(
        tuple(segments),
        slots,
        positions,
        places,
        first,
        counts,
        owners,
        query_blocks.view(-1, 4),
        block_tokens,
        max(s.past + s.n for s in segments),
        max(n),
    )
