"""Timing the engine the way it is used: prefill and decode at a given depth of context.

Tokens are random, as llama-bench's are, those fed back while decoding too: the greedy answer of a model soon
repeats itself, its experts would stay in the CPU's cache and several sequences would share them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pintpot.errors import UsageError
from pintpot.runtime.engine import Checkpoint, Engine
from pintpot.runtime.sampler import SamplingParams
from pintpot.runtime.sequence import Request
from pintpot.runtime.sequence import Sequence as EngineSequence

_GREEDY = SamplingParams(temperature=0, top_k=0, top_p=1, min_p=0)


class SpeedTest(NamedTuple):
    """`n` tokens of a prompt (kind pp), or of each of `parallel` answers (tg), timed after `depth` others."""

    kind: str
    n: int
    depth: int
    parallel: int = 1

    @property
    def name(self) -> str:
        together = f" x{self.parallel}" if self.parallel > 1 else ""
        return f"{self.kind}{self.n}{together}" + (f" @ d{self.depth}" if self.depth else "")

    @property
    def ctx_tokens(self) -> int:
        """The context it needs: a token begins an answer, and the last one chosen is not computed."""
        return self.depth + self.n + 2


class SpeedMeter:
    """Runs tests on an engine nobody else uses. A depth is filled once: every test there, and every
    repetition, begins by rewinding to it, and a greater depth continues from it."""

    def __init__(self, engine: Engine, seed: int = 0, *, computed: bool = True) -> None:
        """`computed` False: the context is claimed, not computed (`Engine.assume_cached`). A step
        reads as many bytes of it, and a great depth takes no time to fill."""
        self._engine = engine
        self._computed = computed
        self._rng = np.random.default_rng(seed)
        self._past: list[int] = []  # the deepest context so far; every other is its beginning
        self._checkpoint: Checkpoint | None = None

    def run(self, test: SpeedTest) -> float:
        """Tokens a second. Raises UsageError for a kind that is none."""
        match test.kind:
            case "pp":
                return self.prefill(test.n, test.depth)
            case "tg":
                return self.decode(test.n, test.depth, test.parallel)
        raise UsageError(f"no test is of kind {test.kind!r}: expected pp or tg")

    def prefill(self, n_tokens: int, depth: int = 0) -> float:
        """Tokens a second for `n_tokens` prompt tokens after `depth` cached ones, until the answer begins."""
        past = self.fill(depth)
        return n_tokens / self._answer([*past, *self._random(n_tokens)])

    def decode(self, n_tokens: int, depth: int = 0, parallel: int = 1) -> float:
        """Tokens a second of `parallel` sequences together, in `n_tokens` steps after `depth` tokens and one
        more. Sampling is included."""
        past = self.fill(depth, parallel)
        sequences = [self._submit([*past, first]) for first in self._random(parallel)]
        while not all(sequence.answering for sequence in sequences):
            self._engine.step()
        fed = self._rng.integers(0, self._engine.model.spec.n_vocab, (n_tokens, parallel)).tolist()
        chosen = 0
        start = time.perf_counter()
        for tokens in fed:
            for sequence, token in zip(sequences, tokens, strict=True):
                sequence.tokens[-1] = token
            chosen += len(self._engine.step())
        seconds = time.perf_counter() - start
        for sequence in sequences:
            self._engine.cancel(sequence)
        return chosen / seconds

    def fill(self, depth: int, n_slots: int = 1) -> Sequence[int]:
        """Makes `n_slots` slots hold the same `depth` random tokens, which it returns."""
        if depth == 0:
            return []
        self._past += self._random(depth - len(self._past))
        past = self._past[:depth]
        found = self._checkpoint is not None and self._engine.rewind(self._checkpoint)
        if self._checkpoint is None or not found or len(self._checkpoint.tokens) != depth:
            if self._computed:
                self._answer(past)
            else:
                self._engine.assume_cached(past)
            self._checkpoint = self._engine.checkpoint(past)
        if n_slots > 1:
            self._engine.rewind(self._checkpoint, n_slots)
        return past

    def _random(self, n: int) -> list[int]:
        tokens: list[int] = self._rng.integers(0, self._engine.model.spec.n_vocab, max(n, 0)).tolist()
        return tokens

    def _submit(self, prompt: Sequence[int], max_tokens: int | None = None) -> EngineSequence:
        return self._engine.submit(
            Request(tuple(prompt), params=_GREEDY, max_tokens=max_tokens, ignore_eos=True)
        )

    def _answer(self, prompt: Sequence[int]) -> float:
        """Seconds until the first token of the answer."""
        sequence = self._submit(prompt, 1)
        while sequence.finish_reason is None:
            self._engine.step()
        return sequence.timings.prompt_seconds
