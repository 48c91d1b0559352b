"""An engine on this machine: on the CPU alone, or planned for an accelerator, loaded as planned, and planned
anew when memory falls short of what the machine had said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from pintpot.errors import AcceleratorMemoryError, UsageError
from pintpot.gguf import GGUFFile
from pintpot.hardware.emulated import with_emulated_gpu
from pintpot.hardware.probe import probe
from pintpot.kernels.accelerator import Accelerator
from pintpot.kernels.api import Ops
from pintpot.kernels.cpu import CpuOps
from pintpot.kernels.hybrid import HybridOps
from pintpot.kernels.memory import MemoryBudget
from pintpot.kernels.open import AcceleratorKind, accelerator_of
from pintpot.planner.calibration import calibrate, recall_runs
from pintpot.planner.limits import Limits
from pintpot.planner.memory import CacheSettings, weigh_file
from pintpot.planner.placement import Problem, Solution, solve
from pintpot.planner.profile import PINTPOT
from pintpot.planner.residence import Residence, residence
from pintpot.runtime.cache import largest_context
from pintpot.runtime.engine import Engine
from pintpot.runtime.experts import Profile, ResidentExperts
from pintpot.runtime.hotset import ADAPTIVE, Policy
from pintpot.runtime.loader import load_model
from pintpot.spec import ModelSpec
from pintpot.spec.cache import KVType, default_context
from pintpot.spec.reading import Reading, reading_of
from pintpot.spec.size import is_expert
from pintpot.tokenizer import Tokenizer

_BATCH: Final = 512
_LESS: Final = 0.85  # of the memory that was not there after all
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class HotExperts:
    """Which experts are resident: those of a profile at first, then as a policy says."""

    policy: Policy = ADAPTIVE
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Assembled:
    """An engine with weights and caches in place. On the CPU alone there is no plan; `residence` and
    `memory` are the accelerator's, None where nothing lies there."""

    engine: Engine
    solution: Solution | None = None
    residence: Residence | None = None
    memory: MemoryBudget | None = None
    notes: tuple[str, ...] = ()  # what came out other than asked for, in lines for the user

    def reads_in_ram(self, name: str) -> bool:
        """Whether tokens read this tensor where it lies mapped."""
        if reading_of(name, self.engine.model.spec) is not Reading.WHOLE:
            return False
        if self.residence is None or is_expert(name) or name.startswith("token_embd."):
            return True
        return not self.residence.holds(name)


def assemble(
    file: GGUFFile,
    tokenizer: Tokenizer,
    cpu: CpuOps,
    kind: AcceleratorKind,
    limits: Limits,
    hot: HotExperts = HotExperts(),
) -> Assembled:
    """The engine for `file` within `limits`. Raises UsageError for limits that make no sense without the
    accelerator, AcceleratorError where it cannot be used, and what `assemble_planned` raises."""
    if kind is AcceleratorKind.AUTO:
        kind = AcceleratorKind.NONE
    if kind is AcceleratorKind.NONE:
        if limits.gpu_flags:
            raise UsageError(
                f"{limits.gpu_flags[0]}: there is no accelerator to use; --accelerator cpu emulates one"
            )
        return Assembled(_on_cpu(file, tokenizer, cpu, limits))
    open_limited = accelerator_of(kind)
    problem = accelerated_problem(file, kind, limits)
    return assemble_planned(file, tokenizer, cpu, problem, open_limited, hot)


def accelerated_problem(file: GGUFFile, kind: AcceleratorKind, limits: Limits) -> Problem:
    """Placing `file` on this machine with an accelerator, which is used as far as it goes. An emulated one
    has as many bytes as `limits` allow of it."""
    here = probe()
    if kind is AcceleratorKind.CPU:
        if limits.vram_bytes is None:
            raise UsageError("--accelerator cpu: say how much memory it has, such as --vram 12MiB")
        here = with_emulated_gpu(here, limits.vram_bytes)
    spec = ModelSpec.from_gguf(file)
    profile = calibrate(PINTPOT, here, recall_runs(here.cpu, here.memory))
    model = weigh_file(file, spec, limits.override_tensors)
    return Problem(spec, model, here, replace(limits, use_gpu=True), profile)


def assemble_planned(
    file: GGUFFile,
    tokenizer: Tokenizer,
    cpu: CpuOps,
    problem: Problem,
    open_limited: Callable[[int], Accelerator],
    hot: HotExperts,
) -> Assembled:
    """Solves the problem of placing `file` and loads it so; `open_limited(n_bytes)` opens the accelerator.

    Memory that is not there when it is taken means less of it in the next plan, down to none. Raises
    DoesNotFitError where no plan is possible.
    """
    failed: AcceleratorMemoryError | None = None
    while True:  # until nothing at all is planned for the accelerator
        solution = solve(problem)
        try:
            made = _load(file, tokenizer, cpu, problem, solution, open_limited, hot)
        except AcceleratorMemoryError as error:
            failed = failed or error
            less = replace(problem.limits, vram_bytes=int(problem.vram_bytes * _LESS))
            problem = replace(problem, limits=less)
            continue
        if failed is None:
            return made
        note = f"planned anew, for {problem.vram_bytes / _MIB:,.1f} MiB on the accelerator: {failed}"
        return replace(made, notes=(note, *made.notes))


def _load(
    file: GGUFFile,
    tokenizer: Tokenizer,
    cpu: CpuOps,
    problem: Problem,
    solution: Solution,
    open_limited: Callable[[int], Accelerator],
    hot: HotExperts,
) -> Assembled:
    places = residence(problem, solution)
    notes = list(solution.steps)
    if not places.any_on_accelerator:
        notes.append(
            f"no layer fits {problem.vram_bytes / _MIB:,.1f} MiB on the accelerator: the CPU computes all"
        )
        return Assembled(_engine(file, tokenizer, cpu, solution.settings), solution, notes=tuple(notes))
    # What the driver takes for itself is of the same memory, and nothing that we allocate.
    accelerator = open_limited(problem.vram_bytes - solution.vram.overhead)
    ops = HybridOps(cpu, accelerator, places)
    engine = _engine(file, tokenizer, ops, solution.settings)
    engine.experts = ResidentExperts(ops, hot.policy, hot.profile)
    return Assembled(engine, solution, places, accelerator.memory, tuple(notes))


def _engine(file: GGUFFile, tokenizer: Tokenizer, ops: Ops, settings: CacheSettings) -> Engine:
    return Engine(
        load_model(file, ops),
        tokenizer,
        ctx_tokens=settings.ctx_tokens,
        n_slots=settings.n_slots,
        n_batch=settings.n_batch,
        type_k=settings.type_k,
        type_v=settings.type_v,
    )


def _on_cpu(file: GGUFFile, tokenizer: Tokenizer, cpu: CpuOps, limits: Limits) -> Engine:
    """Without a plan: the context is cut where memory cannot hold its cache."""
    spec = ModelSpec.from_gguf(file)
    type_k, type_v = limits.type_k or KVType.F16, limits.type_v or KVType.F16
    n_batch = limits.n_batch or _BATCH
    ctx_tokens = limits.ctx_tokens or largest_context(
        spec,
        default_context(spec),
        n_slots=limits.n_slots,
        n_batch=n_batch,
        type_k=type_k,
        type_v=type_v,
    )
    return _engine(file, tokenizer, cpu, CacheSettings(ctx_tokens, type_k, type_v, n_batch, limits.n_slots))
