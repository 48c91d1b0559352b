"""Collecting an importance matrix: a model reads text in chunks while its backend records.

Chunks are those of llama-imatrix: equally long, each in a fresh context, the first token of each replaced
by the beginning-of-sequence token where the tokenizer adds one; what is left at the end goes unused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.errors import ModelFileError, UsageError
from pintpot.quantization.importance import DEFAULT_CHUNK_TOKENS, Imatrix, TensorImportance
from pintpot.runtime.engine import Engine

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]

_OUTPUT = ("output.weight", "token_embd.weight")  # the latter where embeddings are tied
_ROWS = 64  # of logits turned into probabilities at a time: a copy of few rows, not of all


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-likelihood of `n_tokens` tokens, and its standard error; NaN for none."""

    value: float
    error: float
    n_tokens: int


class Collector:
    """Collects over `tokens`, which `engine` reads in chunks.

        with Collector(engine, tokens) as collector:
            for chunks_done in collector.run():
                ...
            write_imatrix("imatrix.gguf", collector.imatrix())

    The engine records for this collector alone from entry to exit, and is to be used by nobody else.
    """

    def __init__(
        self,
        engine: Engine,
        tokens: Sequence[int],
        *,
        chunk_tokens: int = DEFAULT_CHUNK_TOKENS,
        first_chunk: int = 0,
        max_chunks: int | None = None,
        process_output: bool = False,
        perplexity: bool = True,
        dataset: str = "",
    ) -> None:
        """`process_output`: also the output head (with tied embeddings the token embedding's matrix).
        `dataset`: the text's name for the file. Raises UsageError when the text makes no chunk."""
        first, available = first_chunk * chunk_tokens, len(tokens) // chunk_tokens - first_chunk
        if available < 1:
            raise UsageError(
                f"the text has {len(tokens):,} tokens, expected at least {first + chunk_tokens:,} for a "
                f"chunk of {chunk_tokens:,}: give longer text or a smaller chunk (-c)"
            )
        self.n_chunks = available if max_chunks is None else min(max_chunks, available)
        self.chunk_tokens = chunk_tokens
        self._engine = engine
        self._tokens = tokens[first : first + self.n_chunks * chunk_tokens]
        self._process_output = process_output
        self._with_perplexity = perplexity
        self._datasets = (dataset,) if dataset else ()
        self._chunks_done = 0
        self._losses: list[F64] = []  # negative log-likelihoods, by piece

    def __enter__(self) -> Collector:
        self._engine.model.ops.start_recording()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.model.ops.stop_recording()

    def run(self) -> Iterator[int]:
        """Reads chunk after chunk; yields how many are done."""
        size, tokenizer = self.chunk_tokens, self._engine.tokenizer
        for start in range(0, len(self._tokens), size):
            text = list(self._tokens[start : start + size])
            read = text
            if tokenizer.vocab.add_bos and tokenizer.bos_id is not None:
                read = [tokenizer.bos_id, *text[1:]]
            position = 0
            for logits in self._engine.logits_by_batch(read):
                if self._with_perplexity:
                    self._judge(logits, text, position)
                position += len(logits)
            self._chunks_done += 1
            yield self._chunks_done

    def _judge(self, logits: F32, text: Sequence[int], position: int) -> None:
        """What the logits after tokens position, position+1 ... say of the tokens that follow. Only tokens
        with half a chunk of context count, as in llama.cpp."""
        for first in range(0, len(logits), _ROWS):
            last = min(first + _ROWS, len(logits))
            begin, end = max(position + first, self.chunk_tokens // 2), min(position + last, len(text) - 1)
            if begin < end:
                rows = logits[begin - position : end - position, : self._engine.n_tokens]
                self._losses.append(_losses(rows, text[begin + 1 : end + 1]))

    @property
    def perplexity(self) -> Perplexity:
        """Of the chunks done so far."""
        losses = np.concatenate(self._losses) if self._losses else np.empty(0)
        n = len(losses)
        if n == 0:
            return Perplexity(math.nan, math.nan, 0)
        value = float(np.exp(losses.mean()))
        error = value * float(losses.std()) / math.sqrt(n - 1) if n > 1 else math.nan
        return Perplexity(value, error, n)

    def imatrix(self) -> Imatrix:
        """What was recorded so far. Raises ModelFileError for activations that are not finite."""
        tensors = {}
        for name, sums in self._engine.model.ops.recorded().items():
            if not (name.startswith("blk.") or (self._process_output and name in _OUTPUT)):
                continue
            if not np.all(sums.squares <= np.finfo(np.float32).max):
                raise ModelFileError(
                    f"{self._engine.model.spec.name}: the inputs of tensor {name} are NaN or infinite; the "
                    "weights are probably damaged: verify or download the file again"
                )
            tensors[name] = TensorImportance(sums.squares.astype(np.float32), sums.rows)
        return Imatrix(tensors, self._datasets, self._chunks_done, self.chunk_tokens)


def _losses(logits: F32, targets: Sequence[int]) -> F64:
    """-log softmax(logits)[target] for each row. logits [n, n_vocab]; float64 [n]."""
    largest = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - largest).sum(axis=1, dtype=np.float64)
    chosen = np.take_along_axis(logits, np.asarray(targets, np.int64)[:, None], axis=1)
    result: F64 = np.log(total) - (chosen - largest)[:, 0].astype(np.float64)
    return result
