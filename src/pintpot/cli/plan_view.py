"""A plan as a picture: bars of memory, tables of alternatives, what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pintpot.cli.text import human_bytes, note, without_controls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from pintpot.planner.advice import Advice
    from pintpot.planner.placement import Usage
    from pintpot.planner.plan import Alternative, Format, Plan

_BAR_WIDTH = 44
_KINDS = (
    ("dense", "dense weights", "blue"),
    ("experts", "experts", "cyan"),
    ("cache", "cache", "green"),
    ("buffers", "buffers", "yellow"),
    ("overhead", "overhead", "magenta"),
)


def print_plan(plan: Plan) -> None:
    """On stdout; notes on stderr."""
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
    for nbytes, what in ((p.model.rows, "read a row a token"), (p.model.unread, "never read")):
        if nbytes:
            console.print(f"in the file, {what}: {human_bytes(nbytes)}")
    for step in s.steps:
        console.print(f"  gave way: {step}")
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
    console.print(f"speeds: {p.profile.calibration}")
    _contexts(console, plan.contexts, s.steps)
    _formats(console, plan.quants, s.steps)
    _advice(console, plan.advice)
    if p.hardware.gpus and p.hardware.gpus[0].emulated:
        note("speeds are those of the card that is emulated; the CPU computes in its place")
    elif p.hardware.gpus and p.profile.name == "pintpot":
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


def _contexts(console: Console, rows: Sequence[Alternative], usual: Sequence[str]) -> None:
    if rows:
        table = _table("context", "VRAM", "RAM", "decode")
        for row in rows:
            table.add_row(row.label, *_sizes_and_speed(row, usual))
        console.print()
        console.print(table)


def _formats(console: Console, rows: Sequence[Format], usual: Sequence[str]) -> None:
    from pintpot.planner import quality

    if rows:
        table = _table("format", "weights", "bits", "quality", "VRAM", "RAM", "decode")
        table.columns[3].justify = "left"
        for row in rows:
            size = human_bytes(row.weights_bytes), f"{row.bits_per_weight:.2f}", row.quality
            table.add_row(row.label, *size, *_sizes_and_speed(row, usual))
        console.print()
        console.print(table)
        console.print(f"[dim]bits a weight; quality: {quality.SOURCE}[/dim]")


def _table(first: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(first, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    return table


def _sizes_and_speed(row: Alternative, usual: Sequence[str]) -> tuple[str, str, str, str]:
    """Cells of a row; the last says what gave way where that is not what did in the plan itself."""
    s = row.solution
    if s is None:
        return "", "", "does not fit", ""
    speed = f"{s.token.tokens_s:.1f} tok/s"
    differs = "" if tuple(s.steps) == tuple(usual) else "; ".join(s.steps) or "nothing gives way"
    return human_bytes(s.vram.total), human_bytes(s.ram.total), speed, differs


def _advice(console: Console, advice: Sequence[Advice]) -> None:
    from rich.markup import escape

    if advice:
        console.print("\n[bold]what would help[/bold]")
    for item in advice:
        console.print(f"  {escape(without_controls(str(item)))}")
