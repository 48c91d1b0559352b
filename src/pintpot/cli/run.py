"""`pintpot run`: one answer, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pintpot.cli import options as o
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.cli.answer import Answering
    from pintpot.llm import LLM


def run(
    model: o.Model,
    prompt: o.Prompt = None,
    file: o.PromptFile = None,
    system: o.SystemPrompt = None,
    raw: o.Raw = False,
    n_predict: o.NPredict = -1,
    stop: o.Stop = None,
    ignore_eos: o.IgnoreEos = False,
    temp: o.Temperature = 0.8,
    top_k: o.TopK = 40,
    top_p: o.TopP = 0.95,
    min_p: o.MinP = 0.05,
    typical: o.TypicalP = 1.0,
    repeat_penalty: o.RepeatPenalty = 1.0,
    repeat_last_n: o.RepeatLastN = 64,
    frequency_penalty: o.FrequencyPenalty = 0.0,
    presence_penalty: o.PresencePenalty = 0.0,
    seed: o.Seed = -1,
    logit_bias: o.LogitBias = None,
    logprobs: o.Logprobs = None,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
    ctx_size: o.CtxSize = None,
    threads: o.Threads = None,
    batch_size: o.AnyBatchSize = None,
    cache_type_k: o.AnyCacheTypeK = None,
    cache_type_v: o.AnyCacheTypeV = None,
    accelerator: o.Accelerator = "auto",
    vram: o.Vram = None,
    n_gpu_layers: o.LimitGpuLayers = None,
    n_cpu_moe: o.LimitCpuMoe = None,
    override_tensor: o.LimitOverrideTensor = None,
    gpu_experts: o.LimitGpuExperts = None,
    expert_policy: o.ExpertPolicy = "adaptive",
    expert_profile: o.ExpertProfile = None,
    spec_type: o.SpecType = None,
    spec_ngram_simple_size_n: o.SpecNgramSizeN = 3,
    spec_ngram_simple_size_m: o.SpecNgramSizeM = 7,
) -> None:
    """Run a model: answer PROMPT, or start a conversation."""
    from pintpot.cli.answer import Answering
    from pintpot.cli.text import note
    from pintpot.llm import load
    from pintpot.runtime.sampler import SamplingParams
    from pintpot.store.resolve import resolve_model

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
        seed=None if seed < 0 else seed,
        logit_bias=o.parse_logit_bias(logit_bias or []),
    )
    path = resolve_model(model)
    text = _prompt_text(prompt, file)
    _check_together(text, n_predict, logprobs, json_output=json_output, raw=raw, system=system)
    how = Answering(
        params, None if n_predict < 0 else n_predict, tuple(stop or ()), ignore_eos, logprobs, system, raw
    )
    llm = load(
        path,
        ctx=ctx_size,
        threads=threads,
        batch=batch_size,
        cache_type_k=cache_type_k,
        cache_type_v=cache_type_v,
        accelerator=accelerator,
        vram=vram,
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=n_cpu_moe,
        override_tensor=override_tensor or (),
        gpu_experts=gpu_experts,
        expert_policy=expert_policy,
        expert_profile=expert_profile,
        spec_type=spec_type,
        spec_ngram_simple_size_n=spec_ngram_simple_size_n,
        spec_ngram_simple_size_m=spec_ngram_simple_size_m,
    )
    for line in llm.notes:
        note(f"note: {line}")
    if ctx_size is None:
        _tell_reduced_context(llm)
    if text is None:
        from pintpot.cli.chat import Chat

        Chat(llm, how).loop()
    else:
        _answer_once(llm, how, text, json_output=json_output, quiet=quiet)


def _prompt_text(prompt: str | None, file: Path | None) -> str | None:
    """The prompt from wherever it comes; None for a conversation at the terminal."""
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


def _check_together(
    text: str | None,
    n_predict: int,
    logprobs: int | None,
    *,
    json_output: bool,
    raw: bool,
    system: str | None,
) -> None:
    """Raises UsageError for flags that make no sense, alone or with each other."""
    if n_predict == 0:
        raise UsageError("-n 0 generates nothing: give a positive number, or -1 for no limit")
    if logprobs is not None and not json_output:
        raise UsageError("--logprobs needs --json")
    if raw and system is not None:
        raise UsageError("--raw takes no system prompt: put it into the prompt")
    if json_output and text is None:
        raise UsageError("--json needs a prompt")


def _tell_reduced_context(llm: LLM) -> None:
    """A line where memory holds less context than the default."""
    from pintpot.cli.text import note
    from pintpot.spec.cache import default_context

    default = default_context(llm.spec)
    if llm.ctx_tokens < default:
        note(
            f"note: the context is {llm.ctx_tokens:,} tokens: the cache of {default:,} does not fit this"
            " machine's memory (-ctk q8_0 -ctv q8_0 make it smaller)"
        )


def _answer_once(llm: LLM, how: Answering, text: str, *, json_output: bool, quiet: bool) -> None:
    """The answer and the line of speed and memory, or the JSON object; exits when interrupted."""
    from pintpot.cli import EXIT_INTERRUPTED
    from pintpot.cli.answer import result_json, stats_line, stream
    from pintpot.cli.text import note
    from pintpot.runtime.sequence import FinishReason

    told = len(llm.notes)
    generation = how.ask(llm, text)
    stream(generation, show=not json_output)
    if json_output:
        typer.echo(result_json(llm, generation))
    else:
        typer.echo()
        if not quiet:
            note(stats_line(llm, generation))
    for line in llm.notes[told:]:
        note(f"note: {line}")
    if generation.finish_reason is FinishReason.CANCELLED:
        raise typer.Exit(EXIT_INTERRUPTED)
