"""The engine: sequences in, tokens out. A step is schedule, run, postprocess.

Sequences that have their prompt behind them advance by one token a step; what is left of the step's
`n_batch` tokens goes to prompts, in order of arrival. Where guesses of what follows pay (`speculative`),
they advance by those that were right as well. A slot keeps its cache when its sequence ends, so that the
next prompt with the same beginning computes only what is new.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.errors import AcceleratorMemoryError, ContextLengthError, ModelFileError, UsageError
from pintpot.kernels.api import Segment
from pintpot.models.base import Model
from pintpot.runtime.cache import ModelState, SavedState
from pintpot.runtime.experts import ResidentExperts
from pintpot.runtime.hotset import Phase
from pintpot.runtime.sampler import token_logprob
from pintpot.runtime.sequence import FinishReason, Request, Sequence, Slot, TokenEvent
from pintpot.runtime.speculative import Guesser, Speculation, SpeculationParams, SpeculationType
from pintpot.spec.cache import KVType
from pintpot.tokenizer import Tokenizer

F32: TypeAlias = npt.NDArray[np.float32]


class _StepLostError(AcceleratorMemoryError):
    """A step found no memory, and some was freed for the next one."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a slot held after `tokens`, to come back to. It holds copies of recurrent states only, so it is
    of use as long as the slot goes on from these tokens and no other prompt takes its place."""

    tokens: tuple[int, ...]
    slot_index: int
    state: SavedState


@dataclass(frozen=True, slots=True)
class _Work:
    """A slot's part of a step: `n` tokens after its cached ones, then those of a draft to be verified."""

    slot: Slot
    sequence: Sequence
    past: int
    n: int
    wants_logits: bool
    draft: tuple[int, ...] = ()

    @property
    def n_fed(self) -> int:
        return self.n + len(self.draft)

    @property
    def n_rows(self) -> int:
        """Tokens whose logits are wanted: the last ones."""
        return 1 + len(self.draft) if self.wants_logits else 0


