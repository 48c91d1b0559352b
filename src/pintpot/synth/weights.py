"""The bytes of each tensor, streamed in pieces.

Matrices are cut from pools of random blocks at random offsets: a pool is made once per type and standard
deviation, its length is prime so that rows never line up, and a 20 GB file costs copies and disk writes.

Routing. Expert logits should be as skewed and as local as in trained models (routing.py): a part that
depends on the expert alone, one on the prompt, one on the recent text, one on the token. A file can only
say this through its activations, so an embedding row is [common | topic | local | own]: the first part is
the same for all tokens, the second for the tokens of a topic, the third for a group of them, the rest is the
token's. Topics and groups are ranges of ids: topic t of n begins at t / n of the vocabulary. A router row
has independent random values in the four parts, scaled so that their shares of a logit's variance are a, b,
c and d. The head's rows hold their token's topic and local parts too, so that a generated text stays on its
topic (some 100 tokens) and in its group (some 10, the memory of rho = 0.9). A prompt in keeping is one of ids
from one topic. Rows too short for the parts (toys) have none of this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pintpot.gguf import TypeInfo
from pintpot.spec.shape import Shape
from pintpot.synth.blocks import centred_blocks
from pintpot.synth.encode import encode
from pintpot.synth.routing import routing_mix
from pintpot.synth.tensors import (
    LOGIT_STD,
    Embedding,
    FinalNorm,
    Head,
    LogUniform,
    Normal,
    Router,
    Tensor,
    Values,
)

Bytes = npt.NDArray[np.uint8]

_POOL_BYTES = 8 << 20
_PIECE_BYTES = 16 << 20
# What belonging to the topic and group of the token before adds to a token's logit. With 64 topics of 16
# groups the next token stays in its group with a chance of 0.9, on its topic with 0.99.
_TOPIC_LOGIT = 8.5
_LOCAL_LOGIT = 5.0


class WeightMaker:
    """Fills tensors of one shape. `types` maps tensor names to block types; bytes depend on the seed only."""

    def __init__(self, shape: Shape, types: dict[str, TypeInfo], seed: int) -> None:
        self.shape = shape
        self.types = types
        self.seed = seed
        self._pools: dict[tuple[str, float], Bytes] = {}
        self.part_width = part_width(shape)

    def pieces(self, tensor: Tensor) -> Iterator[Bytes]:
        """The tensor's bytes in order, in pieces of bounded size."""
        rng = np.random.default_rng([self.seed, *tensor.name.encode()])
        fill = tensor.fill
        if isinstance(fill, Embedding | Head):
            yield from self._rows(tensor, fill, rng)
        elif isinstance(fill, Normal) and fill.mean == 0.0 and tensor.n_values > 65536:
            yield from self._from_pool(self.types[tensor.name], fill.std, tensor.n_values, rng)
        else:
            kind = self.types[tensor.name]
            if isinstance(fill, Normal) and fill.mean == 0.0 and kind.name != "F32":
                yield centred_blocks(kind.id, tensor.n_values // kind.block_values, rng, fill.std)
            else:
                yield _as_bytes(self._vector(tensor, rng))

    # --- matrices ----------------------------------------------------------------------------------
    def _pool(self, kind: TypeInfo, std: float) -> Bytes:
        key = (kind.name, std)
        if key not in self._pools:
            n_blocks = _largest_prime(_POOL_BYTES // kind.block_bytes)
            rng = np.random.default_rng([self.seed, *kind.name.encode(), round(std * 1e9)])
            blocks = centred_blocks(kind.id, n_blocks, rng, std)
            self._pools[key] = blocks.reshape(n_blocks, kind.block_bytes)
        return self._pools[key]

    def _from_pool(
        self, kind: TypeInfo, std: float, n_values: int, rng: np.random.Generator
    ) -> Iterator[Bytes]:
        pool = self._pool(kind, std)
        flat = pool.reshape(-1)
        todo = n_values // kind.block_values * kind.block_bytes
        at = int(rng.integers(len(pool))) * kind.block_bytes
        while todo > 0:
            piece = flat[at : at + todo]
            yield piece
            todo -= len(piece)
            at = 0

    def _rows(self, tensor: Tensor, fill: Embedding | Head, rng: np.random.Generator) -> Iterator[Bytes]:
        """Token rows: pool blocks, with the common, topic and local parts laid over them."""
        kind = self.types[tensor.name]
        n_rows, cols = tensor.shape
        per_row = cols // kind.block_values
        part = self.part_width // kind.block_values
        pool = self._pool(kind, fill.std)
        step = max(1, _PIECE_BYTES // (per_row * kind.block_bytes))
        at = int(rng.integers(len(pool)))
        if part:
            n_topic, n_group = self.shape.n_topic, self.shape.n_topic * self.shape.n_local
            common = self._part(kind, 1, fill.std, 1)[0]
            topics = self._part(kind, 2, fill.std, n_topic)
            groups = self._part(kind, 3, fill.std, n_group)
        for first in range(0, n_rows, step):
            n = min(step, n_rows - first)
            rows = np.take(pool, range(at, at + n * per_row), axis=0, mode="wrap").reshape(n, per_row, -1)
            at = (at + n * per_row) % len(pool)
            if part:
                token = np.arange(first, first + n)
                if isinstance(fill, Embedding):
                    rows[:, :part] = common
                rows[:, part : 2 * part] = topics[token * n_topic // n_rows]
                rows[:, 2 * part : 3 * part] = groups[token * n_group // n_rows]
            yield rows.reshape(-1)

    def _part(self, kind: TypeInfo, number: int, std: float, n: int) -> Bytes:
        """n variants of a part, [n, blocks, bytes]: the same values in every type, but for their rounding."""
        peak = math.sqrt(3.0) * std
        rng = np.random.default_rng([self.seed, number])
        values = (rng.random((n, self.part_width), np.float32) * 2.0 - 1.0) * np.float32(peak)
        return encode(kind.id, values, peak).reshape(n, -1, kind.block_bytes)

    # --- float32 tensors ---------------------------------------------------------------------------
    def _vector(self, tensor: Tensor, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        fill, n = tensor.fill, tensor.n_values
        if isinstance(fill, Normal):
            values = rng.normal(fill.mean, fill.std, n)
        elif isinstance(fill, LogUniform):
            values = fill.sign * np.exp(rng.uniform(math.log(fill.low), math.log(fill.high), n))
        elif isinstance(fill, Values):
            values = np.asarray(fill.values)
        elif isinstance(fill, Router):
            values = self._router(tensor, fill, rng)
        elif isinstance(fill, FinalNorm):
            values = self._final_norm(n, fill, rng)
        else:
            raise TypeError(f"{tensor.name}: {fill} does not fill a float32 tensor")
        return values.astype(np.float32).reshape(-1)

    def _router(self, tensor: Tensor, fill: Router, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        n_expert, n_embd = tensor.shape
        rows = rng.standard_normal((n_expert, n_embd))
        wide = self.part_width
        if not wide:
            return rows * (self.shape.router_std / math.sqrt(n_embd))
        mix = routing_mix(n_expert)
        grown = math.sqrt(1.0 + fill.depth)  # the stream's growth since the embedding
        # What layers add to the stream is noise in every part: most of it counts as the token's share.
        shares = (0.85 * mix.everywhere, mix.prompt, 1.5 * mix.local)
        for number, share in enumerate(shares):
            rows[:, number * wide : (number + 1) * wide] *= grown * math.sqrt(share / wide)
        rows[:, 3 * wide :] *= math.sqrt(0.6 * mix.token / (n_embd - 3 * wide))
        return rows * self.shape.router_std

    def _final_norm(self, n: int, fill: FinalNorm, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        values = rng.normal(1.0, 0.1, n)
        if fill.signed:
            values *= rng.choice([-1.0, 1.0], n)
        wide = self.part_width
        if wide:
            # A part common to embedding and head adds weight * sqrt(1/2) * width * the head's deviation.
            lift = math.sqrt(0.5) * wide * LOGIT_STD / math.sqrt(n)
            values[wide : 2 * wide] = _TOPIC_LOGIT / lift
            values[2 * wide : 3 * wide] = _LOCAL_LOGIT / lift
        return values


def text_like_tokens(shape: Shape, n: int, seed: int = 0) -> npt.NDArray[np.int32]:
    """n token ids as a text has them: one topic, changing groups within it with a chance of 0.1 a token.

    Prompts for measuring a synthetic model; uniformly random ids would belong to all topics at once.
    """
    rng = np.random.default_rng(seed)
    n_group = shape.n_topic * shape.n_local
    topic = int(rng.integers(shape.n_topic))
    groups = rng.integers(shape.n_local, size=n)
    runs = np.maximum.accumulate(np.where(rng.random(n) < 0.1, np.arange(n), 0))
    group = topic * shape.n_local + groups[runs]
    # Token t is of group t * n_group // n_vocab.
    first, end = -(-group * shape.n_vocab // n_group), -(-(group + 1) * shape.n_vocab // n_group)
    return rng.integers(first, end).astype(np.int32)


def part_width(shape: Shape) -> int:
    """Columns of each of the first three parts of a row; 0 when rows are too short. A multiple of every
    block length in use."""
    granule = 256 if shape.n_embd % 256 == 0 else 32
    if shape.n_embd < 5 * granule or shape.n_topic < 2:
        return 0
    return max(granule, round(shape.n_embd / 8 / granule) * granule)


def _as_bytes(values: npt.NDArray[np.float32]) -> Bytes:
    return np.ascontiguousarray(values).view(np.uint8)


def _largest_prime(limit: int) -> int:
    def is_prime(n: int) -> bool:
        return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))

    return next(n for n in range(limit, 1, -1) if is_prime(n))
