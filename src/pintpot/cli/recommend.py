"""`pintpot recommend`: which models and formats are worth trying on a machine."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pintpot.cli import options
from pintpot.cli.machine import engine_profile, read_hardware, read_limits
from pintpot.cli.options import Engine
from pintpot.cli.text import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pintpot.hardware.machine import Hardware
    from pintpot.planner.recommend import Recommendation, Row, Rule

_GIB = 1 << 30
_LEGEND = (
    "size, VRAM, RAM: GiB; fits: the longest context; worth: a proxy of quality, the billions of parameters "
    "of a dense model of today in full precision that scaling laws put at the same loss, from size, format "
    "and age alone. No benchmark is asked."
)
_N_SAID_OF_RULE = 2  # rows of a kind whose difference from the rule of thumb is told


class Goal(StrEnum):
    """`planner.recommend.OBJECTIVES`, without importing it for --help."""

    QUALITY = "quality"
    BALANCED = "balanced"
    SPEED = "speed"
    LONG_CONTEXT = "long-context"


def recommend(
    goal: Annotated[Goal, typer.Option("--for", help="What to rank by.")] = Goal.BALANCED,
    top: Annotated[int, typer.Option(min=1, help="Models of each kind.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the rule of thumb, nothing is planned.")
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh", help="Ask the hub first which formats of each model are published; kept for later."
        ),
    ] = False,
    ctx: options.LimitCtx = None,
    cache_type_k: options.LimitCacheTypeK = None,
    cache_type_v: options.LimitCacheTypeV = None,
    n_gpu_layers: options.LimitGpuLayers = None,
    n_cpu_moe: options.LimitCpuMoe = None,
    depth: options.LimitDepth = None,
    gpu: options.MachineGpu = None,
    vram: options.MachineVram = None,
    ram: options.MachineRam = None,
    ram_bandwidth: options.MachineRamBandwidth = None,
    cores: options.MachineCores = None,
    engine: options.PlanEngine = Engine.PINTPOT,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which models and formats are worth trying on this machine, by plan and a proxy of quality.

    Models are those of the built-in catalog; no benchmark scores are known. Exit code 1 if nothing fits
    (the smallest model is named, and what it needs), 2 for wrong usage.
    """
    from pintpot.planner.recommend import OBJECTIVES, rank, rule_of_thumb
    from pintpot.store import catalog
    from pintpot.store.offers import recall_offers

    hardware = read_hardware(gpu, vram, ram, ram_bandwidth, cores)
    if quick:
        _print_rule(rule_of_thumb(hardware), json_output=json_output)
        return
    if refresh:
        _refresh()
    offers = recall_offers()
    entries = [offers.apply(entry) for entry in catalog.entries()]
    limits = read_limits(ctx, cache_type_k, cache_type_v, n_gpu_layers, n_cpu_moe, depth)
    profile = engine_profile(engine, hardware)
    found = rank(entries, hardware, limits, profile, OBJECTIVES[goal], top)
    if json_output:
        typer.echo(json.dumps(found.to_json() | {"machine": _machine_json(hardware)}, indent=2))
    else:
        _print(found, hardware, engine)


def _refresh() -> None:
    from rich.console import Console
    from rich.progress import Progress

    from pintpot.store import catalog, offers
    from pintpot.store.hub import Hub

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("asking the hub", total=None)
        found = offers.refresh(
            Hub(),
            catalog.entries(),
            progress=lambda done, n: bar.update(task, completed=done, total=n),
        )
    for line in found.failed:
        note(line)
    note(f"{found.n_asked} models asked for, {found.n_changed} changed, {len(found.failed)} failed")


def _machine_json(hardware: Hardware) -> dict[str, Any]:
    gpu = hardware.gpus[0] if hardware.gpus else None
    return {
        "cpu": hardware.cpu.name,
        "cores": hardware.cpu.cores,
        "ram_available_bytes": hardware.memory.available_bytes,
        "ram_bandwidth_bytes_s": hardware.ram_bandwidth_bytes_s,
        "ram_bandwidth_source": hardware.ram_bandwidth_source,
        "gpu": gpu.name if gpu else None,
        "vram_free_bytes": gpu.vram_free_bytes if gpu else None,
    }


