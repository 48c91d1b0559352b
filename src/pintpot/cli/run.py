"""`pintpot run`: one answer, or a conversation."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pintpot.cli.options import BatchSize, CacheTypeK, CacheTypeV, CtxSize, Model, Threads
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.llm import LLM

_SAMPLING = "Sampling"
_OUTPUT = "Output"


def run(
    model: Model,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to say; without it, a conversation (or standard input).", show_default=False
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Read the prompt from a file.", show_default=False)
    ] = None,
    system: Annotated[
        str | None, typer.Option("-sys", "--system-prompt", help="System message.", show_default=False)
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
    ] = False,
    n_predict: Annotated[
        int,
        typer.Option(
            "-n", "--predict", "--n-predict", min=-1, help="Most tokens to generate; -1: until it ends."
        ),
    ] = -1,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "-r", "--reverse-prompt", "--stop", help="Stop at this text (repeatable).", show_default=False
        ),
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Go on after the end-of-generation token.")
    ] = False,
    temp: Annotated[
        float,
        typer.Option(
            "--temp",
            "--temperature",
            help="Temperature; 0: always the likeliest token.",
            rich_help_panel=_SAMPLING,
        ),
    ] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", help="0: off.", rich_help_panel=_SAMPLING)] = 40,
    top_p: Annotated[float, typer.Option("--top-p", help="1: off.", rich_help_panel=_SAMPLING)] = 0.95,
    min_p: Annotated[float, typer.Option("--min-p", help="0: off.", rich_help_panel=_SAMPLING)] = 0.05,
    typical: Annotated[
        float, typer.Option("--typical", "--typical-p", help="1: off.", rich_help_panel=_SAMPLING)
    ] = 1.0,
    repeat_penalty: Annotated[
        float, typer.Option("--repeat-penalty", help="1: off.", rich_help_panel=_SAMPLING)
    ] = 1.0,
    repeat_last_n: Annotated[
        int,
        typer.Option(
            "--repeat-last-n", help="Tokens penalties look back; -1: all.", rich_help_panel=_SAMPLING
        ),
    ] = 64,
    frequency_penalty: Annotated[float, typer.Option("--frequency-penalty", rich_help_panel=_SAMPLING)] = 0.0,
    presence_penalty: Annotated[float, typer.Option("--presence-penalty", rich_help_panel=_SAMPLING)] = 0.0,
    seed: Annotated[
        int, typer.Option("-s", "--seed", help="-1: different every time.", rich_help_panel=_SAMPLING)
    ] = -1,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(
            "-l",
            "--logit-bias",
            metavar="ID(+/-)BIAS",
            help="Make a token likelier or not: 15043+1 (repeatable).",
            show_default=False,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(
            "--logprobs",
            min=0,
            help="With --json: log-probabilities, and those of the N likeliest tokens.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.", rich_help_panel=_OUTPUT)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No speed and memory line.", rich_help_panel=_OUTPUT)
    ] = False,
    ctx_size: CtxSize = None,
    threads: Threads = None,
    batch_size: BatchSize = 512,
    cache_type_k: CacheTypeK = "f16",
    cache_type_v: CacheTypeV = "f16",
) -> None:
    """Run a model: answer PROMPT, or start a conversation."""
    from pintpot.llm import load
    from pintpot.runtime.sampler import SamplingParams

    params = SamplingParams(
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical,
        repeat_penalty=repeat_penalty,
        repeat_last_n=repeat_last_n,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        seed=None if seed == -1 else seed,
        logit_bias=parse_logit_bias(logit_bias or []),
    )
    if n_predict == 0:
        raise UsageError("-n 0 generates nothing: give a positive number, or -1 for no limit")
    if logprobs is not None and not json_output:
        raise UsageError("--logprobs needs --json")
    if raw and system is not None:
        raise UsageError("--raw takes no system prompt: put it into the prompt")
    text = _prompt_text(prompt, file)
    llm = load(
        model,
        ctx=ctx_size,
        threads=threads,
        batch=batch_size,
        cache_type_k=cache_type_k,
        cache_type_v=cache_type_v,
    )
    options: dict[str, Any] = {
        "params": params,
        "max_tokens": None if n_predict < 0 else n_predict,
        "stop": stop or (),
        "ignore_eos": ignore_eos,
        "logprobs": logprobs,
    }
    if text is None:
        if json_output:
            raise UsageError("--json needs a prompt")
        from pintpot.cli.chat import Chat

        Chat(llm, params, options, system=system, raw=raw).loop()
        return
    _answer_once(llm, text, system, raw or llm.chat_template is None, options, json_output, quiet)


def parse_logit_bias(items: list[str]) -> dict[int, float]:
    """`15043+1`, `15043-0.5`, `15043-inf` as llama.cpp writes them."""
    biases = {}
    for item in items:
        parts = re.fullmatch(r"(\d+)([+-](?:inf|\d+\.?\d*))", item)
        if parts is None:
            raise UsageError(f"--logit-bias {item!r}: expected TOKEN_ID(+/-)BIAS, such as 15043+1")
        biases[int(parts[1])] = float(parts[2])
    return biases


def _prompt_text(prompt: str | None, file: Path | None) -> str | None:
    if prompt is not None and file is not None:
        raise UsageError("give a prompt or --file, not both")
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"--file {file}: is not UTF-8 text") from None
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.buffer.read().decode("utf-8", errors="replace").strip()
        if not prompt:
            raise UsageError("standard input is empty: give a prompt")
    return prompt


def _answer_once(
    llm: LLM,
    text: str,
    system: str | None,
    raw: bool,
    options: dict[str, Any],
    json_output: bool,
    quiet: bool,
) -> None:
    from pintpot.cli.answer import result_json, stats_line, stream
    from pintpot.cli.text import note

    if raw:
        generation = llm.generate(text, **options)
    else:
        messages = [{"role": "system", "content": system}] if system else []
        generation = llm.chat([*messages, {"role": "user", "content": text}], **options)
    stream(generation, show=not json_output)
    if json_output:
        typer.echo(result_json(llm, generation))
    else:
        typer.echo()
        if not quiet:
            note(stats_line(llm, generation))
    from pintpot.cli import EXIT_INTERRUPTED
    from pintpot.runtime.engine import FinishReason

    if generation.finish_reason is FinishReason.CANCELLED:
        raise typer.Exit(EXIT_INTERRUPTED)
