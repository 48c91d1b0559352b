"""`pintpot bench`: prefill and decode speed, as llama-bench measures them."""

from __future__ import annotations

import contextlib
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pintpot.cli import options as o
from pintpot.cli.options import BatchSize, CacheTypeK, CacheTypeV, Model, Threads
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.llm import LLM
    from pintpot.planner.memory import CacheSettings
    from pintpot.runtime.measure import SpeedTest


class OutputFormat(StrEnum):
    TABLE = "table"
    MD = "md"
    JSON = "json"
    CSV = "csv"


def bench(
    model: Model,
    n_prompt: Annotated[
        str, typer.Option("-p", "--n-prompt", help="Prompt tokens to time (comma-separated); 0: none.")
    ] = "512",
    n_gen: Annotated[
        str, typer.Option("-n", "--n-gen", help="Tokens to generate (comma-separated); 0: none.")
    ] = "128",
    n_depth: Annotated[
        str, typer.Option("-d", "--n-depth", help="Tokens in the context beforehand (comma-separated).")
    ] = "0",
    n_parallel: Annotated[
        str,
        typer.Option(
            "-npl",
            "--n-parallel",
            help="Sequences that decode together (comma-separated); their speed is of all.",
        ),
    ] = "1",
    repetitions: Annotated[int, typer.Option("-r", "--repetitions", min=1, help="Runs of each test.")] = 3,
    output: Annotated[
        OutputFormat, typer.Option("-o", "--output", help="How to print.")
    ] = OutputFormat.TABLE,
    threads: Threads = None,
    batch_size: BatchSize = 512,
    cache_type_k: CacheTypeK = "f16",
    cache_type_v: CacheTypeV = "f16",
    accelerator: o.Accelerator = "auto",
    vram: o.Vram = None,
    n_gpu_layers: o.LimitGpuLayers = None,
    n_cpu_moe: o.LimitCpuMoe = None,
    override_tensor: o.LimitOverrideTensor = None,
    gpu_experts: o.LimitGpuExperts = None,
    expert_policy: o.ExpertPolicy = "adaptive",
) -> None:
    """Measure a model's speed on this machine.

    Every test runs once unmeasured first, to warm up: weights come from disk, memory is touched, the CPU
    reaches its clock. A depth is filled once for all tests. Tables show the mean and standard deviation of
    the repetitions; JSON has each of them, and the median.
    """
    from pintpot.cli.text import note
    from pintpot.llm import load
    from pintpot.planner.memory import CacheSettings
    from pintpot.spec.cache import KVType

    tests = _tests(n_prompt, n_gen, n_depth, n_parallel)
    ctx = max(test.ctx_tokens for test in tests)
    llm = load(
        model,
        ctx=ctx,
        threads=threads,
        batch=batch_size,
        slots=max(test.parallel for test in tests),
        cache_type_k=cache_type_k,
        cache_type_v=cache_type_v,
        accelerator=accelerator,
        vram=vram,
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=n_cpu_moe,
        override_tensor=override_tensor or (),
        gpu_experts=gpu_experts,
        expert_policy=expert_policy,
        spec_type="none",  # its tokens are random
    )
    for line in llm.notes:
        note(f"note: {line}")
    facts = _facts(llm) | {
        "batch_size": batch_size,
        "cache_type_k": cache_type_k,
        "cache_type_v": cache_type_v,
    }
    speeds = _measure(llm, tests, repetitions)
    facts |= _accelerator_facts(llm)
    if llm.memory.accelerator is None:  # a plan's figures for the CPU come from it alone
        _remember(
            llm, tests, speeds, CacheSettings(ctx, KVType(cache_type_k), KVType(cache_type_v), batch_size)
        )
    _print([facts | _row(test, samples) for test, samples in zip(tests, speeds, strict=True)], output)


def _tests(n_prompt: str, n_gen: str, n_depth: str, n_parallel: str) -> list[SpeedTest]:
    """Every combination that has something to time."""
    from pintpot.runtime.measure import SpeedTest

    prompts, gens, depths = _numbers("-p", n_prompt), _numbers("-n", n_gen), _numbers("-d", n_depth)
    together = _numbers("-npl", n_parallel)
    if 0 in together:
        raise UsageError(f"-npl {n_parallel!r}: at least one sequence decodes")
    tests = [SpeedTest("pp", n, depth) for depth in depths for n in prompts if n]
    tests += [SpeedTest("tg", n, depth, k) for depth in depths for n in gens if n for k in together]
    if not tests:
        raise UsageError("nothing to measure: give -p or -n a positive number")
    return tests


