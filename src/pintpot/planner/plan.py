"""The Plan: a model on a machine, and what other formats and contexts would give, as one printable value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Final

from pintpot.errors import UsageError
from pintpot.gguf import GGUFFile
from pintpot.hardware.machine import Hardware
from pintpot.planner import quality
from pintpot.planner.advice import Advice, Change, OtherFormat, advise
from pintpot.planner.bounds import least_weights_bytes
from pintpot.planner.counted import spec_of
from pintpot.planner.limits import Limits
from pintpot.planner.memory import ModelBytes, TensorSize, weigh, weigh_file
from pintpot.planner.placement import DoesNotFitError, Problem, Solution, solve, solve_or_none
from pintpot.planner.profile import LLAMA_CPP, PINTPOT, EngineProfile
from pintpot.planner.quality import quality_class
from pintpot.spec import ModelSpec
from pintpot.store import catalog
from pintpot.store.catalog import Entry

CONTEXTS: Final = (8_192, 32_768, 65_536, 131_072, 262_144)
GOOD_QUANTS: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
QUANTS: Final = (*GOOD_QUANTS, "Q3_K_M", "Q2_K")


@dataclass(frozen=True, slots=True)
class Alternative:
    """The same model another way. `solution` None: it does not fit."""

    label: str
    weights_bytes: int
    solution: Solution | None


@dataclass(frozen=True, slots=True)
class Format(Alternative):
    """The model in another format; `quality` in words, see `planner.quality`."""

    bits_per_weight: float
    quality: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes where and how fast it is, by estimate; nothing of it is loaded."""

    name: str
    quant: str  # "" for a file of its own mix
    problem: Problem
    solution: Solution
    contexts: tuple[Alternative, ...]
    quants: tuple[Format, ...]  # empty for a file: its other formats are other files
    advice: tuple[Advice, ...] = ()
    path: str = ""  # of the file
    repo: str = ""  # on the Hugging Face hub, user/name, that has it

    def to_json(self) -> dict[str, Any]:
        """Plain values; sizes in bytes, times in seconds."""
        s, p = self.solution, self.problem
        return {
            "model": self.name,
            "quant": self.quant,
            "engine": p.profile.name,
            "weights_bytes": p.model.total,
            "rows_bytes": p.model.rows,
            "unread_bytes": p.model.unread,
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
            "calibration": p.profile.calibration,
            "contexts": [_alternative_json(a) for a in self.contexts],
            "quants": [
                _alternative_json(f) | {"bits_per_weight": f.bits_per_weight, "quality": f.quality}
                for f in self.quants
            ],
            "quality_source": quality.SOURCE,
            "advice": [asdict(a) | {"gain": a.gain, "text": str(a)} for a in self.advice],
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


def plan_file(
    file: GGUFFile,
    hardware: Hardware,
    limits: Limits,
    profile: EngineProfile,
    *,
    quant: str = "",
    repo: str = "",
) -> Plan:
    """The plan of an open GGUF file, or of the header of one in the hub's `repo`.

    Raises DoesNotFitError, which names what would make it fit.
    """
    spec = ModelSpec.from_gguf(file)
    model = weigh_file(file, spec, limits.override_tensors)
    problem = Problem(spec, model, hardware, limits, profile)
    solution = _solve(problem, ())
    return Plan(
        repo or file.path.name,
        quant,
        problem,
        solution,
        _contexts(problem, solution),
        (),
        advise(problem, solution),
        "" if repo else str(file.path),
        repo,
    )


def plan_entry(entry: Entry, quant: str, hardware: Hardware, limits: Limits, profile: EngineProfile) -> Plan:
    """The plan of a model of the catalog in the format `quant`.

    Raises DoesNotFitError, which names what would make it fit; UsageError for a model that
    the engine of `profile` does not run.
    """
    if not entry.runnable and profile.name == PINTPOT.name:
        raise UsageError(
            f"{entry.name}: pintpot does not run its architecture {entry.arch} yet; "
            f"--engine {LLAMA_CPP.name} plans for it"
        )
    spec = spec_of(entry)

    def problem_of(quant: str) -> Problem:
        return Problem(spec, weigh_entry(entry, spec, quant, limits), hardware, limits, profile)

    problems = {q: problem_of(q) for q in QUANTS}
    others = tuple(OtherFormat(q, p, solve_or_none(p)) for q, p in problems.items())
    problem = problems.get(quant) or problem_of(quant)
    solution = next((o.solution for o in others if o.quant == quant), None) or _solve(problem, others)
    return Plan(
        entry.name,
        quant,
        problem,
        solution,
        _contexts(problem, solution),
        tuple(_format(other, entry.n_params) for other in others),
        advise(problem, solution, others),
        repo=entry.gguf_repo,
    )


def _solve(problem: Problem, others: Sequence[OtherFormat]) -> Solution:
    """The solution. Raises DoesNotFitError with what would help, and what fits instead."""
    try:
        return solve(problem)
    except DoesNotFitError as error:
        advice = advise(problem, None, others)
        helps = [f"{a.change} (about {a.tokens_s:.1f} tok/s)" for a in advice]
        hint = f"it would fit with {', or with '.join(helps)}" if helps else "no single change would help"
        if not any(a.kind is Change.FORMAT for a in advice):
            hint += _largest_that_fits(problem)
        raise DoesNotFitError(f"{error}; {hint}") from error


def _largest_that_fits(problem: Problem) -> str:
    """The model of the catalog with most parameters that fits in Q4_K_M or better, in words; "" for none."""
    limits, profile = problem.limits, problem.profile
    room = problem.vram_bytes + problem.ram_bytes
    runnable = [e for e in catalog.entries() if e.runnable or profile.name != PINTPOT.name]
    for entry in sorted(runnable, key=lambda e: -e.n_params_published):
        spec = None
        for quant in (q for q in GOOD_QUANTS if least_weights_bytes(entry, q) <= room):
            spec = spec or spec_of(entry)
            model = weigh_entry(entry, spec, quant, limits)
            if solve_or_none(Problem(spec, model, problem.hardware, limits, profile)) is not None:
                return f"; the largest model of the catalog that fits is {entry.name} in {quant}"
    return ""


def weigh_entry(entry: Entry, spec: ModelSpec, quant: str, limits: Limits) -> ModelBytes:
    """The weights of a model of the catalog in the format `quant`, sorted as the rules of `limits` say."""
    shapes = dict(entry.tensors())
    sizes = [TensorSize(name, nbytes, prod(shapes[name])) for name, nbytes in entry.tensor_bytes(quant)]
    return weigh(spec, sizes, limits.override_tensors)


def _format(other: OtherFormat, n_params: int) -> Format:
    nbytes = other.problem.model.total
    return Format(other.quant, nbytes, other.solution, 8 * nbytes / n_params, quality_class(other.quant))


def _contexts(problem: Problem, solution: Solution) -> tuple[Alternative, ...]:
    """Contexts up to what the model was trained for, each full to a quarter."""
    found = []
    for ctx in CONTEXTS:
        if ctx > problem.spec.ctx_train:
            break
        other = replace(problem, limits=problem.limits.with_ctx(ctx))
        same = ctx == solution.settings.ctx_tokens
        found.append(
            Alternative(f"{ctx // 1024}K", problem.model.total, solution if same else solve_or_none(other))
        )
    return tuple(found)
