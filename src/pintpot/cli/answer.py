"""Asking for an answer and showing it while it is made: streaming, Ctrl-C, progress, and the facts after."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pintpot.cli.text import human_bytes, write_answer
from pintpot.llm import LLM, Generation, Message
from pintpot.runtime.sampler import SamplingParams, TokenLogprob
from pintpot.runtime.sequence import FinishReason
from pintpot.runtime.timings import Timings

# Below this many prompt tokens the first word comes before a progress line would be read.
_PROGRESS_FROM_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Answering:
    """How questions are put and answered; the fields are those of `LLM.generate`."""

    params: SamplingParams
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    system: str | None = None
    raw: bool = False  # continue the text, even where the model has a chat template

    def continues_text(self, llm: LLM) -> bool:
        """Whether texts go to the model as they are, outside of any conversation."""
        return self.raw or llm.chat_template is None

    def ask(self, llm: LLM, text: str, past: Sequence[Message] = ()) -> Generation:
        """The answer to `text` after the messages of `past`, not yet begun."""
        prompt: str | list[int] = text
        if not self.continues_text(llm):
            system = [{"role": "system", "content": self.system}] if self.system else []
            prompt = llm.render([*system, *past, {"role": "user", "content": text}])
        return llm.generate(
            prompt,
            max_tokens=self.max_tokens,
            stop=self.stop,
            logprobs=self.logprobs,
            ignore_eos=self.ignore_eos,
            params=self.params,
        )


@contextmanager
def _interrupt_flag() -> Iterator[list[bool]]:
    """Ctrl-C sets the flag, so that a step is never cut in its middle; a second one interrupts at once."""
    flag: list[bool] = []

    def on_sigint(signum: int, frame: FrameType | None) -> None:
        if flag:
            signal.default_int_handler(signum, frame)
        flag.append(True)

    previous = signal.signal(signal.SIGINT, on_sigint)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


def stream(generation: Generation, *, show: bool) -> None:
    """Runs an answer to its end or to Ctrl-C, writing it as it comes."""
    n_prompt = generation.timings.prompt_tokens
    progress = show and sys.stderr.isatty() and n_prompt >= _PROGRESS_FROM_TOKENS
    with _interrupt_flag() as interrupted:
        while (piece := generation.step()) is not None:
            if progress:
                done = generation.prompt_done
                reading = not generation.tokens
                sys.stderr.write(
                    f"\r\x1b[Kreading the prompt: {done:,} of {n_prompt:,} tokens" if reading else "\r\x1b[K"
                )
                sys.stderr.flush()
                progress = reading
            if show and piece:
                write_answer(piece)
            if interrupted:
                generation.cancel()
                break


def stats_line(llm: LLM, generation: Generation) -> str:
    """Speed and memory of an answer, in one line."""
    t = generation.timings
    cached = f" ({t.cached_tokens:,} cached)" if t.cached_tokens else ""
    parts = [f"prompt {t.prompt_tokens:,} tokens{cached}, {t.prompt_tokens_s:.1f} tok/s"]
    if t.generated_tokens:
        guesses = (
            f" ({t.accepted_tokens:,} of {t.drafted_tokens:,} drafted accepted)" if t.drafted_tokens else ""
        )
        parts.append(f"answer {t.generated_tokens:,} tokens{guesses}, {t.decode_tokens_s:.1f} tok/s")
    memory = resident_bytes()
    if memory is not None:
        parts.append(
            f"memory {human_bytes(memory['private'])} + {human_bytes(memory['mapped'])} mapped files"
        )
    parts += _experts_words(t)
    use = llm.memory.accelerator
    if use is not None:
        parts.append(f"accelerator {human_bytes(use.used_bytes)} of {human_bytes(use.allowed_bytes)}")
    if generation.finish_reason is FinishReason.CONTEXT:
        parts.append(f"the context of {llm.ctx_tokens:,} tokens is full (-c gives more)")
    elif generation.finish_reason is FinishReason.CANCELLED:
        parts.append("interrupted")
    return "[" + " | ".join(parts) + "]"


def _experts_words(timings: Timings) -> Iterator[str]:
    """Hits and misses of the accelerator's expert slots."""
    for part, counts in (("prompt", timings.prompt_experts), ("answer", timings.answer_experts)):
        if counts is None or not counts.hits + counts.misses:
            continue
        words = f"{part}'s experts: {counts.hits:,} hits, {counts.misses:,} misses ({counts.hit_share:.0%})"
        if counts.streamed:
            words += f", {counts.streamed:,} of them streamed"
        if counts.uploads:
            words += f", {counts.uploads:,} uploads"
        yield words


def resident_bytes() -> dict[str, int] | None:
    """This process's memory: `private` (anonymous) and `mapped` (files, shared with the page cache), where
    the system tells."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    kib = {k: int(fields[k].split()[0]) for k in ("RssAnon", "RssFile") if k in fields}
    if len(kib) != 2:
        return None
    return {"private": kib["RssAnon"] * 1024, "mapped": kib["RssFile"] * 1024}


def result_json(llm: LLM, generation: Generation) -> str:
    """An answer and its facts as one JSON object."""
    t = generation.timings
    result: dict[str, Any] = {
        "model": llm.spec.name,
        "file": str(llm.path),
        "text": generation.text,
        "tokens": generation.tokens,
        "finish_reason": generation.finish_reason,
        "timings": {**asdict(t), "prompt_tokens_s": t.prompt_tokens_s, "decode_tokens_s": t.decode_tokens_s},
        "memory": {**asdict(llm.memory), "resident": resident_bytes()},
        "threads": llm.n_threads,
        "ctx_tokens": llm.ctx_tokens,
    }
    if generation.logprobs:
        result["logprobs"] = [_logprob_facts(llm, lp) for lp in generation.logprobs]
    return json.dumps(result, ensure_ascii=False)


def _logprob_facts(llm: LLM, chosen: TokenLogprob) -> dict[str, Any]:
    """A token's log-probability and those of the likeliest, best first, with their texts. A token may be part
    of a UTF-8 character: its text is U+FFFD then, and `bytes` says all."""

    def facts(token: int, logprob: float) -> dict[str, Any]:
        data = llm.tokenizer.token_bytes(token)
        text = data.decode("utf-8", "replace")
        return {"token": token, "text": text, "bytes": list(data), "logprob": logprob}

    return facts(chosen.token, chosen.logprob) | {"top": [facts(*top) for top in chosen.top]}
