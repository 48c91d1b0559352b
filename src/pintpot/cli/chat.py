"""The conversation in the terminal: `pintpot run MODEL` without a prompt. Commands are Ollama's."""

from __future__ import annotations

import textwrap
from dataclasses import fields, replace
from typing import Any

from pintpot.cli.answer import Answering, stats_line, stream
from pintpot.cli.text import human_bytes, note
from pintpot.errors import ContextLengthError, PintpotError, UsageError
from pintpot.llm import LLM, Generation
from pintpot.runtime.sampler import SamplingParams

_HELP = '''\
/set NAME VALUE       change a setting:
{names}
/set system TEXT      set the system message (and begin anew)
/show                 the settings and the model
/stats                speed and memory of the last answer
/clear                forget the conversation
/bye                  leave (also Ctrl-D)
"""                   begin and end a message of several lines
Ctrl-C                stop the answer; the conversation stays'''

_SAMPLING = tuple(f.name for f in fields(SamplingParams) if f.name != "logit_bias")

# What people type, beside the field's own name.
_ALIASES = {
    "temp": "temperature",
    "typical": "typical_p",
    "num_predict": "max_tokens",
    "n": "max_tokens",
    "num_ctx": "ctx",
}


class Chat:
    """One conversation."""

    def __init__(self, llm: LLM, how: Answering) -> None:
        self._llm = llm
        self._how = how
        self._messages: list[dict[str, str]] = []
        self._last: Generation | None = None

    def loop(self) -> None:
        """Reads and answers until /bye or the end of input."""
        _enable_line_editing()
        mode = ""
        if self._how.continues_text(self._llm):
            why = "--raw" if self._how.raw else "the model has no chat template"
            mode = f"text is continued, not answered ({why}); "
        size = human_bytes(self._llm.memory.weights_bytes)
        note(f"{self._llm.spec.name} ({size}); {mode}/help lists the commands")
        while True:
            try:
                line = _read_message()
            except EOFError:
                note("")
                return
            except KeyboardInterrupt:
                note("\n(/bye or Ctrl-D leaves)")
                continue
            if line.strip() == "/bye":
                return
            try:
                self._handle(line)
            except ContextLengthError as error:
                note(f"pintpot: {error}, or /clear the conversation")
            except PintpotError as error:
                note(f"pintpot: {error}")
            except KeyboardInterrupt:
                note("interrupted")

    def _handle(self, line: str) -> None:
        if not line.strip():
            return
        command, _, rest = line.strip().partition(" ")
        if not command.startswith("/"):
            self._say(line)
        elif command in ("/help", "/?"):
            names = textwrap.fill(", ".join([*_SAMPLING, "max_tokens", "stop"]), 78, initial_indent=" " * 4)
            note(_HELP.format(names=names.replace("\n", "\n    ")))
        elif command == "/set":
            self._set(rest.strip())
        elif command == "/show":
            self._show()
        elif command == "/stats":
            note(stats_line(self._llm, self._last) if self._last else "no answer yet")
        elif command == "/clear":
            self._messages.clear()
            note("the conversation is forgotten")
        else:
            raise UsageError(f"{command}: no such command; /help lists them")

    def _say(self, text: str) -> None:
        told = len(self._llm.notes)
        generation = self._last = self._how.ask(self._llm, text, self._messages)
        stream(generation, show=True)
        print()  # noqa: T201
        note(stats_line(self._llm, generation))
        for change in self._llm.notes[told:]:
            note(f"note: {change}")
        self._messages += [
            {"role": "user", "content": text},
            {"role": "assistant", "content": generation.text},
        ]

    def _set(self, rest: str) -> None:
        name, _, value = rest.removeprefix("parameter ").strip().partition(" ")
        name, value = name.replace("-", "_"), value.strip()
        name = _ALIASES.get(name, name)
        if name == "system":
            self._set_system(value.strip('"'))
            return
        if not value:
            raise UsageError("/set NAME VALUE: /help lists the names")
        if name == "ctx":
            raise UsageError("the context is fixed when the model loads: start again with -c")
        if name == "max_tokens":
            n = int(_number(name, value, int))
            if n == 0:
                raise UsageError("max_tokens is 0: expected a positive number, or -1 for no limit")
            self._how = replace(self._how, max_tokens=None if n < 0 else n)
        elif name == "stop":
            self._how = replace(self._how, stop=(value.strip('"'),))
        elif name in _SAMPLING:
            kind = float if isinstance(getattr(SamplingParams(), name), float) else int
            number = _number(name, value, kind)
            changed: dict[str, Any] = {name: None if name == "seed" and number < 0 else number}
            self._how = replace(self._how, params=replace(self._how.params, **changed))
        else:
            raise UsageError(f"{name}: no such setting; /help lists them")
        note(f"{name} = {value}")

    def _set_system(self, text: str) -> None:
        if self._how.continues_text(self._llm):
            raise UsageError("text is continued as it is: there is no place for a system message")
        self._how = replace(self._how, system=text or None)
        self._messages.clear()
        note(f"system message {'set' if text else 'removed'}; the conversation begins anew")

    def _show(self) -> None:
        for name in _SAMPLING:
            note(f"{name:18} {getattr(self._how.params, name)}")
        note(f"{'stop':18} {', '.join(map(repr, self._how.stop))}")
        note(f"{'max_tokens':18} {self._how.max_tokens or 'until it ends'}")
        note(f"{'system':18} {self._how.system or ''}")
        spec, memory = self._llm.spec, self._llm.memory
        note(f"{'model':18} {spec.name} ({spec.arch}), {human_bytes(memory.weights_bytes)} weights")
        note(f"{'context':18} {self._llm.ctx_tokens:,} tokens, {human_bytes(memory.cache_bytes)} when full")


def _number(name: str, value: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(
            f"{name} is {value!r}: expected a {'whole number' if kind is int else 'number'}"
        ) from None


def _read_message() -> str:
    line = input(">>> ")
    if not line.lstrip().startswith('"""'):
        return line
    lines = [line.lstrip()[3:]]
    while not lines[-1].rstrip().endswith('"""'):
        lines.append(input("... "))
    lines[-1] = lines[-1].rstrip()[:-3]
    return "\n".join(lines).strip("\n")


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401  importing it gives input() history and editing
    except ImportError:
        note("(no line editing: this Python has no readline)")
