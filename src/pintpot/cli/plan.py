"""`pintpot plan`: what fits, where it goes and how fast it would be, without loading anything."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pintpot.cli.plan_view import print_plan
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.hardware.machine import Hardware
    from pintpot.planner.limits import Limits
    from pintpot.planner.plan import Plan
    from pintpot.spec.cache import KVType

_MACHINE = "A machine in words (default: this one)"
_LIMITS = "Limits (default: chosen)"


class Engine(StrEnum):
    PINTPOT = "pintpot"
    LLAMA_CPP = "llama.cpp"


class ExportTool(StrEnum):
    """`planner.export.Tool`, whose module --help need not import."""

    LLAMA_CPP = "llama.cpp"
    LM_STUDIO = "lmstudio"
    OLLAMA = "ollama"


def plan(
    model: Annotated[
        str,
        typer.Argument(
            help="A GGUF file, `demo`, a model of the catalog (qwen3.5:35b-a3b-q6_k), or hf.co/user/repo"
            "[:QUANT], of which only the header is read.",
            show_default=False,
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
    override_tensor: Annotated[
        list[str] | None,
        typer.Option(
            "-ot",
            "--override-tensor",
            metavar="PATTERN=CPU|GPU",
            help="Where tensors lie whose name the regular expression finds (repeatable).",
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
    export_as: Annotated[
        ExportTool | None,
        typer.Option("--as", help="Print the settings of this tool instead.", show_default=False),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what fits, where it goes and how fast it would be. Nothing is loaded; speeds are estimates."""
    from pintpot.planner.limits import Limits, parse_tensor_rules

    if export_as is not None and json_output:
        raise UsageError("--as prints settings and --json a plan: choose one")

    limits = Limits(
        ctx_tokens=ctx,
        type_k=_kv_type("-ctk", cache_type_k),
        type_v=_kv_type("-ctv", cache_type_v),
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=n_cpu_moe,
        override_tensors=parse_tensor_rules(override_tensor or ()),
        depth_tokens=depth,
    )
    hardware = _hardware(gpu, vram, ram, ram_bandwidth, cores)
    found = _plan(model, hardware, limits, Engine.LLAMA_CPP if export_as else engine)
    if export_as is not None:
        from pintpot.planner.export import Tool, export

        typer.echo(export(found, Tool(export_as)))
    elif json_output:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_plan(found)


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
    from pintpot.store.hub import Hub, HubModel

    profile = PINTPOT if engine is Engine.PINTPOT else LLAMA_CPP
    if model == "demo" or model.endswith(".gguf") or Path(model).exists():
        from pintpot.gguf import GGUFFile
        from pintpot.store.resolve import resolve_model

        return plan_file(GGUFFile.open(resolve_model(model)), hardware, limits, profile)
    if (online := HubModel.parse(model)) is not None:
        found, header = Hub().open_header(online)
        return plan_file(header, hardware, limits, profile, quant=found, repo=online.repo)
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
