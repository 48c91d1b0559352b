"""Chat templates: a conversation as the text a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from pintpot.errors import TemplateError
from pintpot.tokenizer.budget import Budget, LimitExceededError, measure
from pintpot.tokenizer.fields import Fields

if TYPE_CHECKING:
    from jinja2 import Template

    from pintpot.tokenizer.sandbox import TemplateEnvironment
    from pintpot.tokenizer.tokenizer import Tokenizer

CHATML: Final = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_KEY: Final = "tokenizer.chat_template"
_MAX_SOURCE: Final = 200_000


class ChatTemplate:
    """A Jinja template in a sandbox with limits on time, memory and output. Thread-safe.

    Templates see what Hugging Face's do: `messages`, `tools`, `documents`, `add_generation_prompt`,
    `bos_token`, `eos_token`, the functions `raise_exception` and `strftime_now`, `tojson` that escapes
    nothing, `break` and `continue`. Compiled when first used.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str | None,
        eos_token: str | None,
        name: str,
        tool_use: str | None = None,
    ) -> None:
        """`name` is the file, for messages. `tool_use` is a template to take instead when there are tools."""
        self.source = source
        self.name = name
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._compiled: tuple[TemplateEnvironment, Template] | None = None
        self._lock = Lock()
        self._tool_use = (
            None
            if tool_use is None
            else ChatTemplate(tool_use, bos_token=bos_token, eos_token=eos_token, name=name)
        )

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, object], tokenizer: Tokenizer, *, variant: str | None = None
    ) -> ChatTemplate | None:
        """The file's `tokenizer.chat_template`, or its `variant` (`tokenizer.chat_template.VARIANT`).

        A file without a template, but with ChatML's tokens, gets ChatML; any other without one gets None.
        Raises ModelFileError for a template that is no string, TemplateError for a variant the file lacks.
        """
        fields = Fields(metadata, tokenizer.vocab.source)
        source = fields.text(_KEY if variant is None else f"{_KEY}.{variant}")
        if source is None and variant is not None:
            raise TemplateError(f"{fields.source}: has no chat template named {variant!r}")
        chatml = all(
            tokenizer.token_id(mark) in tokenizer.special_ids for mark in ("<|im_start|>", "<|im_end|>")
        )
        if source is None and chatml:
            source = CHATML
        if source is None:
            return None

        def spelled(token: int | None) -> str | None:
            return None if token is None else tokenizer.token_bytes(token).decode("utf-8", "replace")

        return cls(
            source,
            bos_token=spelled(tokenizer.bos_id),
            eos_token=spelled(tokenizer.eos_id),
            name=fields.source,
            tool_use=fields.text(f"{_KEY}.tool_use") if variant is None else None,
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The conversation as text, special tokens spelled out. `kwargs` are further variables
        (`enable_thinking=False`).

        Raises TemplateError when the template does not compile, fails, refuses the conversation, or
        exceeds its limits.
        """
        if tools and self._tool_use is not None:
            return self._tool_use.render(
                messages, tools=tools, add_generation_prompt=add_generation_prompt, **kwargs
            )
        variables: dict[str, Any] = {
            **{name: text for name, text in self._tokens.items() if text is not None},
            "strftime_now": _strftime_now,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **kwargs,
        }
        with self._lock:
            environment, template = self._compiled or self._compile()
            environment.budget = Budget(measure(variables))
            try:
                return _limited(template, variables, environment.budget)
            except Exception as error:  # noqa: BLE001  # a template can raise anything Python can
                raise self._failure("failed", error) from None

    def check(self) -> None:
        """Compiles the template. Raises TemplateError when it does not."""
        with self._lock:
            if self._compiled is None:
                self._compile()

    def _compile(self) -> tuple[TemplateEnvironment, Template]:
        from pintpot.tokenizer.sandbox import TemplateEnvironment

        if len(self.source) > _MAX_SOURCE:
            raise TemplateError(f"{self.name}: the chat template is larger than {_MAX_SOURCE} characters")
        environment = TemplateEnvironment()
        environment.budget = Budget(len(self.source))
        try:
            template = environment.compile_guarded(self.source)
        except Exception as error:  # noqa: BLE001  # jinja2's own errors, and whatever Python's compiler raises
            raise self._failure("does not compile", error) from None
        self._compiled = environment, template
        return self._compiled

    def _failure(self, what: str, error: Exception) -> TemplateError:
        from pintpot.tokenizer.sandbox import RefusedError

        reason = " ".join(str(error).split())[:300]
        if isinstance(error, LimitExceededError):
            return TemplateError(f"{self.name}: the chat template {reason}: stopped")
        if isinstance(error, RefusedError):
            return TemplateError(f"{self.name}: the chat template refuses this conversation: {reason}")
        if isinstance(error, RecursionError):
            reason = "it nests too deeply"
        line = getattr(error, "lineno", None)
        where = f" at line {line}" if line is not None else ""
        return TemplateError(
            f"{self.name}: the chat template {what}{where}: {reason or type(error).__name__}"
        )


def _limited(template: Template, variables: Mapping[str, Any], budget: Budget) -> str:
    parts: list[str] = []
    for part in template.generate(variables):
        budget.tick()
        parts.append(part)
        budget.make(len(part))
    text = "".join(parts)
    budget.fit(len(text))
    return text


def _strftime_now(format: str) -> str:  # noqa: A002  # the name templates may use
    if len(format) > 200:
        raise LimitExceededError("asks for a date in a very long format")
    return datetime.now().astimezone().strftime(format)
