"""Speculation: guess the next tokens, verify them in one step, keep what plain decoding would have chosen.

A guess is verified by feeding it: the logits after each of its tokens are those that a step of its own would
have brought, the request's sampler draws from them in order, and the first draw that differs from the guess
ends what is kept. Every token is therefore drawn from the model's own distribution given what precedes it,
with the same random numbers as without speculation.

Guesses come from prompt lookup (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding): what followed
the last tokens when they occurred before. How long a guess pays is decided from measured seconds and
acceptance, as expected tokens a second (Leviathan et al. 2023, arXiv:2211.17192, section 3).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pintpot.errors import UsageError

# A step may give a sequence this many tokens and compute what as many steps would, to the bit: kShortSegment
# of csrc/mixer_kernels.h.
MAX_SEGMENT_TOKENS: Final = 8
_MAX_LOOKUP_TOKENS: Final = 1024  # llama.cpp's bound
_CANDIDATES: Final = 8  # earlier occurrences that are compared, the latest first
_LONGEST_MATCH: Final = 32  # tokens; a longer match makes no occurrence better than another
_PROBE_EVERY: Final = 32  # chances to guess, while guessing does not pay
_PROBE_TOKENS: Final = 2  # guessed then, and while costs are not known
_NEWEST: Final = 0.1  # weight of the newest observation in a mean
_FIRST_ACCEPTANCE: Final = (
    0.8  # of a sequence, before anything was observed: hopeful, so that something is ...
)
_FIRST_WEIGHT: Final = 3  # ... and forgotten like so many observations
_MEASURED_FIRST: Final = 3  # steps without a guess before the first, and with one before any is judged
_RECENT: Final = 15  # steps whose median counts: other programs and cold pages do not


class SpeculationType(StrEnum):
    """Where guesses come from, as llama.cpp's --spec-type names it."""

    NONE = "none"
    NGRAM_SIMPLE = "ngram-simple"

    @classmethod
    def parse(cls, name: str) -> SpeculationType:
        """The type called `name`. Raises UsageError."""
        try:
            return cls(name.lower())
        except ValueError:
            raise UsageError(f"--spec-type {name!r}: expected {', '.join(cls)}") from None


@dataclass(frozen=True, slots=True)
class SpeculationParams:
    """How to guess. `size_n`: tokens that must have occurred before; `size_m`: most tokens guessed at once.
    Not `adaptive`: always as many as can be."""

    type: SpeculationType = SpeculationType.NGRAM_SIMPLE
    size_n: int = 3
    size_m: int = MAX_SEGMENT_TOKENS - 1
    adaptive: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.size_n <= _MAX_LOOKUP_TOKENS:
            raise UsageError(
                f"--spec-ngram-simple-size-n is {self.size_n}: expected 1 to {_MAX_LOOKUP_TOKENS}"
            )
        if not 1 <= self.size_m < MAX_SEGMENT_TOKENS:
            raise UsageError(
                f"--spec-ngram-simple-size-m is {self.size_m}: expected 1 to {MAX_SEGMENT_TOKENS - 1}, "
                "the guesses that are verified exactly"
            )


class NgramIndex:
    """Where the n-grams of a growing text ended. Every token is looked at once, however often one asks."""

    def __init__(self, size_n: int) -> None:
        self._n = size_n
        self._latest: dict[int, int] = {}  # hash of an n-gram -> the place after its latest occurrence
        self._before: list[int] = []  # for each place, that of the occurrence before; 0: none

    def propose(self, tokens: Sequence[int], at_most: int) -> list[int]:
        """The `at_most` tokens that followed the last n-gram of `tokens` before, where the match was longest
        (of equal ones, latest); none where there was none. `tokens` must begin with those of the last call,
        but for the last of them."""
        n, end = self._n, len(tokens)
        for place in range(max(n, len(self._before)), end):
            self._add(tokens, place)
        if end < n:
            return []
        best, best_length = 0, n - 1
        place = self._latest.get(hash(tuple(tokens[end - n :])), 0)
        for _ in range(_CANDIDATES):
            if place == 0:
                break
            length = _match_length(tokens, place, end)
            if length > best_length:
                best, best_length = place, length
            place = self._before[place]
        if best == 0:
            return []
        period = end - best  # a match that reaches the end of the text goes on as it repeats
        return [tokens[best + i % period] for i in range(at_most)]

    def _add(self, tokens: Sequence[int], place: int) -> None:
        self._before.extend([0] * (place + 1 - len(self._before)))
        key = hash(tuple(tokens[place - self._n : place]))
        self._before[place] = self._latest.get(key, 0)
        self._latest[key] = place


def _match_length(tokens: Sequence[int], a: int, b: int) -> int:
    """Equal tokens before the places `a` < `b`."""
    most = min(a, _LONGEST_MATCH)
    return next((i for i in range(most) if tokens[a - 1 - i] != tokens[b - 1 - i]), most)


