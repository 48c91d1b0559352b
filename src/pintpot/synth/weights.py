"""The bytes of each tensor, streamed in pieces.

Matrices are cut from pools of random blocks at random offsets: a pool is made once per type and standard
deviation, its length is prime so that rows never line up, and a 20 GB file costs copies and disk writes.

Routing. Expert logits should be as skewed and as local as in trained models (routing.py): a part that
depends on the expert alone, one on the topic, one on the recent text, one on the token. A file can only
say this through its activations, so an embedding row is [common | topic | own]: the first part is the same
for all tokens, the second for all tokens of a topic (tokens are grouped by id range), the rest is the
token's. A router row has independent random values in the three parts, scaled so that their shares of a
logit's variance are a, b and c + d; what attention and delta nets carry along from earlier tokens falls
into the third and is the slowly changing term. The head's rows lean towards the topic of their token, so
generated text stays on topic. Rows too short for three parts (toys) have none of this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pintpot.gguf import TypeInfo
from pintpot.quants.random_blocks import random_blocks
from pintpot.quants.reference import dequantize
from pintpot.synth.routing import routing_mix
from pintpot.synth.shape import Shape
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
_TOPIC_LOGIT = 7.0  # what being on topic adds to a token's logit; ln(topics) makes it an even chance


class WeightMaker:
    """Fills tensors of one shape. `types` maps tensor names to block types; bytes depend on the seed only."""

    def __init__(
        self, shape: Shape, tensors: Sequence[Tensor], types: dict[str, TypeInfo], seed: int
    ) -> None:
        self.shape = shape
        self.types = types
        self.seed = seed
        self.embd_std = next(t.fill.std for t in tensors if isinstance(t.fill, Embedding))
        self._pools: dict[tuple[str, float], Bytes] = {}
        self._topic_blocks: dict[str, Bytes] = {}
        self.common_width, self.topic_width = part_widths(shape)
        self.topic_of = np.arange(shape.n_vocab) * shape.n_topic // shape.n_vocab

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
                yield random_blocks(kind.id, tensor.n_values // kind.block_values, rng, fill.std)
            else:
                yield _as_bytes(self._vector(tensor, rng))

    # --- matrices ----------------------------------------------------------------------------------
    def _pool(self, kind: TypeInfo, std: float) -> Bytes:
        key = (kind.name, std)
        if key not in self._pools:
            n_blocks = _largest_prime(_POOL_BYTES // kind.block_bytes)
            rng = np.random.default_rng([self.seed, *kind.name.encode(), round(std * 1e9)])
            blocks = random_blocks(kind.id, n_blocks, rng, std)
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
        """Token rows: pool blocks, with the common and topic parts laid over them."""
        kind = self.types[tensor.name]
        n_rows, cols = tensor.shape
        per_row = cols // kind.block_values
        common = self.common_width // kind.block_values
        topic = self.topic_width // kind.block_values
        pool = self._pool(kind, fill.std)
        step = max(1, _PIECE_BYTES // (per_row * kind.block_bytes))
        at = int(rng.integers(len(pool)))
        shared = None
        if isinstance(fill, Embedding) and common:
            blocks = random_blocks(kind.id, common, np.random.default_rng([self.seed, 1]), fill.std)
            shared = blocks.reshape(common, kind.block_bytes)
        topics = self._topics(tensor, fill) if topic else None
        for first in range(0, n_rows, step):
            n = min(step, n_rows - first)
            rows = np.take(pool, range(at, at + n * per_row), axis=0, mode="wrap").reshape(n, per_row, -1)
            at = (at + n * per_row) % len(pool)
            if shared is not None:
                rows[:, :common] = shared
            if topics is not None:
                rows[:, common : common + topic] = topics[self.topic_of[first : first + n]]
            yield rows.reshape(-1)

    def _topics(self, tensor: Tensor, fill: Embedding | Head) -> Bytes:
        """The topic parts [n_topic, blocks, bytes]. A head's are, block by block, the random candidates
        that agree best with the embedding's."""
        kind = self.types[tensor.name]
        n_blocks = self.topic_width // kind.block_values
        embd_kind = self.types["token_embd.weight"]
        embd_blocks = self.topic_width // embd_kind.block_values
        rng = np.random.default_rng([self.seed, 2])
        wanted = random_blocks(embd_kind.id, self.shape.n_topic * embd_blocks, rng, self.embd_std)
        if isinstance(fill, Embedding):
            return wanted.reshape(self.shape.n_topic, n_blocks, -1)
        target = dequantize(embd_kind.id, wanted).reshape(-1, kind.block_values)
        n = _n_candidates(kind)
        raw = random_blocks(kind.id, n, rng, fill.std)
        values = dequantize(kind.id, raw).reshape(n, kind.block_values)
        best = np.argmax(target @ values.T, axis=1)
        chosen: Bytes = raw.reshape(n, kind.block_bytes)[best]
        return chosen.reshape(self.shape.n_topic, n_blocks, -1)

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
        mix, wide = routing_mix(n_expert), self.common_width
        if not wide:
            return rows * (self.shape.router_std / math.sqrt(n_embd))
        end = wide + self.topic_width
        grown = math.sqrt(1.0 + fill.depth)  # the stream's growth since the embedding
        rows[:, :wide] *= grown * math.sqrt(mix.everywhere / wide)
        rows[:, wide:end] *= grown * math.sqrt(mix.prompt / self.topic_width)
        rows[:, end:] *= math.sqrt((mix.local + mix.token) / (n_embd - end))
        return rows * self.shape.router_std

    def _final_norm(self, n: int, fill: FinalNorm, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        values = rng.normal(1.0, 0.1, n)
        if fill.signed:
            values *= rng.choice([-1.0, 1.0], n)
        if self.topic_width:
            part = slice(self.common_width, self.common_width + self.topic_width)
            # After the norm an aligned topic part adds weight * agreement * sqrt(2)/2 * width * head std.
            agreement = 1.0 if fill.signed else self._head_agreement()
            lift = agreement * math.sqrt(0.5) * self.topic_width * LOGIT_STD / math.sqrt(self.shape.n_embd)
            values[part] = _TOPIC_LOGIT / lift
        return values

    def _head_agreement(self) -> float:
        """Correlation of the best of the candidates with a random target of the head's block length."""
        kind = self.types["output.weight"]
        return min(1.0, math.sqrt(2.0 * math.log(_n_candidates(kind)) / max(kind.block_values, 18)))


def part_widths(shape: Shape) -> tuple[int, int]:
    """Columns of an embedding row that are common to all tokens, and to those of a topic; (0, 0) when
    rows are too short. Multiples of every block length in use."""
    granule = 256 if shape.n_embd % 256 == 0 else 32
    if shape.n_embd < 4 * granule or shape.n_topic < 2:
        return 0, 0
    width = max(granule, round(shape.n_embd / 8 / granule) * granule)
    return width, width


def _n_candidates(kind: TypeInfo) -> int:
    """Random blocks to choose a head's topic blocks from; few where blocks are short and targets many."""
    return min(4096, 64 * kind.block_values)


def _as_bytes(values: npt.NDArray[np.float32]) -> Bytes:
    return np.ascontiguousarray(values).view(np.uint8)


def _largest_prime(limit: int) -> int:
    def is_prime(n: int) -> bool:
        return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))

    return next(n for n in range(limit, 1, -1) if is_prime(n))