class Engine:
    """Runs one model. Not thread-safe: one caller submits and steps."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        ctx_tokens: int,
        n_slots: int = 1,
        n_batch: int = 512,
        type_k: KVType = KVType.F16,
        type_v: KVType = KVType.F16,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.ctx_tokens = ctx_tokens
        self.n_batch = n_batch
        # Embeddings may be padded past the last token there is: those rows are never chosen.
        self.n_tokens = min(model.spec.n_vocab, tokenizer.n_vocab)
        self.state = ModelState(
            model, n_slots=n_slots, ctx_tokens=ctx_tokens, n_batch=n_batch, type_k=type_k, type_v=type_v
        )
        self.experts: ResidentExperts | None = None  # on the accelerator, where there is one
        self.speculate(SpeculationParams(SpeculationType.NONE))
        self._slots = [Slot(i) for i in range(n_slots)]
        self._waiting: deque[Sequence] = deque()

    def speculate(self, params: SpeculationParams) -> None:
        """How requests from now on guess what follows."""
        self.speculation = Speculation(params, recurrent=self.state.recurrent)

    def submit(self, request: Request) -> Sequence:
        """Queues a request. Raises ContextLengthError or UsageError when it can never run, AcceleratorError
        when the accelerator failed before."""
        if self.experts is not None and self.experts.lost is not None:
            raise self.experts.lost
        if not request.prompt:
            raise UsageError("the prompt is empty: give at least one token")
        if request.max_tokens is not None and request.max_tokens < 1:
            raise UsageError(f"max_tokens is {request.max_tokens}: expected at least 1")
        if request.n_logprobs is not None and not 0 <= request.n_logprobs <= self.n_tokens:
            raise UsageError(f"logprobs is {request.n_logprobs}: expected 0 to {self.n_tokens}")
        for what, ids, end in (
            ("the prompt", request.prompt, self.model.spec.n_vocab),
            ("logit_bias", request.params.logit_bias, self.n_tokens),
        ):
            bad = next((t for t in ids if not 0 <= t < end), None)
            if bad is not None:
                raise UsageError(f"{what} has token id {bad}: the vocabulary ends at {end - 1}")
        self._check_fits(len(request.prompt), room=1)
        guesser = Guesser(self.speculation.params) if self.speculation.on else None
        sequence = Sequence(request, self.tokenizer, guesser)
        self._waiting.append(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence between two steps; its cache stays for the next prompt."""
        if sequence.finish_reason is None:
            self._finish(sequence, FinishReason.CANCELLED)

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or any(s.sequence for s in self._slots)

    def step(self) -> list[TokenEvent]:
        """Advances every running sequence; returns the tokens chosen (also kept in their `events`)."""
        work = self._schedule()
        if not work:
            return []
        start = time.perf_counter()
        answering = all(w.sequence.answering for w in work)
        saved = {w.slot.index: self.state.save(w.slot.index) for w in work if w.draft}
        try:
            if self.experts is None:
                events = self._postprocess(work, self._run(work))
            else:
                events = self._step_counted(work, self.experts)
        except _StepLostError:
            return []  # what its sequences have so far is computed anew in the next steps
        for w in work:
            if w.draft:
                self._roll_back(w, saved[w.slot.index])
        if answering:
            extra = sum(w.n_fed for w in work) - len(work)
            self.speculation.costs.observe(len(work), extra, time.perf_counter() - start)
        return events

    def logits(self, tokens: Seq[int]) -> F32:
        """Logits after each token of a fresh sequence, float32 [n_tokens, n_vocab]."""
        out = np.empty((len(tokens), self.model.spec.n_vocab), np.float32)
        done = 0
        for piece in self.logits_by_batch(tokens):
            out[done : done + len(piece)] = piece
            done += len(piece)
        return out

    def logits_by_batch(self, tokens: Seq[int]) -> Iterator[F32]:
        """What `logits` returns in pieces of at most `n_batch` tokens, for those who need not hold it all."""
        self._check_fits(len(tokens), room=0)
        if not tokens:
            raise UsageError("no tokens: give at least one")
        bad = next((t for t in tokens if not 0 <= t < self.model.spec.n_vocab), None)
        if bad is not None:
            raise UsageError(f"token id {bad}: the vocabulary ends at {self.model.spec.n_vocab - 1}")
        slot = next((s for s in self._slots if s.sequence is None), None)
        if slot is None:
            raise UsageError("every slot is busy: finish or cancel a sequence first")
        self._keep(slot, 0)
        for start in range(0, len(tokens), self.n_batch):
            chunk = list(tokens[start : start + self.n_batch])
            yield self._forward(
                [(slot, Segment(slot.index, start, len(chunk)), chunk)], np.arange(len(chunk), dtype=np.int32)
            )

    def checkpoint(self, tokens: Seq[int]) -> Checkpoint:
        """A way back to the free slot whose cache holds exactly `tokens` (what a request leaves behind is its
        prompt and its answer but for the last token). Raises UsageError when there is none."""
        for slot in self._slots:
            if slot.sequence is None and slot.cached == list(tokens):
                return Checkpoint(tuple(tokens), slot.index, self.state.save(slot.index))
        raise UsageError(f"no free slot holds exactly these {len(tokens):,} tokens: compute them first")

    def assume_cached(self, tokens: Seq[int]) -> None:
        """For timing: a free slot passes for one that holds `tokens`, whatever its memory has.

        Raises ContextLengthError, or UsageError when every slot is busy."""
        self._check_fits(len(tokens), room=1)
        slot = next((s for s in self._slots if s.sequence is None), None)
        if slot is None:
            raise UsageError("every slot is busy: finish or cancel a sequence first")
        self._keep(slot, 0)
        slot.cached = list(tokens)

    def rewind(self, checkpoint: Checkpoint, n_slots: int = 1) -> bool:
        """Makes the checkpoint's slot, and copies of it in others, `n_slots` in all, hold its tokens again.

        False where the slot has lost them: another prompt took its place, or a sliding window moved on too
        far. Raises UsageError when a slot that is needed is busy, or there are too few.
        """
        n, source = len(checkpoint.tokens), self._slots[checkpoint.slot_index]
        others = [s for s in self._slots if s is not source and s.sequence is None][: n_slots - 1]
        if source.sequence is not None or len(others) < n_slots - 1:
            raise UsageError(f"{n_slots} free slots are needed: finish or cancel sequences, or ask for more")
        if source.cached[:n] != list(checkpoint.tokens):
            return False
        if not self.state.restore(source.index, checkpoint.state, cached=len(source.cached), wanted=n):
            return False
        del source.cached[n:]
        for other in others:
            self.state.copy_slot(source.index, other.index, n)
            other.cached = list(checkpoint.tokens)
        return True

    def _check_fits(self, n_tokens: int, room: int) -> None:
        if n_tokens + room > self.ctx_tokens:
            raise ContextLengthError(
                f"the prompt has {n_tokens:,} tokens and the context holds {self.ctx_tokens:,}: "
                "shorten it, or ask for a larger context (-c)"
            )

    def _schedule(self) -> list[_Work]:
        self._admit()
        running = [s for s in self._slots if s.sequence is not None]
        running.sort(key=lambda s: s.sequence.submitted_at if s.sequence else 0.0)
        work = []
        budget = self.n_batch
        # Answers first: one token each, whatever prompts are waiting.
        for answering in (True, False):
            for slot in running:
                sequence = slot.sequence
                if sequence is None or sequence.answering is not answering or budget == 0:
                    continue
                past = len(slot.cached)
                n = min(len(sequence.tokens) - past, budget)
                work.append(_Work(slot, sequence, past, n, past + n == len(sequence.tokens)))
                budget -= n
        return self._with_drafts(work, budget)

    def _with_drafts(self, work: list[_Work], budget: int) -> list[_Work]:
        """With guesses of at most `budget` tokens, unless prompts are read: their steps are long anyway."""
        if not self.speculation.on or not all(w.sequence.answering for w in work):
            return work
        drafted = []
        for w in work:
            sequence = w.sequence
            if w.wants_logits and sequence.guesser is not None:
                room = min(budget, self.ctx_tokens - len(sequence.tokens) - 1, sequence.tokens_left - 1)
                draft = self.speculation.guess(
                    sequence.guesser, sequence.tokens, pending=w.n, room=room, n=len(work)
                )
                if draft:
                    budget -= len(draft)
                    w = replace(w, draft=tuple(draft))  # noqa: PLW2901
            drafted.append(w)
        return drafted

    def _admit(self) -> None:
        """Gives waiting sequences the free slot whose cache serves them best."""
        while self._waiting:
            free = [s for s in self._slots if s.sequence is None]
            if not free:
                return
            sequence = self._waiting.popleft()
            # At least the last prompt token is computed anew: its logits are needed.
            usable = len(sequence.tokens) - 1
            kept = {
                s.index: self.state.keepable(
                    s.index, len(s.cached), min(_common_prefix(s.cached, sequence.tokens), usable)
                )
                for s in free
            }
            slot = max(free, key=lambda s: (kept[s.index], -len(s.cached)))
            self._keep(slot, kept[slot.index])
            sequence.timings.cached_tokens = kept[slot.index]
            sequence.slot, slot.sequence = slot, sequence

    def _keep(self, slot: Slot, n: int) -> None:
        del slot.cached[n:]
        if n == 0:
            self.state.reset(slot.index)

    def _run(self, work: Seq[_Work]) -> F32:
        parts = []
        rows: list[int] = []
        end = 0
        for w in work:
            tokens = [*w.sequence.tokens[w.past : w.past + w.n], *w.draft]
            parts.append((w.slot, Segment(w.slot.index, w.past, w.n_fed), tokens))
            end += w.n_fed
            rows += range(end - w.n_rows, end)
        return self._forward(parts, np.array(rows, np.int32))

    def _step_counted(self, work: Seq[_Work], experts: ResidentExperts) -> list[TokenEvent]:
        before = replace(experts.counts)
        experts.before_step()
        logits = self._run(work)
        answering = [w.sequence.answering for w in work]
        prompt_done = any(w.wants_logits and not a for w, a in zip(work, answering, strict=True))
        events = self._postprocess(work, logits)
        try:
            experts.after_step(
                Phase.DECODE if all(answering) else Phase.PREFILL,
                prompt_done=prompt_done,
                learned=np.concatenate([_new_tokens(w) for w in work]),
                learned_rows=np.concatenate([_new_tokens(w)[w.n_fed - w.n_rows :] for w in work]),
            )
        except BaseException as error:
            if not self._has_made_room(error, [w.slot for w in work]):
                raise
        counts = experts.counts.since(before)
        for w, was_answering in zip(work, answering, strict=True):
            w.sequence.timings.count(counts, answering=was_answering)
            w.sequence.n_computed = max(w.sequence.n_computed, _n_right(w))
        return events

    def _forward(self, parts: Seq[tuple[Slot, Segment, list[int]]], out_rows: npt.NDArray[np.int32]) -> F32:
        """Runs tokens through the model and records them as cached. float32 [len(out_rows), n_vocab]."""
        ops = self.model.ops
        tokens = np.array([t for _, _, ids in parts for t in ids], np.int32)
        try:
            batch = ops.batch([segment for _, segment, _ in parts])
            logits = ops.to_numpy(self.model.forward(tokens, batch, self.state, out_rows))
            self._check_finite(logits)
        except BaseException as error:
            # An interrupted step leaves layers out of step with each other: what these slots hold is void.
            # States are reset when a prompt takes the slot: an accelerator that failed may not do it now.
            slots = [slot for slot, _, _ in parts]
            for slot in slots:
                slot.cached.clear()
            if not self._has_made_room(error, slots):
                raise
            for slot in slots:
                self._keep(slot, 0)
            raise _StepLostError(str(error)) from error
        for slot, _, ids in parts:
            slot.cached.extend(ids)
        return logits

    def _has_made_room(self, error: BaseException, slots: Seq[Slot]) -> bool:
        """Whether the accelerator's memory ran out and has fewer experts now, so that `slots` can go on; else
        their sequences end, those of all slots where the accelerator is lost.

        Raises what the device failed with in our words."""
        told = error if self.experts is None else self.experts.explain(error) or error
        if (
            isinstance(told, AcceleratorMemoryError)
            and self.experts is not None
            and self.experts.make_room(told)
        ):
            return True
        if self.experts is not None and self.experts.lost is not None:
            slots = self._slots
        for slot in slots:
            slot.cached.clear()
            if slot.sequence is not None:
                self._finish(slot.sequence, FinishReason.CANCELLED)
        if told is not error:
            raise told from error
        return False

    def _check_finite(self, logits: F32) -> None:
        if logits.size and not math.isfinite(float(logits.max())):
            raise ModelFileError(
                f"{self.model.spec.name}: the model computed NaN or infinite logits; its weights are "
                "probably damaged: verify or download the file again"
            )

    def _postprocess(self, work: Seq[_Work], logits: F32) -> list[TokenEvent]:
        events = []
        row = 0
        for w in work:
            if w.wants_logits:
                events += self._verify(w, logits[row : row + w.n_rows])
                row += w.n_rows
        return events

    def _verify(self, w: _Work, logits: F32) -> list[TokenEvent]:
        """Samples after the last token, and after each of the draft as long as that is what was sampled."""
        sequence = w.sequence
        events: list[TokenEvent] = []
        accepted = 0
        for row, guess in zip(logits, [*w.draft, None], strict=True):
            events.append(self._advance(sequence, row))
            right = events[-1].token == guess
            accepted += right
            if not right or sequence.finish_reason is not None:
                break
        if sequence.guesser is not None and w.draft:
            sequence.timings.drafted_tokens += len(w.draft)
            sequence.timings.accepted_tokens += accepted
            sequence.guesser.observe(min(len(w.draft), len(events)), accepted)
        return events

    def _roll_back(self, w: _Work, saved: SavedState) -> None:
        """Takes the tokens of a draft that were not sampled out of the cache. Recurrent state goes back to
        where the step began: the tokens that were right are computed again, with the next ones."""
        cached = w.slot.cached
        wanted = len(w.sequence.tokens) - 1
        if len(cached) <= wanted:
            return
        if self.state.recurrent:
            wanted = w.past
        # A ring has room for a step of n_batch tokens behind its window, and no draft is longer.
        self.state.restore(w.slot.index, saved, cached=len(cached), wanted=wanted)
        del cached[wanted:]

    def _advance(self, sequence: Sequence, logits: F32) -> TokenEvent:
        request, timings = sequence.request, sequence.timings
        logits = logits[: self.n_tokens]
        token = sequence.sampler.sample(logits, sequence.tokens)
        sequence.tokens.append(token)
        now = time.perf_counter()
        timings.generated_tokens += 1
        if timings.generated_tokens == 1:
            sequence.first_token_at = now
            timings.prompt_seconds = now - sequence.submitted_at
        timings.decode_seconds = now - sequence.first_token_at
        logprob = None
        if request.n_logprobs is not None:
            logprob = token_logprob(logits, token, request.n_logprobs)
        ended = token in self.tokenizer.eog_ids and not request.ignore_eos
        text = "" if ended else sequence.stops.push(sequence.stream.push(token))
        if ended or sequence.stops.stopped:
            reason: FinishReason | None = FinishReason.STOP
        elif timings.generated_tokens == request.max_tokens:
            reason = FinishReason.LENGTH
        elif len(sequence.tokens) >= self.ctx_tokens:
            reason = FinishReason.CONTEXT
        else:
            reason = None
        if reason is not None:
            if not sequence.stops.stopped:
                text += sequence.stops.push(sequence.stream.flush()) + sequence.stops.flush()
            self._finish(sequence, reason)
        event = TokenEvent(sequence, token, text, logprob)
        sequence.events.append(event)
        return event

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        if sequence.slot is not None:
            sequence.slot.sequence = None
            sequence.slot = None
        else:
            self._waiting = deque(s for s in self._waiting if s is not sequence)


def _common_prefix(a: Seq[int], b: Seq[int]) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def _n_right(w: _Work) -> int:
    """Tokens of the sequence that are computed after its part of a step, without those of a wrong draft."""
    return min(w.past + w.n_fed, len(w.sequence.tokens) - w.wants_logits)


def _new_tokens(w: _Work) -> npt.NDArray[np.bool_]:
    """Which of the tokens fed are the sequence's and were not computed before, bool [n_fed]."""
    places = np.arange(w.past, w.past + w.n_fed)
    return (places >= w.sequence.n_computed) & (places < _n_right(w))
