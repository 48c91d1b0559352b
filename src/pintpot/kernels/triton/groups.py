"""Which vectors meet which matrix of a stack.

A *pair* is a token and one of its matrices: pair p of ids [n_tokens, k] is token p // k with slot ids[p // k,
p % k]. Products go over blocks of pairs that share a slot. Built of torch operations that never wait for the
device, so that a captured graph can hold them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

FEW = 8  # vectors a block: up to here products are elementwise, beyond they are tiles of tl.dot
MANY = 16  # the least that tl.dot takes


@dataclass(frozen=True, slots=True)
class Groups:
    """Blocks of `block` pairs. `slots` int32 [n_blocks], -1 for a block to be skipped; `pairs` int32
    [n_blocks * block], -1 for none. Pairs of a negative slot are in no block; `complete`: there are none."""

    slots: Tensor
    pairs: Tensor
    block: int
    n_pairs: int
    complete: bool = False

    @property
    def n_blocks(self) -> int:
        return self.slots.shape[0]


def block_size(n: int) -> int:
    """The block for `n` vectors of one matrix: a power of two."""
    return min(64, 1 << max(0, n - 1).bit_length())


@lru_cache(maxsize=64)
def one_matrix(n_tokens: int, device: torch.device) -> Groups:
    """All tokens with slot 0. Kept: a step asks for the same one at every product."""
    block = block_size(n_tokens)
    n_blocks = -(-n_tokens // block)
    pairs = torch.arange(n_blocks * block, dtype=torch.int32, device=device)
    pairs = torch.where(pairs < n_tokens, pairs, -1)
    slots = torch.zeros(n_blocks, dtype=torch.int32, device=device)
    return Groups(slots, pairs, block, n_tokens, complete=True)


def each_pair(ids: Tensor) -> Groups:
    """Every pair on its own, for decoding; ids int32 [n_tokens, k]."""
    n = ids.numel()
    return Groups(ids.reshape(-1), torch.arange(n, dtype=torch.int32, device=ids.device), 1, n)


def by_slot(ids: Tensor, n_slots: int, block: int) -> Groups:
    """Pairs sorted by slot, each slot's padded to whole blocks; ids int32 [n_tokens, k] below n_slots."""
    flat = ids.reshape(-1).long()
    n, device = flat.shape[0], ids.device
    key = torch.where(flat < 0, n_slots, flat)
    order = torch.argsort(key, stable=True)
    counts = torch.zeros(n_slots + 1, dtype=torch.long, device=device)
    counts.scatter_add_(0, key, torch.ones_like(key))
    blocks = (counts[:n_slots] + block - 1) // block
    last_block = torch.cumsum(blocks, 0)
    n_blocks = min(n, n // block + n_slots)  # no more can be needed
    slots = torch.searchsorted(last_block, torch.arange(n_blocks, device=device), right=True)
    slots = torch.where(slots < n_slots, slots, -1)
    sorted_key = key[order]
    rank = torch.arange(n, device=device) - (torch.cumsum(counts, 0) - counts)[sorted_key]
    first = torch.cat(((last_block - blocks) * block, last_block.new_full((1,), n_blocks * block)))
    # Pairs without a matrix go behind the end.
    pairs = torch.full((n_blocks * block + n,), -1, dtype=torch.int32, device=device)
    pairs[first[sorted_key] + rank] = order.int()
    return Groups(slots.int(), pairs[: n_blocks * block], block, n)
