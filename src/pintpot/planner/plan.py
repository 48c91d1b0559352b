"""The Plan: a model on a machine, and what other formats and contexts would give, as one printable value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Final

from pintpot.errors import UsageError
from pintpot.gguf import GGUFFile
from pintpot.hardware.machine import Hardware
from pintpot.planner.limits import Limits
from pintpot.planner.memory import ModelBytes, TensorSize, weigh, weigh_file
from pintpot.planner.placement import DoesNotFitError, Problem, Solution, solve
from pintpot.planner.profile import EngineProfile
from pintpot.spec import ModelSpec
from pintpot.store.catalog import Entry

CONTEXTS: Final = (8_192, 32_768, 65_536, 131_072, 262_144)
QUANTS: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")


@dataclass(frozen=True, slots=True)
class Alternative:
    """The same model another way. `solution` None: it does not fit."""

    label: str
    weights_bytes: int
    solution: Solution | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes where and how fast it is, by estimate; nothing of it is loaded."""

    name: str
    quant: str  # "" for a file of its own mix
    problem: Problem
    solution: Solution
    contexts: tuple[Alternative, ...]
    quants: tuple[Alternative, ...]  # empty for a file: its other formats are other files

    def to_json(self) -> dict[str, Any]:
        """Plain values; sizes in bytes, times in seconds."""
        s, p = self.solution, self.problem
        return {
            "model": self.name,
            "quant": self.quant,
            "engine": p.profile.name,
            "weights_bytes": p.model.total,
            "ctx_tokens": s.settings.ctx_tokens,
            "cache_type_k": str(s.settings.type_k),
            "cache_type_v": str(s.settings.type_v),
            "n_batch": s.settings.n_batch,
            "n_gpu_layers": s.placement.n_gpu_layers,
            "experts_in_vram": list(s.placement.resident),
            "vram": asdict(s.vram) | {"total": s.vram.total, "allowed": p.vram_bytes},
            "ram": asdict(s.ram) | {"total": s.ram.total, "allowed": p.ram_bytes},
            "gave_way": list(s.steps),
            "depth_tokens": s.depth_tokens,
            "decode_tokens_s": s.token.tokens_s,
            "prefill_tokens_s": s.prefill_tokens_s,
            "decode_seconds": asdict(s.token),
            "bottleneck": s.token.bottleneck,
            "ram_bandwidth_bytes_s": p.hardware.ram_bandwidth_bytes_s,
            "ram_bandwidth_source": p.hardware.ram_bandwidth_source,
            "contexts": [_alternative_json(a) for a in self.contexts],
            "quants": [_alternative_json(a) for a in self.quants],
        }


def _alternative_json(a: Alternative) -> dict[str, Any]:
    s = a.solution
    return {
        "label": a.label,
        "weights_bytes": a.weights_bytes,
        "fits": s is not None,
        "decode_tokens_s": s.token.tokens_s if s else None,
        "vram_bytes": s.vram.total if s else None,
        "ram_bytes": s.ram.total if s else None,
        "gave_way": list(s.steps) if s else [],
    }


def plan_file(file: GGUFFile, hardware: Hardware, limits: Limits, profile: EngineProfile) -> Plan:
    """The plan of an open GGUF file. Raises DoesNotFitError when the limits cannot hold it."""
    spec = ModelSpec.from_gguf(file)
    problem = Problem(spec, weigh_file(file, spec), hardware, limits, profile)
    return Plan(file.path.name, "", problem, solve(problem), _contexts(problem), ())


def plan_entry(entry: Entry, quant: str, hardware: Hardware, limits: Limits, profile: EngineProfile) -> Plan:
    """The plan of a model of the catalog in the format `quant`.

    Raises DoesNotFitError, which names the largest format that would fit; UsageError for a model whose layers
    this version cannot count.
    """
    if not entry.runnable:
        raise UsageError(
            f"{entry.name}: its architecture {entry.arch} is not one this version can plan for yet"
        )
    quants = tuple(_quant(entry, q, hardware, limits, profile) for q in QUANTS)
    problem = Problem(entry.spec(), _weigh(entry, quant), hardware, limits, profile)
    try:
        solution = solve(problem)
    except DoesNotFitError as error:
        smaller = next((a.label for a in quants if a.solution is not None), None)
        hint = f"{smaller} would fit" if smaller else "no format of it would fit"
        raise DoesNotFitError(f"{error}; {hint}") from error
    return Plan(entry.name, quant, problem, solution, _contexts(problem), quants)


def _weigh(entry: Entry, quant: str) -> ModelBytes:
    shapes = dict(entry.tensors())
    sizes = [TensorSize(name, nbytes, prod(shapes[name])) for name, nbytes in entry.tensor_bytes(quant)]
    return weigh(entry.spec(), sizes)


def _quant(
    entry: Entry, quant: str, hardware: Hardware, limits: Limits, profile: EngineProfile
) -> Alternative:
    model = _weigh(entry, quant)
    problem = Problem(entry.spec(), model, hardware, limits, profile)
    return Alternative(quant, model.total, _solve_or_none(problem))


def _contexts(problem: Problem, contexts: Sequence[int] = CONTEXTS) -> tuple[Alternative, ...]:
    """Contexts up to what the model was trained for, each full to a quarter."""
    found = []
    for ctx in contexts:
        if ctx > problem.spec.ctx_train:
            break
        limits = problem.limits.with_ctx(ctx)
        other = Problem(problem.spec, problem.model, problem.hardware, limits, problem.profile)
        found.append(Alternative(f"{ctx // 1024}K", problem.model.total, _solve_or_none(other)))
    return tuple(found)


def _solve_or_none(problem: Problem) -> Solution | None:
    try:
        return solve(problem)
    except DoesNotFitError:
        return None
