"""pintpot behind the same few calls as llama_oracle.LlamaCpp: the models and kernels, without the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pintpot.gguf import GGUFFile
from pintpot.kernels.api import Ops, Segment
from pintpot.runtime.cache import ModelState
from pintpot.runtime.loader import load_model
from pintpot.spec.cache import KVType

F32 = npt.NDArray[np.float32]


class Ours:
    """A model file loaded by pintpot on `ops`, with room for one sequence of `n_ctx` tokens."""

    def __init__(
        self, path: Path, ops: Ops, *, n_ctx: int = 512, n_batch: int = 512, kv_type: KVType = KVType.F32
    ) -> None:
        self._model = load_model(GGUFFile.open(path), ops)
        self._state = ModelState(
            self._model, n_slots=1, ctx_tokens=n_ctx, n_batch=n_batch, type_k=kv_type, type_v=kv_type
        )
        self._n_batch = n_batch
        self._past = 0

    def reset(self) -> None:
        """Forgets the sequence."""
        self._state.reset(0)
        self._past = 0

    def step(self, tokens: Sequence[int], *, last: bool = False) -> F32:
        """Appends tokens in pieces of at most n_batch; logits [n_tokens (or 1 with last), n_vocab]."""
        out = []
        for start in range(0, len(tokens), self._n_batch):
            piece = np.asarray(tokens[start : start + self._n_batch], np.int32)
            final = start + len(piece) == len(tokens)
            rows = np.arange(len(piece), dtype=np.int32)
            if last:
                rows = rows[-1:] if final else rows[:0]
            ops = self._model.ops
            batch = ops.batch([Segment(0, self._past, len(piece))])
            logits = ops.to_numpy(self._model.forward(piece, batch, self._state, rows))
            if len(rows):
                out.append(np.array(logits))
            self._past += len(piece)
        return np.concatenate(out)

    def greedy(self, prompt: Sequence[int], n: int) -> tuple[list[int], F32]:
        """n tokens of greatest logit after the prompt, and the logits [n, n_vocab] that chose them."""
        self.reset()
        logits = [self.step(prompt, last=True)[0]]
        tokens = [int(np.argmax(logits[0]))]
        while len(tokens) < n:
            logits.append(self.step(tokens[-1:])[0])
            tokens.append(int(np.argmax(logits[-1])))
        return tokens, np.stack(logits)