@dataclass(slots=True)
class Mean:
    """A mean that forgets."""

    value: float = 0.0
    n: int = 0

    def add(self, value: float) -> None:
        """The first observations count alike."""
        self.n += 1
        self.value += (value - self.value) * max(_NEWEST, 1 / self.n)


class Recent:
    """The median of the latest observations."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_RECENT)

    def add(self, value: float) -> None:
        """The latest one."""
        self._values.append(value)

    @property
    def known(self) -> bool:
        """Whether there are enough to judge by."""
        return len(self._values) >= _MEASURED_FIRST

    @property
    def value(self) -> float:
        """Of no observation: 0."""
        return statistics.median(self._values) if self._values else 0.0


class Guesser:
    """The guesses of one sequence, and how they fared."""

    def __init__(self, params: SpeculationParams) -> None:
        self._index = NgramIndex(params.size_n)
        self._chances = 0
        # Of a guessed token whose predecessors were right.
        self.acceptance = Mean(_FIRST_ACCEPTANCE, _FIRST_WEIGHT)

    def propose(self, tokens: Sequence[int], at_most: int) -> list[int]:
        """See NgramIndex."""
        return self._index.propose(tokens, at_most) if at_most > 0 else []

    def observe(self, guessed: int, accepted: int) -> None:
        """`accepted` of `guessed` tokens were right."""
        for _ in range(accepted):
            self.acceptance.add(1.0)
        if accepted < guessed:
            self.acceptance.add(0.0)

    def probes(self) -> bool:
        """Whether to guess although it does not pay: rarely. Called at every such chance."""
        self._chances += 1
        return self._chances % _PROBE_EVERY == 0


@dataclass(slots=True)
class StepCosts:
    """Measured seconds of steps in which every sequence is answering, and what they say of guesses.

    A step of `n` sequences and `extra` more tokens is taken to cost plain[n] + extra * token. Where recurrent
    state cannot go back, a wrong guess makes the next step compute again what was right (`recurrent`).
    """

    recurrent: bool
    plain: dict[int, Recent] = field(default_factory=dict)
    token: Recent = field(default_factory=Recent)  # an extra token

    def observe(self, n: int, extra: int, seconds: float) -> None:
        """A step of `n` sequences took `seconds` for `n + extra` tokens."""
        if extra == 0:
            self.plain.setdefault(n, Recent()).add(seconds)
        elif n in self.plain:
            self.token.add(max(0.0, seconds - self.plain[n].value) / extra)

    def known(self, n: int) -> bool:
        """Whether enough steps of `n` sequences were measured to begin with guesses."""
        return n in self.plain and self.plain[n].known

    def gain(self, guessed: int, acceptance: float, n: int) -> float:
        """Expected tokens a second, over a plain step's, where one of `n` sequences guesses so many."""
        return self._gain(guessed, acceptance, n, self.plain[n].value, self.token.value)

    def _gain(self, guessed: int, acceptance: float, n: int, plain: float, token: float) -> float:
        right = [acceptance**i for i in range(1, guessed + 1)]
        extra = float(guessed)
        if self.recurrent:
            extra += sum(acceptance**i * (1 - acceptance) * (1 + i) for i in range(guessed))
        return (1 + sum(right) / n) * plain / (plain + extra * token)

    def best_length(self, at_most: int, acceptance: float, n: int) -> int:
        """How many tokens to guess; 0 where none pays. Few until it was measured what they cost."""
        if not self.token.known:
            return min(at_most, _PROBE_TOKENS)
        plain, token = self.plain[n].value, self.token.value
        return max(range(at_most + 1), key=lambda k: self._gain(k, acceptance, n, plain, token))


class Speculation:
    """What an engine guesses, and whether."""

    def __init__(self, params: SpeculationParams, *, recurrent: bool) -> None:
        self.params = params
        self.costs = StepCosts(recurrent)

    @property
    def on(self) -> bool:
        """Whether there are guesses at all."""
        return self.params.type is not SpeculationType.NONE

    def guess(self, guesser: Guesser, tokens: Sequence[int], *, pending: int, room: int, n: int) -> list[int]:
        """Tokens that may follow `tokens`, the last `pending` of which are still to be computed: at most
        `room`, in a step of `n` sequences; none where that is expected to lose."""
        at_most = min(self.params.size_m, room, MAX_SEGMENT_TOKENS - pending)
        if at_most <= 0 or (self.params.adaptive and not self.costs.known(n)):
            return []
        guess = guesser.propose(tokens, at_most)
        if not guess or not self.params.adaptive:
            return guess
        length = self.costs.best_length(len(guess), guesser.acceptance.value, n)
        if length == 0 and guesser.probes():
            length = _PROBE_TOKENS
        return guess[:length]
