"""Which models and formats are worth trying on a machine, best first by a stated objective.

Candidates are the catalog's models in the formats that publishers offer. One is planned like any other
(`placement.solve`) and scores

    score = worth * v / (v + half)

where `worth` is the proxy of quality (`planner.worth`, in parameters) and v the predicted decode speed:
twice the speed is worth much below `half` tok/s and little above. Candidates slower than the objective's
floor, or trained for less context than it asks, do not count. Dense models and mixtures of experts are
ranked apart, each model in its best format, models of one shape as one.

Only what could still be among the best is planned: an upper bound of the score (`planner.bounds`) is cheap,
and candidates come in its order. The result is that of planning all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from pintpot.errors import UsageError
from pintpot.hardware.machine import Hardware
from pintpot.planner.bounds import least_weights_bytes, most_tokens_s
from pintpot.planner.counted import spec_of
from pintpot.planner.limits import Limits
from pintpot.planner.placement import DoesNotFitError, Problem, Solution, q8_cache_fits, solve
from pintpot.planner.plan import CONTEXTS, weigh_entry
from pintpot.planner.profile import LLAMA_CPP, EngineProfile
from pintpot.planner.quality import format_share
from pintpot.planner.speed import rates
from pintpot.planner.worth import model_worth, months
from pintpot.spec import ModelSpec
from pintpot.spec.cache import KVType
from pintpot.store.catalog import Entry

GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Objective:
    """What a user is after. Speeds are decode tok/s, judged with `depth` of the context full."""

    name: str
    floor: float
    half: float
    ctx_tokens: int
    depth: float = 0.25

    def score(self, worth: float, tokens_s: float) -> float:
        return worth * tokens_s / (tokens_s + self.half)

    def __str__(self) -> str:
        return (
            f"score = worth x v / (v + {self.half:g}), v = decode tok/s, at least {self.floor:g}, with "
            f"{self.depth:.0%} of a context of {self.ctx_tokens:,} tokens"
        )


OBJECTIVES: Final[Mapping[str, Objective]] = MappingProxyType(
    {
        objective.name: objective
        for objective in (
            Objective("quality", floor=5, half=5, ctx_tokens=16_384),
            Objective("balanced", floor=10, half=20, ctx_tokens=16_384),
            Objective("speed", floor=20, half=100, ctx_tokens=8_192),
            Objective("long-context", floor=5, half=10, ctx_tokens=131_072, depth=0.5),
        )
    }
)

# What people tell each other: the formats to take, by the GB of the card (or of RAM, without one).
RULE_OF_THUMB: Final = (
    (4, ("Q3_K_M", "Q2_K")),
    (8, ("Q4_K_M",)),
    (16, ("Q5_K_M", "Q8_0")),
    (32, ("F16", "Q8_0")),
)
_IN_CATALOG: Final = {"F16": "BF16"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of the rule of thumb."""

    gb: int
    quants: tuple[str, ...]
    memory: str  # "VRAM", or "RAM" of a machine without a GPU