def _print_rule(rule: Rule, *, json_output: bool) -> None:
    from pintpot.planner.recommend import RULE_OF_THUMB

    if json_output:
        table = [{"gb": gb, "quants": list(quants)} for gb, quants in RULE_OF_THUMB]
        here = {"gb": rule.gb, "memory": rule.memory, "quants": list(rule.quants)}
        typer.echo(json.dumps({"rule_of_thumb": here, "table": table}, indent=2))
        return
    typer.echo(f"rule of thumb, by {rule.memory}:")
    for gb, quants in RULE_OF_THUMB:
        last = gb == RULE_OF_THUMB[-1][0]
        mark = "   <- this machine" if gb == rule.gb else ""
        typer.echo(f"  {gb:>3} GB{'+' if last else ' '} {' or '.join(quants)}{mark}")
    typer.echo("It knows neither model nor RAM: `pintpot recommend` plans for both.")


def _print(found: Recommendation, hardware: Hardware, engine: Engine) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    o, rule = found.objective, found.rule
    gpu = f"{hardware.gpus[0].name}, " if hardware.gpus else ""
    available = hardware.memory.available_bytes / _GIB
    console.print(
        f"[bold]{o.name}[/bold] on {escape(gpu)}{available:.3g} GiB of RAM available "
        f"({hardware.ram_bandwidth_bytes_s / 1e9:.0f} GB/s), {hardware.cpu.cores} cores"
    )
    console.print(str(o))
    console.print(f"quick answer for {rule.gb} GB of {rule.memory}: {' or '.join(rule.quants)}")
    if found.below_floor:
        console.print(f"[yellow]nothing that fits reaches {o.floor:g} tok/s; this comes nearest[/yellow]")
    _section(console, "mixtures of experts: RAM holds them all, a token reads a few", found.moe, engine)
    _section(console, "dense: a token reads everything", found.dense, engine)
    _print_differences(console, found)
    console.print(f"\n[dim]{_LEGEND}[/dim]")
    if hardware.gpus and engine is Engine.PINTPOT:
        note("this version runs on the CPU only: figures with a GPU are what its design aims at")


def _section(console: Console, title: str, rows: Sequence[Row], engine: Engine) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    console.print(f"\n[bold]{title}[/bold]")
    if not rows:
        console.print("  none fits and is fast enough")
        return
    console.print(
        f"{'model':26}{'format':10}{'size':>6}{'fits':>6}{'VRAM':>6}{'RAM':>6}{'tok/s':>7}{'worth':>7}"
    )
    for row in rows:
        c, s = row.candidate, row.solution
        console.print(
            f"[cyan]{escape(c.entry.name):26}[/cyan]{c.quant:10}{row.problem.model.total / _GIB:6.1f}"
            f"{_tokens(row.ctx_fits):>6}{s.vram.total / _GIB:6.1f}{s.ram.total / _GIB:6.1f}"
            f"{s.token.tokens_s:7.1f}{c.worth / 1e9:7.1f}"
        )
        console.print(Padding(escape(_reason(row, engine)), (0, 0, 0, 2)), style="dim")


def _reason(row: Row, engine: Engine) -> str:
    entry = row.candidate.entry
    active = f", {entry.params_active} active" if entry.params_active else ""
    parts = [f"{entry.params}{active}", row.why]
    if row.candidate.profile.name != engine:
        parts.append(f"in {row.candidate.profile.name}")
    if row.same_shape:
        parts.append(f"same shape: {', '.join(row.same_shape)}")
    return "; ".join(parts)


def _print_differences(console: Console, found: Recommendation) -> None:
    from rich.markup import escape

    told = [row for rows in (found.moe, found.dense) for row in rows[:_N_SAID_OF_RULE] if row.rule]
    if told:
        console.print("\n[bold]where the quick answer is not the plan's[/bold]")
    for row in told:
        console.print(f"  {escape(row.candidate.entry.name)}: {escape(row.rule)}")


def _tokens(n: int) -> str:
    """65536 as 64K, 1048576 as 1M."""
    return f"{n >> 20}M" if n >= 1 << 20 else f"{n >> 10}K"
