"""`pintpot plan`: what fits, where it goes and how fast it would be, without loading anything."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pintpot.cli import options
from pintpot.cli.machine import emulated_hardware, engine_profile, read_hardware, read_limits
from pintpot.cli.options import Engine
from pintpot.cli.plan_view import print_plan
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.hardware.machine import Hardware
    from pintpot.planner.limits import Limits
    from pintpot.planner.plan import Plan


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
    ctx: options.LimitCtx = None,
    cache_type_k: options.LimitCacheTypeK = None,
    cache_type_v: options.LimitCacheTypeV = None,
    n_gpu_layers: options.LimitGpuLayers = None,
    n_cpu_moe: options.LimitCpuMoe = None,
    override_tensor: options.LimitOverrideTensor = None,
    gpu_experts: options.LimitGpuExperts = None,
    depth: options.LimitDepth = None,
    gpu: options.MachineGpu = None,
    vram: options.MachineVram = None,
    ram: options.MachineRam = None,
    ram_bandwidth: options.MachineRamBandwidth = None,
    cores: options.MachineCores = None,
    accelerator: options.PlanAccelerator = "auto",
    engine: options.PlanEngine = Engine.PINTPOT,
    export_as: Annotated[
        ExportTool | None,
        typer.Option("--as", help="Print the settings of this tool instead.", show_default=False),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what fits, where it goes and how fast it would be. Nothing is loaded; speeds are estimates."""
    if export_as is not None and json_output:
        raise UsageError("--as prints settings and --json a plan: choose one")

    limits = read_limits(
        ctx, cache_type_k, cache_type_v, n_gpu_layers, n_cpu_moe, depth, override_tensor or (), gpu_experts
    )
    if accelerator == "cpu":
        hardware = emulated_hardware(gpu, vram, ram, ram_bandwidth, cores)
        limits = replace(limits, use_gpu=True)
    elif accelerator == "auto":
        hardware = read_hardware(gpu, vram, ram, ram_bandwidth, cores)
    else:
        raise UsageError(f"--accelerator {accelerator!r}: expected auto, or cpu for what `run` emulates")
    found = _plan(model, hardware, limits, Engine.LLAMA_CPP if export_as else engine)
    if export_as is not None:
        from pintpot.planner.export import Tool, export

        typer.echo(export(found, Tool(export_as)))
    elif json_output:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_plan(found)


def _plan(model: str, hardware: Hardware, limits: Limits, engine: Engine) -> Plan:
    from pintpot.planner.plan import plan_entry, plan_file

    profile = engine_profile(engine, hardware)
    if model == "demo" or model.endswith(".gguf") or Path(model).exists():
        from pintpot.gguf import GGUFFile
        from pintpot.store.resolve import resolve_model

        return plan_file(GGUFFile.open(resolve_model(model)), hardware, limits, profile)
    if "/" in model:
        from pintpot.store.hub import Hub, HubModel

        if (online := HubModel.parse(model)) is not None:
            found, header = Hub().open_header(online)
            return plan_file(header, hardware, limits, profile, quant=found, repo=online.repo)
    from pintpot.store import catalog
    from pintpot.store.offers import recall_offers

    entry, quant = catalog.find(model)
    return plan_entry(recall_offers().apply(entry), quant or "Q4_K_M", hardware, limits, profile)
