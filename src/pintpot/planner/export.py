"""The same plan as settings for the tools people have: llama.cpp, LM Studio, Ollama.

They place whole layers, so their placement is solved anew under llama.cpp's profile, LM Studio's and Ollama's
further narrowed to what their settings can say. Sources: llama.cpp common/arg.cpp and src/llama-model.cpp
(b11549), Ollama docs/modelfile.md and docs/faq.md, the labels of LM Studio's load settings.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from pintpot.planner.placement import Problem, Solution, solve, solve_or_none
from pintpot.planner.plan import Plan
from pintpot.planner.profile import LLAMA_CPP
from pintpot.spec.cache import KVType

# llama.cpp's own for --n-cpu-moe: every spelling of a routed expert tensor, shared-by-chunk ones included.
EXPERT_TENSORS: Final = "ffn_(up|gate|down|gate_up)_(ch|)exps"
_CLOSE_ENOUGH: Final = 0.96  # of the best speed: the plainer setting is worth more
_QUANTIZED: Final = (KVType.Q8_0,)


class Tool(StrEnum):
    """Whose settings are written."""

    LLAMA_CPP = "llama.cpp"
    LM_STUDIO = "lmstudio"
    OLLAMA = "ollama"


def export(plan: Plan, tool: Tool) -> str:
    """Settings of `tool` for the plan's model, machine and limits: lines that can be pasted; remarks are
    comments (#). Raises DoesNotFitError."""
    problem = replace(plan.problem, profile=LLAMA_CPP)
    if tool is Tool.LLAMA_CPP:
        return _llama_cpp(plan, problem)
    remarks = []
    if problem.limits.override_tensors:
        remarks.append("-ot: there is no such setting here, the rules are left out")
        problem = _without_rules(problem)
    return _lm_studio(problem, remarks) if tool is Tool.LM_STUDIO else _ollama(plan, problem, remarks)


def _without_rules(problem: Problem) -> Problem:
    layers = tuple(
        replace(layer, dense_in_ram=0, dense_macs_in_ram=0, experts_on_gpu=None)
        for layer in problem.model.layers
    )
    model = replace(problem.model, layers=layers, head_in_ram=False)
    return replace(problem, model=model, limits=replace(problem.limits, override_tensors=()))


@dataclass(frozen=True, slots=True)
class ExpertLayers:
    """Layers on the GPU whose experts are kept in RAM, those that -ot rules already keep there left out."""

    in_ram: tuple[int, ...]
    first: int | None  # they are those of the first so many layers; None: they are not

    @classmethod
    def of(cls, problem: Problem, solution: Solution) -> ExpertLayers:
        places = zip(
            problem.model.layers, solution.placement.dense_on_gpu, solution.placement.resident, strict=True
        )
        free = [
            (i, resident > 0)
            for i, (layer, on_gpu, resident) in enumerate(places)
            if layer.n_expert and on_gpu and layer.experts_on_gpu is None
        ]
        in_ram = tuple(i for i, resident in free if not resident)
        first = in_ram[-1] + 1 if in_ram else 0
        return cls(in_ram, first if all(i >= first for i, resident in free if resident) else None)


def _first_layers(problem: Problem) -> Solution | None:
    """The fastest placement with experts in RAM for the first N layers only; None where there is none."""
    for n in range(problem.limits.n_cpu_moe or 0, problem.spec.n_layer + 1):
        solution = solve_or_none(replace(problem, limits=replace(problem.limits, n_cpu_moe=n)))
        if solution is not None and ExpertLayers.of(problem, solution).first is not None:
            return solution
    return None


def _plainest(problem: Problem) -> Solution:
    """The best placement, or one of nearly its speed that needs no list of layers."""
    best = solve(problem)
    if ExpertLayers.of(problem, best).first is not None:
        return best
    plain = _first_layers(problem)
    if plain is not None and plain.token.tokens_s >= _CLOSE_ENOUGH * best.token.tokens_s:
        return plain
    return best


def _gpu_layers(problem: Problem, solution: Solution) -> int:
    """-ngl as llama.cpp counts: MTP layers and the output head are layers too, and go first."""
    n = solution.placement.n_gpu_layers
    return n + problem.spec.n_layer_mtp + 1 if n else 0


def _threads(problem: Problem) -> int:
    return problem.limits.n_threads or problem.hardware.cpu.cores


def _planned(problem: Problem, s: Solution) -> list[str]:
    hardware = problem.hardware
    return [
        f"planned for {hardware.gpus[0].name if hardware.gpus else hardware.cpu.name}",
        f"about {s.token.tokens_s:.1f} tok/s at {s.depth_tokens:,} tokens of context",
    ]


def _llama_cpp(plan: Plan, problem: Problem) -> str:
    s = _plainest(problem)
    experts = ExpertLayers.of(problem, s)
    lines = [f"llama-server {_llama_cpp_model(plan)}", f"-ngl {_gpu_layers(problem, s)}"]
    rules = [
        f"{rule.pattern}={'CUDA0' if rule.on_gpu else 'CPU'}" for rule in problem.limits.override_tensors
    ]
    if experts.first is None:
        rules.append(layers_pattern(experts.in_ram) + "=CPU")
    lines += [f"-ot {shlex.quote(rule)}" for rule in rules]
    if experts.first:
        lines.append(f"--n-cpu-moe {experts.first}")
    cache = s.settings
    attention = " -fa on" if cache.type_v in _QUANTIZED else ""
    lines += [
        f"-c {cache.ctx_tokens} -ctk {cache.type_k} -ctv {cache.type_v}{attention}",
        f"-b {cache.n_batch} -ub {cache.n_batch} -t {_threads(problem)}",
    ]
    remarks = _planned(problem, s)
    if attention:
        remarks.append("-fa on: quantized values in the cache need flash attention")
    if experts.first is None:
        remarks.append(f"experts of {len(experts.in_ram)} layers, which are not the first ones, stay in RAM")
    return _commented(remarks) + " \\\n  ".join(lines)


def layers_pattern(layers: Iterable[int]) -> str:
    """A regular expression for the expert tensors of these layers."""
    return rf"blk\.({'|'.join(map(str, layers))})\.{EXPERT_TENSORS}"


def _llama_cpp_model(plan: Plan) -> str:
    if plan.repo:
        return f"-hf {shlex.quote(f'{plan.repo}:{plan.quant}' if plan.quant else plan.repo)}"
    return f"-m {shlex.quote(plan.path or _assumed_file(plan))}"


def _assumed_file(plan: Plan) -> str:
    """A file name for a model of the catalog whose files nobody named."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', plan.name)}-{plan.quant}.gguf"


def _lm_studio(problem: Problem, remarks: list[str]) -> str:
    s = _first_layers(problem) or solve(problem)
    experts = ExpertLayers.of(problem, s)
    cache, n_layer = s.settings, problem.spec.n_layer
    rows = [
        ("Context Length", str(cache.ctx_tokens)),
        ("GPU Offload", f"{s.placement.n_gpu_layers} of {n_layer} layers"),
        ("CPU Thread Pool Size", str(_threads(problem))),
        ("Evaluation Batch Size", str(cache.n_batch)),
    ]
    n_forced = experts.first or 0
    if problem.model.experts:
        rows.append(("Number of layers for which to force MoE weights onto CPU", str(n_forced)))
    rows += [
        ("Flash Attention", "on"),
        ("K Cache Quantization Type", _lm_studio_type(cache.type_k)),
        ("V Cache Quantization Type", _lm_studio_type(cache.type_v)),
    ]
    remarks = [*_planned(problem, s), "LM Studio: My Models, gear of the model, Load", *remarks]
    if cache.type_v in _QUANTIZED:
        remarks.append("quantized values in the cache need flash attention")
    if problem.model.experts and problem.hardware.gpus:
        remarks += _starting_range(problem, n_forced)
    width = max(len(name) for name, _ in rows)
    return _commented(remarks) + "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _lm_studio_type(kind: KVType) -> str:
    return "off (F16)" if kind is KVType.F16 else kind.upper()


def _starting_range(problem: Problem, n_forced: int) -> list[str]:
    """What forums say, beside what this plan computed."""
    gib = problem.hardware.gpus[0].vram_total_bytes / (1 << 30)
    return [
        "layers whose experts are forced onto the CPU: with 16 GB of VRAM and a model of 30 to 35B people "
        "start between 20 and 35; each layer less is faster, until VRAM is full",
        f"for this model, this context and {gib:.0f} GiB of VRAM the plan says {n_forced} of "
        f"{problem.spec.n_layer}",
    ]


def _ollama(plan: Plan, problem: Problem, remarks: list[str]) -> str:
    s = _whole_layers(problem)
    best = solve(problem)
    cache = s.settings
    lines = [
        f"FROM {_ollama_model(plan)}",
        f"PARAMETER num_ctx {cache.ctx_tokens}",
        f"PARAMETER num_gpu {_gpu_layers(problem, s)}",
        f"PARAMETER num_batch {cache.n_batch}",
        f"PARAMETER num_thread {_threads(problem)}",
    ]
    remarks = [
        *_planned(problem, s),
        "save as Modelfile, then: ollama create NAME -f Modelfile",
        *remarks,
    ]
    kind = _wider(cache.type_k, cache.type_v)
    if cache.type_k is not KVType.F16 or cache.type_v is not KVType.F16:
        remarks += [
            "the cache's type is set by environment, one for keys and values of all models:",
            f"  OLLAMA_FLASH_ATTENTION=1 OLLAMA_KV_CACHE_TYPE={kind} ollama serve",
        ]
    if cache.type_k is not cache.type_v or KVType.F32 in (cache.type_k, cache.type_v):
        remarks.append(f"  it cannot have keys in {cache.type_k} and values in {cache.type_v}")
    if problem.model.experts:
        remarks += [
            "whole layers only: Ollama cannot keep a layer's experts in RAM and the rest of it in VRAM",
        ]
        if best.token.tokens_s > s.token.tokens_s * 1.01:
            remarks.append(f"  llama.cpp, which can (--as llama.cpp): about {best.token.tokens_s:.1f} tok/s")
    return _commented(remarks) + "\n".join(lines)


def _wider(type_k: KVType, type_v: KVType) -> KVType:
    """What Ollama has that loses nothing of either; it has no f32."""
    wide = max(type_k, type_v, key=lambda t: t.bits)
    return KVType.F16 if wide is KVType.F32 else wide


def _whole_layers(problem: Problem) -> Solution:
    """As many layers as fit with all of their experts, from the back of the model."""
    most = problem.spec.n_layer
    if problem.limits.n_gpu_layers is not None:
        most = min(most, problem.limits.n_gpu_layers)
    limits = replace(problem.limits, n_cpu_moe=None)
    for n in range(most, 0, -1):
        s = solve_or_none(replace(problem, limits=replace(limits, n_gpu_layers=n)))
        if s is not None and _is_whole(problem, s, n):
            return s
    return solve(replace(problem, limits=replace(limits, n_gpu_layers=0)))


def _is_whole(problem: Problem, s: Solution, n_gpu_layers: int) -> bool:
    places = zip(problem.model.layers, s.placement.dense_on_gpu, s.placement.resident, strict=True)
    whole = all(resident == layer.n_expert for layer, on_gpu, resident in places if on_gpu)
    return whole and s.placement.n_gpu_layers == n_gpu_layers


def _ollama_model(plan: Plan) -> str:
    if plan.repo:
        return f"hf.co/{plan.repo}:{plan.quant}" if plan.quant else f"hf.co/{plan.repo}"
    return plan.path or f"./{_assumed_file(plan)}"


def _commented(remarks: Iterable[str]) -> str:
    return "".join(
        textwrap.fill(remark, 79, initial_indent="# ", subsequent_indent="#   ") + "\n" for remark in remarks
    )