def _numbers(flag: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if any(n < 0 for n in numbers):
        raise UsageError(f"{flag} {text!r}: expected whole numbers, such as 512 or 128,512")
    return numbers


def _measure(llm: LLM, tests: list[SpeedTest], repetitions: int) -> list[list[float]]:
    """Tokens a second of each repetition of each test, after a run of it that does not count."""
    from rich.console import Console
    from rich.progress import Progress

    from pintpot.runtime.measure import SpeedMeter

    meter = SpeedMeter(llm.engine)
    console = Console(stderr=True)
    speeds = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=len(tests) * (repetitions + 1))
        for test in sorted(dict.fromkeys(tests), key=lambda t: t.depth):
            progress.update(task, description=test.name)
            samples = []
            for _ in range(repetitions + 1):
                samples.append(meter.run(test))
                progress.advance(task)
            speeds[test] = samples[1:]
    return [speeds[test] for test in tests]


def _remember(llm: LLM, tests: list[SpeedTest], speeds: list[list[float]], settings: CacheSettings) -> None:
    """Keeps the medians for `pintpot plan`, where the cache folder can be written."""
    import statistics
    from datetime import UTC, datetime

    from pintpot.hardware.probe import probe
    from pintpot.planner.calibration import describe_run, remember_runs

    today = datetime.now(UTC).date().isoformat()
    runs = [
        describe_run(
            llm.file,
            settings,
            today,
            n_threads=llm.n_threads,
            depth_tokens=test.depth + test.n // 2,
            **{"prefill_s" if test.kind == "pp" else "decode_s": 1 / statistics.median(samples)},
        )
        for test, samples in zip(tests, speeds, strict=True)
        if test.parallel == 1
    ]
    here = probe()
    with contextlib.suppress(OSError):
        remember_runs(here.cpu, here.memory, runs)


def _facts(llm: LLM) -> dict[str, Any]:
    from pintpot import __version__
    from pintpot.spec import summarize_types

    return {
        "model": llm.spec.name,
        "file": str(llm.path),
        "type": summarize_types(llm.file),
        "size_bytes": llm.memory.weights_bytes,
        "backend": llm.engine.model.ops.name,
        "cpu": _cpu_name(),
        "threads": llm.n_threads,
        "version": __version__,
    }


def _accelerator_facts(llm: LLM) -> dict[str, Any]:
    """What lay on the accelerator, and how often experts were found there, all tests together."""
    use, counts, solution = llm.memory.accelerator, llm.expert_counts, llm.assembled.solution
    if use is None or solution is None:
        return {}
    return {
        "accelerator": use.name,
        "accelerator_allowed_bytes": use.allowed_bytes,
        "accelerator_peak_bytes": use.peak_bytes,
        "n_gpu_layers": solution.placement.n_gpu_layers,
        "experts_in_vram": sum(solution.placement.resident),
        "expert_hit_share": counts.hit_share if counts else 0.0,
        "expert_uploads": counts.uploads if counts else 0,
    }


def _row(test: SpeedTest, samples: list[float]) -> dict[str, Any]:
    import statistics

    return {
        "test": test.name,
        "n_prompt": test.n if test.kind == "pp" else 0,
        "n_gen": test.n if test.kind == "tg" else 0,
        "n_depth": test.depth,
        "n_parallel": test.parallel,
        "tokens_s": statistics.mean(samples),
        "stddev_tokens_s": statistics.stdev(samples) if len(samples) > 1 else 0.0,
        "median_tokens_s": statistics.median(samples),
        "samples_tokens_s": samples,
    }


def _cpu_name() -> str:
    from pintpot.hardware.cpu import available_cpus, read_cpu
    from pintpot.hardware.tree import Tree

    return read_cpu(Tree(), available_cpus(), []).name


def _print(rows: list[dict[str, Any]], output: OutputFormat) -> None:
    from pintpot.cli.text import human_bytes

    if output is OutputFormat.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return
    if output is OutputFormat.CSV:
        import csv
        import sys

        writer = csv.DictWriter(
            sys.stdout, [k for k in rows[0] if k != "samples_tokens_s"], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows)
        return
    header = ["model", "type", "size", "backend", "threads", "test", "tok/s"]
    cells = [
        [
            r["model"],
            r["type"],
            human_bytes(r["size_bytes"]),
            r["backend"],
            str(r["threads"]),
            r["test"],
            f"{r['tokens_s']:.2f} ± {r['stddev_tokens_s']:.2f}",
        ]
        for r in rows
    ]
    if output is OutputFormat.MD:
        for line in [header, ["---"] * len(header), *cells]:
            typer.echo("| " + " | ".join(line) + " |")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in header:
        table.add_column(name, justify="right" if name in ("size", "threads", "tok/s") else "left")
    for line in cells:
        table.add_row(*line)
    Console().print(table)
