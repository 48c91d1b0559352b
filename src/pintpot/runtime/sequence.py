"""A request on its way through the engine, and the slot of the cache that it is given."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from pintpot.runtime.sampler import Sampler, SamplingParams, TokenLogprob
from pintpot.runtime.speculative import Guesser
from pintpot.runtime.stopping import StopMatcher
from pintpot.runtime.timings import Timings
from pintpot.tokenizer import Tokenizer


class FinishReason(StrEnum):
    STOP = "stop"  # end-of-generation token or stop string
    LENGTH = "length"  # max_tokens
    CONTEXT = "context"  # the context is full
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate. `max_tokens` None: until the model stops or the context is full."""

    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n_logprobs: int | None = None  # None: no logprobs; n: also those of the n most likely tokens
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A token of `sequence` was chosen. `text` is what may be shown now; it may be empty."""

    sequence: Sequence
    token: int
    text: str
    logprob: TokenLogprob | None


class Sequence:
    """A request on its way through the engine."""

    def __init__(self, request: Request, tokenizer: Tokenizer, guesser: Guesser | None = None) -> None:
        self.request = request
        self.guesser = guesser
        self.tokens = list(request.prompt)  # prompt, then answer
        self.finish_reason: FinishReason | None = None
        self.timings = Timings(prompt_tokens=len(request.prompt))
        self.sampler = Sampler(request.params)
        self.slot: Slot | None = None
        self.n_computed = 0  # tokens whose routing was learned from
        self.stream = tokenizer.stream(after=request.prompt[-1])
        self.stops = StopMatcher(request.stop)
        self.events: deque[TokenEvent] = deque()  # for whoever reads this sequence
        self.submitted_at = time.perf_counter()
        self.first_token_at = 0.0

    @property
    def answer(self) -> list[int]:
        return self.tokens[len(self.request.prompt) :]

    @property
    def answering(self) -> bool:
        """Whether the prompt is behind it and the first token chosen."""
        return len(self.tokens) > len(self.request.prompt)

    @property
    def tokens_left(self) -> int:
        """Of `max_tokens`; without it no fewer than any context holds."""
        most = self.request.max_tokens
        return sys.maxsize if most is None else most - self.timings.generated_tokens

    @property
    def prompt_done(self) -> int:
        """Prompt tokens computed so far."""
        return 0 if self.slot is None else min(len(self.slot.cached), len(self.request.prompt))


@dataclass(slots=True)
class Slot:
    index: int
    cached: list[int] = field(default_factory=list)  # the tokens whose state is in the cache
    sequence: Sequence | None = None
