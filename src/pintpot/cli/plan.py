"""`pintpot plan`: what fits, where it goes and how fast it would be, without loading anything."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pintpot.cli.text import human_bytes, note, without_controls
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pintpot.hardware.machine import Hardware
    from pintpot.planner.limits import Limits
    from pintpot.planner.placement import Usage
    from pintpot.planner.plan import Alternative, Plan
    from pintpot.spec.cache import KVType

_MACHINE = "A machine in words (default: this one)"
_LIMITS = "Limits (default: chosen)"
_BAR_WIDTH = 44
_KINDS = (
    ("dense", "dense weights", "blue"),
    ("experts", "experts", "cyan"),
    ("cache", "cache", "green"),
    ("buffers", "buffers", "yellow"),
    ("overhead", "overhead", "magenta"),
)


class Engine(StrEnum):
    PINTPOT = "pintpot"
    LLAMA_CPP = "llama.cpp"


def plan(
    model: Annotated[
        str,
        typer.Argument(
            help="A GGUF file, `demo`, or a model of the catalog (qwen3.5:35b-a3b-q6_k).", show_default=False
        ),
    ],
    ctx: Annotated[
        int | None,
        typer.Option("-c", "--ctx-size", min=1, help="Context.", show_default=False, rich_help_panel=_LIMITS),
    ] = None,
    cache_type_k: Annotated[
        str | None,
        typer.Option("-ctk", "--cache-type-k", show_default=False, rich_help_panel=_LIMITS),
    ] = None,
    cache_type_v: Annotated[
        str | None,
        typer.Option("-ctv", "--cache-type-v", show_default=False, rich_help_panel=_LIMITS),
    ] = None,
    n_gpu_layers: Annotated[
        int | None,
        typer.Option(
            "-ngl",
            "--n-gpu-layers",
            min=0,
            help="Layers on the GPU.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    n_cpu_moe: Annotated[
        int | None,
        typer.Option(
            "-ncmoe",
            "--n-cpu-moe",
            min=0,
            help="Experts of the first N layers stay in RAM.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tokens in the context when speed is judged; default a quarter of it.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help='A card by name ("RTX 5060 Ti 16GB"), or none.', show_default=False, rich_help_panel=_MACHINE
        ),
    ] = None,
    vram: Annotated[
        str | None,
        typer.Option(help="Its memory, such as 8GiB.", show_default=False, rich_help_panel=_MACHINE),
    ] = None,
    ram: Annotated[
        str | None,
        typer.Option(help="Memory, such as 32GiB.", show_default=False, rich_help_panel=_MACHINE),
    ] = None,
    ram_bandwidth: Annotated[
        str | None,
        typer.Option(help="Such as 60GB/s.", show_default=False, rich_help_panel=_MACHINE),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(min=1, help="CPU cores.", show_default=False, rich_help_panel=_MACHINE),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Whose placement and efficiency.")] = Engine.PINTPOT,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what fits, where it goes and how fast it would be. Nothing is loaded; speeds are estimates."""
    from pintpot.planner.limits import Limits

    limits = Limits(
        ctx_tokens=ctx,
        type_k=_kv_type("-ctk", cache_type_k),
        type_v=_kv_type("-ctv", cache_type_v),
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=n_cpu_moe,
        depth_tokens=depth,
    )
    hardware = _hardware(gpu, vram, ram, ram_bandwidth, cores)
    found = _plan(model, hardware, limits, engine)
    if json_output:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        _print(found)


def _hardware(
    gpu: str | None, vram: str | None, ram: str | None, ram_bandwidth: str | None, cores: int | None
) -> Hardware:
    from pintpot.hardware.bandwidth import recall, with_measured
    from pintpot.hardware.probe import probe
    from pintpot.hardware.words import describe

    here = probe()
    here = with_measured(here, recall(here.cpu, here.memory))
    if all(word is None for word in (gpu, vram, ram, ram_bandwidth, cores)):
        return here
    return describe(gpu, vram, ram, ram_bandwidth, cores, here)


