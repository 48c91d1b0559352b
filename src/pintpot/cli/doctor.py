"""`pintpot doctor`: what this machine has, and what stands in the way."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.hardware.health import Check

_COLOURS = {"ok": "green", "warn": "yellow", "problem": "bold red"}


def doctor(
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder whose disk is tested: where your models are.")
    ] = Path(),
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Measure memory bandwidths now (seconds) and remember them for this machine."
        ),
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at this machine: GPU, memory, disk, other programs, and whether a running model is spilling.

    Takes a second or two; the disk is tested with a temporary file of 128 MiB. Exit code 1 if there is a
    problem, 0 if there are at most warnings.
    """
    from dataclasses import replace

    from pintpot.hardware.disk import read_disk
    from pintpot.hardware.health import Status, examine
    from pintpot.hardware.paging import watch_paging
    from pintpot.hardware.probe import probe
    from pintpot.hardware.tree import Tree

    if not folder.is_dir():
        raise UsageError(f"--dir {folder}: no such folder; give the one your models are in")
    tree = Tree()
    hardware = probe()
    paging = watch_paging(tree, os.getpid())
    if measure:
        from pintpot.runtime.bandwidth import measure_bandwidth

        hardware = measure_bandwidth(hardware)
    notes: list[str] = []
    disk = read_disk(tree, folder, notes)
    hardware = replace(hardware, notes=(*hardware.notes, *notes))
    checks = examine(hardware, paging, disk, tree)
    if json_output:
        facts = {
            "checks": [asdict(check) for check in checks],
            "hardware": asdict(hardware),
            "disk": asdict(disk),
            "paging": asdict(paging) if paging else None,
        }
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        _print(checks)
    if any(check.status is Status.PROBLEM for check in checks):
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pintpot.cli.text import without_controls

    rows = Table.grid(padding=(0, 2))
    rows.add_column()
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for check in checks:
        colour = _COLOURS[check.status]
        text = escape(without_controls(check.text))
        if check.fix:
            text += f"\n[cyan]→ {escape(check.fix)}[/]"
        rows.add_row(f"[{colour}]{check.status}[/]", check.name, text)
    Console(highlight=False).print(rows)