def rule_of_thumb(hardware: Hardware) -> Rule:
    """The line of the largest size that the memory has; cards have a little less than their names say."""
    gpu = bool(hardware.gpus)
    nbytes = hardware.gpus[0].vram_total_bytes if gpu else hardware.memory.total_bytes
    lines = [line for line in RULE_OF_THUMB if line[0] * GIB <= nbytes * 1.1] or [RULE_OF_THUMB[0]]
    gb, quants = lines[-1]
    return Rule(gb, quants, "VRAM" if gpu else "RAM")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model in a format, before it is planned. `bound`: no score is above it."""

    entry: Entry
    quant: str
    profile: EngineProfile
    worth: float
    bound: float


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate that was planned."""

    candidate: Candidate
    problem: Problem
    solution: Solution
    score: float
    same_shape: tuple[str, ...] = ()  # models that take and do the same, with less worth
    ctx_fits: int = 0  # the longest context with as many layers on the GPU
    rule: str = ""  # where the rule of thumb says otherwise, and what the plan says of that

    @property
    def why(self) -> str:
        """What the place of its weights means."""
        s, model, n_layer = self.solution, self.problem.model, self.problem.spec.n_layer
        n_cpu = n_layer - s.placement.n_gpu_layers
        routed = sum(layer.routed for layer in model.layers)
        if not s.vram.total:
            read, total = (model.dense + routed) / GIB, model.total / GIB
            return f"on the CPU, a token reads {read:.2g} of {total:.3g} GiB" if routed else "on the CPU"
        if n_cpu:
            return f"{n_cpu} of {n_layer} layers on the CPU"
        if s.ram.experts:
            experts, total = s.ram.experts / GIB, model.experts / GIB
            return f"{experts:.3g} of {total:.3g} GiB of experts in RAM, a token uses {routed / GIB:.2g} GiB"
        return "all layers in VRAM"

    def to_json(self) -> dict[str, Any]:
        """Plain values; sizes in bytes."""
        c, s = self.candidate, self.solution
        return {
            "model": c.entry.name,
            "quant": c.quant,
            "engine": c.profile.name,
            "params": c.entry.params,
            "params_active": c.entry.params_active or c.entry.params,
            "same_shape": list(self.same_shape),
            "worth": c.worth,
            "score": self.score,
            "weights_bytes": self.problem.model.total,
            "ctx_tokens": s.settings.ctx_tokens,
            "ctx_fits": self.ctx_fits,
            "cache_type_k": str(s.settings.type_k),
            "vram_bytes": s.vram.total,
            "ram_bytes": s.ram.total,
            "decode_tokens_s": s.token.tokens_s,
            "prefill_tokens_s": s.prefill_tokens_s,
            "bottleneck": s.token.bottleneck,
            "gave_way": list(s.steps),
            "why": self.why,
            "rule_of_thumb": self.rule,
        }


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The best of each kind. `below_floor`: nothing that fits is as fast as the objective asks."""

    objective: Objective
    rule: Rule
    moe: tuple[Row, ...]
    dense: tuple[Row, ...]
    below_floor: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        o = self.objective
        return {
            "for": o.name,
            "objective": str(o),
            "floor_tokens_s": o.floor,
            "ctx_tokens": o.ctx_tokens,
            "below_floor": self.below_floor,
            "rule_of_thumb": {
                "gb": self.rule.gb,
                "memory": self.rule.memory,
                "quants": list(self.rule.quants),
            },
            "moe": [row.to_json() for row in self.moe],
            "dense": [row.to_json() for row in self.dense],
        }


def rank(
    models: Sequence[Entry],
    hardware: Hardware,
    limits: Limits,
    profile: EngineProfile,
    objective: Objective,
    n_rows: int = 5,
) -> Recommendation:
    """The best `n_rows` models of each kind. What the engine of `profile` does not run is planned as
    llama.cpp would run it. The context of `limits` takes the place of the objective's.

    Raises UsageError where no model was trained for the context, DoesNotFitError where none fits; that one
    names the smallest and what it needs.
    """
    objective = replace(objective, ctx_tokens=limits.ctx_tokens or objective.ctx_tokens)
    depth = limits.depth_tokens
    depth = int(objective.ctx_tokens * objective.depth) if depth is None else depth
    limits = replace(limits, ctx_tokens=objective.ctx_tokens, depth_tokens=depth)
    long_enough = [entry for entry in models if entry.ctx_train >= objective.ctx_tokens]
    if not long_enough:
        longest = max(models, key=lambda entry: entry.ctx_train)
        raise UsageError(
            f"-c {objective.ctx_tokens}: no model of the catalog was trained for so much context; "
            f"the most is {longest.ctx_train:,} tokens, by {longest.name}"
        )
    search = _Search(hardware, limits, profile, objective, max(map(months, models)))
    moe, dense, below_floor = search.both(long_enough, n_rows)
    if not moe and not dense:
        raise DoesNotFitError(search.smallest(long_enough))
    rule = rule_of_thumb(hardware)
    return Recommendation(
        objective,
        rule,
        tuple(search.explained(row, rule) for row in moe),
        tuple(search.explained(row, rule) for row in dense),
        below_floor,
    )


@dataclass(slots=True)
class _Search:
    """Plans candidates, each model's spec read once."""

    hardware: Hardware
    limits: Limits
    profile: EngineProfile
    objective: Objective
    newest: int
    specs: dict[str, ModelSpec] = field(default_factory=dict)

    def both(self, models: Iterable[Entry], n_rows: int) -> tuple[list[Row], list[Row], bool]:
        """(mixtures of experts, dense, below the floor): where nothing is fast enough, what comes nearest."""
        groups = self._groups(models)
        kinds = [
            [group for group in groups if (group[0].shape.experts is not None) is moe]
            for moe in (True, False)
        ]
        moe, dense = (self.best(kind, n_rows) for kind in kinds)
        if moe or dense:
            return moe, dense, False
        wanted, self.objective = self.objective, replace(self.objective, floor=0.0)
        moe, dense = (self.best(kind, n_rows) for kind in kinds)
        self.objective = wanted
        return moe, dense, True

    def _groups(self, models: Iterable[Entry]) -> list[list[Entry]]:
        """Models of one shape, the one of most worth first: all of them take and do the same."""
        groups: dict[object, list[Entry]] = {}
        for entry in models:
            groups.setdefault((replace(entry.shape, name=""), entry.quants), []).append(entry)
        return [sorted(group, key=self._model_worth, reverse=True) for group in groups.values()]

    def _model_worth(self, entry: Entry) -> float:
        return model_worth(entry, self.newest)

    def best(self, groups: Iterable[Sequence[Entry]], n_rows: int) -> list[Row]:
        """The best rows, a model at most once."""
        same = {group[0].name: tuple(entry.name for entry in group[1:]) for group in groups}
        candidates = [c for group in groups for c in self.candidates(group[0])]
        rows: dict[str, Row] = {}
        ranked: list[Row] = []
        for candidate in sorted(candidates, key=lambda c: -c.bound):
            if len(ranked) == n_rows and ranked[-1].score >= candidate.bound:
                break
            name = candidate.entry.name
            if name in rows and rows[name].score >= candidate.bound:
                continue
            row = self.plan(candidate)
            if row is None or row.solution.token.tokens_s < self.objective.floor:
                continue
            if name not in rows or rows[name].score < row.score:
                rows[name] = replace(row, same_shape=same[name])
                ranked = sorted(rows.values(), key=lambda r: -r.score)[:n_rows]
        return ranked

    def candidates(self, entry: Entry) -> list[Candidate]:
        """Formats of a model that the memory could hold and that could be fast enough."""
        worth = self._model_worth(entry)
        found = []
        for quant in entry.quants:
            candidate = self.candidate(entry, quant, worth)
            if candidate is not None:
                found.append(candidate)
        return found

    def candidate(self, entry: Entry, quant: str, worth: float) -> Candidate | None:
        share = format_share(quant)
        vram = self.limits.usable_vram(self.hardware)
        room = vram + self.limits.usable_ram(self.hardware)
        if share is None or least_weights_bytes(entry, quant) > room:
            return None
        profile = self.profile if entry.runnable else LLAMA_CPP
        rate = rates(self.hardware, profile, self.limits.n_threads)
        most = most_tokens_s(entry, quant, vram, rate, profile)
        if most < self.objective.floor:
            return None
        return Candidate(entry, quant, profile, worth * share, self.objective.score(worth * share, most))

    def plan(self, candidate: Candidate) -> Row | None:
        """None where it does not fit."""
        entry = candidate.entry
        if entry.name not in self.specs:
            self.specs[entry.name] = spec_of(entry)
        spec = self.specs[entry.name]
        model = weigh_entry(entry, spec, candidate.quant, self.limits)
        problem = Problem(spec, model, self.hardware, self.limits, candidate.profile)
        try:
            solution = solve(problem)
        except DoesNotFitError:
            return None
        score = self.objective.score(candidate.worth, solution.token.tokens_s)
        return Row(candidate, problem, solution, score)

    def explained(self, row: Row, rule: Rule) -> Row:
        """With the longest context that fits, and what the rule of thumb would have given."""
        return replace(row, ctx_fits=_longest_ctx(row), rule=self._against(row, rule))

    def _against(self, row: Row, rule: Rule) -> str:
        entry, chosen = row.candidate.entry, row.candidate.quant
        quants = [_IN_CATALOG.get(quant, quant) for quant in rule.quants]
        if chosen in quants:
            return ""
        offered = [quant for quant in quants if quant in entry.quants]
        if not offered:
            return f"published in {chosen}, whatever the memory"
        now = f"{chosen} gives {row.solution.token.tokens_s:.0f} tok/s, the rule's {offered[0]}"
        # Planned to be told of, not to be ranked: neither worth nor bound is asked.
        other = self.plan(replace(row.candidate, quant=offered[0]))
        if other is None:
            return f"{now} does not fit"
        speed = other.solution.token.tokens_s
        slow = f", below {self.objective.floor:g}" if speed < self.objective.floor else ""
        experts = "; its experts lie in RAM" if row.solution.ram.experts and row.solution.vram.total else ""
        return f"{now} {speed:.0f}{slow}{experts}"

    def smallest(self, models: Iterable[Entry]) -> str:
        """What the smallest candidate needs, in words."""
        sized = [(least_weights_bytes(e, q), e, q) for e in models for q in e.quants]
        _, entry, quant = min(sized, key=lambda item: item[0])
        spec = spec_of(entry)
        everything = replace(self.limits, vram_bytes=0, ram_bytes=None)
        if everything.type_k is None and everything.type_v is None and q8_cache_fits(spec):
            everything = replace(everything, type_k=KVType.Q8_0, type_v=KVType.Q8_0)  # what gives way to fit
        memory = replace(self.hardware.memory, available_bytes=1 << 60)
        hardware = replace(self.hardware, memory=memory)
        profile = self.profile if entry.runnable else LLAMA_CPP
        model = weigh_entry(entry, spec, quant, self.limits)
        need = solve(Problem(spec, model, hardware, everything, profile)).ram.total
        have = self.limits.usable_ram(self.hardware)
        return (
            f"nothing of the catalog fits: the smallest, {entry.name} {quant}, needs {need / GIB:.2f} GiB of "
            f"RAM with a context of {self.objective.ctx_tokens:,} tokens, and {have / GIB:.2f} GiB may be "
            "used: close programs or choose a smaller context (-c)"
        )


def _longest_ctx(row: Row) -> int:
    """Of the usual contexts and the model's own. Experts are placed by whole layers, which is quick and fits
    at most one layer's experts less."""
    p, found = row.problem, row.solution.settings.ctx_tokens
    p = replace(p, profile=replace(p.profile, per_expert=False))
    for ctx in sorted({*(c for c in CONTEXTS if c < p.spec.ctx_train), p.spec.ctx_train}, reverse=True):
        if ctx <= found:
            break
        try:
            longer = solve(replace(p, limits=p.limits.with_ctx(ctx)))
        except DoesNotFitError:
            continue
        if longer.placement.n_gpu_layers >= row.solution.placement.n_gpu_layers:
            return ctx
    return found