def _plan(model: str, hardware: Hardware, limits: Limits, engine: Engine) -> Plan:
    from pintpot.planner.plan import plan_entry, plan_file
    from pintpot.planner.profile import LLAMA_CPP, PINTPOT
    from pintpot.store import catalog

    profile = PINTPOT if engine is Engine.PINTPOT else LLAMA_CPP
    if model == "demo" or model.endswith(".gguf") or Path(model).exists():
        from pintpot.gguf import GGUFFile
        from pintpot.store.resolve import resolve_model

        return plan_file(GGUFFile.open(resolve_model(model)), hardware, limits, profile)
    entry, quant = catalog.find(model)
    return plan_entry(entry, quant or "Q4_K_M", hardware, limits, profile)


def _kv_type(flag: str, name: str | None) -> KVType | None:
    from pintpot.spec.cache import KVType

    if name is None:
        return None
    try:
        return KVType(name.lower())
    except ValueError:
        raise UsageError(f"{flag} {name}: expected {', '.join(KVType)}") from None


def _print(plan: Plan) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    p, s = plan.problem, plan.solution
    settings = s.settings
    title = f"{without_controls(plan.name)} {plan.quant}".strip()
    console.print(
        f"[bold]{escape(title)}[/bold]: {human_bytes(p.model.total)}, context {settings.ctx_tokens:,} tokens "
        f"({settings.type_k}), as {p.profile.name} would run it"
    )
    if p.hardware.gpus:
        name = p.hardware.gpus[0].name
        _bar(console, f"VRAM  {escape(name)}", s.vram, p.vram_bytes)
    _bar(console, f"RAM   {escape(p.hardware.cpu.name)}", s.ram, p.ram_bytes)
    for step in s.steps:
        console.print(f"  to fit, {step}")
    n_layer = p.spec.n_layer
    if p.hardware.gpus:
        experts = _experts(s.placement.resident, [layer.n_expert for layer in p.model.layers])
        console.print(f"layers on the GPU: {s.placement.n_gpu_layers} of {n_layer}{experts}")
    console.print(
        f"decode: about [bold]{s.token.tokens_s:.1f} tok/s[/bold] at {s.depth_tokens:,} tokens of context; "
        f"limit: {s.token.bottleneck}; prompts: about {s.prefill_tokens_s:,.0f} tok/s"
    )
    console.print(
        f"RAM bandwidth {p.hardware.ram_bandwidth_bytes_s / 1e9:.0f} GB/s ({p.hardware.ram_bandwidth_source})"
    )
    _table(console, "context", plan.contexts, weights=False)
    _table(console, "format", plan.quants, weights=True)
    if p.hardware.gpus and p.profile.name == "pintpot":
        note("this version runs on the CPU only: figures with a GPU are what its design aims at")


def _experts(resident: Sequence[int], n_expert: Sequence[int]) -> str:
    if not any(n_expert):
        return ""
    least, most = min(resident), max(resident)
    slots = f"{least}" if least == most else f"{least} to {most}"
    return f"; experts in VRAM: {slots} of {max(n_expert)} a layer"


def _bar(console: Console, label: str, usage: Usage, allowed: int) -> None:
    """One memory as a bar of kinds, and the kinds in words."""
    total = max(usage.total, allowed, 1)
    cells, words, used = "", [], 0
    for field, name, colour in _KINDS:
        nbytes = getattr(usage, field)
        if not nbytes:
            continue
        end = round(_BAR_WIDTH * (used + nbytes) / total)
        start = round(_BAR_WIDTH * used / total)
        cells += f"[{colour}]{'█' * (end - start)}[/{colour}]"
        words.append(f"[{colour}]{name} {human_bytes(nbytes)}[/{colour}]")
        used += nbytes
    cells += "░" * (_BAR_WIDTH - round(_BAR_WIDTH * used / total))
    console.print(f"{label}\n  {cells} {human_bytes(used)} of {human_bytes(allowed)}")
    console.print("  " + ", ".join(words))


def _table(console: Console, what: str, rows: Sequence[Alternative], *, weights: bool) -> None:
    from rich.table import Table

    if not rows:
        return
    table = Table(what, box=None, pad_edge=False, header_style="bold")
    for column in (["weights"] if weights else []) + ["VRAM", "RAM", "decode"]:
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        size = [human_bytes(row.weights_bytes)] if weights else []
        if row.solution is None:
            table.add_row(row.label, *size, "", "", "", "does not fit")
            continue
        s = row.solution
        speed = f"{s.token.tokens_s:.1f} tok/s"
        table.add_row(
            row.label, *size, human_bytes(s.vram.total), human_bytes(s.ram.total), speed, "; ".join(s.steps)
        )
    console.print()
    console.print(table)
