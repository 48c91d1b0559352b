"""What would help: the problem is solved again with one thing changed, and what gains enough is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from pintpot.hardware.catalog import find_gpu
from pintpot.hardware.machine import Hardware, Process
from pintpot.planner.placement import Problem, Solution, q8_cache_fits, solve_or_none
from pintpot.spec.cache import KVType

GIB: Final = 1 << 30
MIN_GAIN: Final = 0.1  # of decode speed
_RAM_GIB: Final = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_VRAM_GIB: Final = (4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 80, 96, 141, 192)
_FIRST_CARD: Final = "RTX 5060 Ti 16GB"  # for a machine without a GPU
_SMALL: Final = 64 << 20  # programs below this are not worth naming
_NOMINAL: Final = 0.06  # a machine reports up to this share less than what was bought


class Change(StrEnum):
    """What kind of change it is."""

    RAM = "ram"
    CLOSE_PROGRAM = "close_program"
    CACHE_TYPE = "cache_type"
    CONTEXT = "context"
    FORMAT = "format"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Advice:
    """One change and what it would do. `was_tokens_s` None: as it is, the model does not fit."""

    kind: Change
    change: str  # "16 GiB more RAM (48 GiB)"
    was_tokens_s: float | None
    tokens_s: float
    allows: str = ""  # a better format that would then fit

    @property
    def gain(self) -> float | None:
        """Share by which decode gets faster; None where it is about fitting."""
        return None if self.was_tokens_s is None else self.tokens_s / self.was_tokens_s - 1.0

    def __str__(self) -> str:
        if self.allows:
            return f"{self.change} would hold {self.allows}, at about {self.tokens_s:.1f} tok/s"
        if self.gain is None:
            return f"{self.change}: it would fit, at about {self.tokens_s:.1f} tok/s"
        return f"{self.change}: about {self.tokens_s:.1f} tok/s, {self.gain:+.0%}"


@dataclass(frozen=True, slots=True)
class OtherFormat:
    """The model in another format, as a problem on the same machine."""

    quant: str
    problem: Problem
    solution: Solution | None


def advise(problem: Problem, now: Solution | None, formats: Sequence[OtherFormat] = ()) -> tuple[Advice, ...]:
    """What makes it fit, or at least 10% faster at the same depth, best first. `now` None: it does not fit.

    `formats`: those there are of the model, largest first; the one in question may be among them.
    """
    was = now.token.tokens_s if now else None
    depth = now.depth_tokens if now else problem.limits.depth_tokens
    at_depth = replace(problem, limits=replace(problem.limits, depth_tokens=depth))
    found = []
    for kind, change, changed in _changes(at_depth, now):
        solution = solve_or_none(changed)
        if solution is not None:
            found.append(Advice(kind, change, was, solution.token.tokens_s))
    found.extend(_smaller_format(problem, was, formats))
    kept = [a for a in found if a.gain is None or a.gain >= MIN_GAIN]
    kept.sort(key=lambda a: -a.tokens_s)
    return (*kept, *_better_format(problem, now, formats))


def _changes(p: Problem, now: Solution | None) -> Iterator[tuple[Change, str, Problem]]:
    """Every change that is tried, in words and as a problem."""
    more = _more_ram(p, until_it_fits=now is None)
    if more is not None:
        yield Change.RAM, *more
    for words, hardware in _closings(p.hardware):
        yield Change.CLOSE_PROGRAM, words, replace(p, hardware=hardware)
    type_k = now.settings.type_k if now else p.limits.type_k or KVType.F16
    type_v = now.settings.type_v if now else p.limits.type_v or KVType.F16
    if (type_k, type_v) != (KVType.Q8_0, KVType.Q8_0) and q8_cache_fits(p.spec):
        limits = replace(p.limits, type_k=KVType.Q8_0, type_v=KVType.Q8_0)
        yield Change.CACHE_TYPE, "a q8_0 cache (-ctk q8_0 -ctv q8_0)", replace(p, limits=limits)
    ctx = p.ctx_tokens // 2
    if ctx:
        limits = p.limits.with_ctx(ctx)
        yield Change.CONTEXT, f"half the context (-c {ctx})", replace(p, limits=limits)
    card = _bigger_card(p.hardware)
    if card is not None and p.limits.vram_bytes is None:
        yield Change.GPU, card[0], replace(p, hardware=card[1])


def _more_ram(problem: Problem, *, until_it_fits: bool) -> tuple[str, Problem] | None:
    """With the next usual size of RAM, or the smallest that holds the model. None where there is none, or
    RAM is unknown or capped by the user."""
    memory = problem.hardware.memory
    if not memory.total_bytes or problem.limits.ram_bytes is not None:
        return None
    for size in _larger_sizes(memory.total_bytes, _RAM_GIB):
        added = size * GIB - memory.total_bytes
        limit = None if memory.limit_bytes is None else memory.limit_bytes + added
        available = memory.available_bytes + added
        grown = replace(memory, total_bytes=size * GIB, available_bytes=available, limit_bytes=limit)
        changed = replace(problem, hardware=replace(problem.hardware, memory=grown))
        if not until_it_fits or solve_or_none(changed) is not None:
            return f"{added / GIB:.0f} GiB more RAM ({size} GiB in all)", changed
    return None


def _closings(hardware: Hardware) -> Iterator[tuple[str, Hardware]]:
    """Without the program that holds most VRAM; without the one that holds most RAM."""
    if hardware.gpus:
        gpu = hardware.gpus[0]
        program = _biggest(gpu.processes)
        if program is not None:
            freed = replace(gpu, vram_free_bytes=gpu.vram_free_bytes + program.nbytes)
            yield _closing(program, "VRAM"), replace(hardware, gpus=(freed, *hardware.gpus[1:]))
    program = _biggest(hardware.processes)
    if program is not None:
        available = hardware.memory.available_bytes + program.nbytes
        yield (
            _closing(program, "RAM"),
            replace(hardware, memory=replace(hardware.memory, available_bytes=available)),
        )


def _biggest(programs: Sequence[Process]) -> Process | None:
    program = max(programs, key=lambda program: program.nbytes, default=None)
    return program if program is not None and program.nbytes >= _SMALL else None


def _closing(program: Process, memory: str) -> str:
    size = f"{program.nbytes / GIB:.1f} GiB" if program.nbytes >= GIB else f"{program.nbytes >> 20} MiB"
    return f"closing {program.name} (pid {program.pid}), which frees {size} of {memory}"


def _bigger_card(hardware: Hardware) -> tuple[str, Hardware] | None:
    """The first GPU with the next usual size of memory, otherwise the same."""
    if not hardware.gpus:
        card = find_gpu(_FIRST_CARD)
        return f"a GPU such as {card.name}", replace(hardware, gpus=(card,))
    gpu = hardware.gpus[0]
    size = next(_larger_sizes(gpu.vram_total_bytes, _VRAM_GIB), None)
    if gpu.unified or size is None:
        return None
    added = size * GIB - gpu.vram_total_bytes
    bigger = replace(gpu, vram_total_bytes=size * GIB, vram_free_bytes=gpu.vram_free_bytes + added)
    return f"a card of {size} GiB, as fast as this one", replace(hardware, gpus=(bigger, *hardware.gpus[1:]))


def _larger_sizes(nbytes: int, sizes: Sequence[int]) -> Iterator[int]:
    return (size for size in sizes if size * GIB * (1 - _NOMINAL) > nbytes)


def _smaller_format(problem: Problem, was: float | None, formats: Sequence[OtherFormat]) -> list[Advice]:
    """The largest of the smaller formats that fits."""
    for other in formats:
        if other.problem.model.total < problem.model.total and other.solution is not None:
            change = f"the smaller format {other.quant}"
            return [Advice(Change.FORMAT, change, was, other.solution.token.tokens_s)]
    return []


def _better_format(problem: Problem, now: Solution | None, formats: Sequence[OtherFormat]) -> list[Advice]:
    """The largest format that more RAM would hold, if it is better than this one and does not fit now."""
    if now is None:
        return []
    for other in formats:
        if other.problem.model.total <= problem.model.total or other.solution is not None:
            continue
        more = _more_ram(other.problem, until_it_fits=False)
        solution = solve_or_none(more[1]) if more is not None else None
        if more is not None and solution is not None:
            return [Advice(Change.RAM, more[0], None, solution.token.tokens_s, other.quant)]
    return []
