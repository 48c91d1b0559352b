"""Where a model's parts go under given limits, and what had to give way.

In VRAM come first, in this order: every layer's dense weights, its cache, the output head and the buffers
of a step. Routed experts get what is left, as slots in every layer or as whole layers, whichever is faster.
What does not fit gives way in a stated order: smaller batches, then layers from the front of the model move
to the CPU with their caches. That is done with an f16 and a q8_0 cache, and the faster taken. The context is
never cut behind the user's back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf
from typing import Final

from pintpot.errors import PintpotError
from pintpot.hardware.machine import Hardware
from pintpot.knapsack import Group, Option, Savings, choose
from pintpot.planner.limits import Limits
from pintpot.planner.memory import (
    CacheBytes,
    CacheSettings,
    LayerBytes,
    ModelBytes,
    cache_bytes,
    cache_read_bytes,
    process_bytes,
    step_bytes,
    stream_bytes,
)
from pintpot.planner.profile import EngineProfile
from pintpot.planner.speed import (
    Placement,
    Rates,
    TokenTime,
    decode,
    expert_seconds,
    head_seconds,
    layer_seconds,
    prefill_tokens_s,
    rates,
)
from pintpot.spec import AttentionLayer, ModelSpec
from pintpot.spec.cache import KVType, default_context

GPU_CONTEXT_BYTES: Final = 400 << 20  # CUDA context, kernels and library workspaces: to be measured on a GPU
_BATCHES: Final = (512, 256, 128)
_Q8_BLOCK: Final = 32


class DoesNotFitError(PintpotError):
    """The limits cannot hold the model, however it is placed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes in one memory, by kind."""

    dense: int = 0
    experts: int = 0
    cache: int = 0
    buffers: int = 0
    overhead: int = 0  # the driver's context, the process

    @property
    def total(self) -> int:
        return self.dense + self.experts + self.cache + self.buffers + self.overhead


@dataclass(frozen=True, slots=True)
class Solution:
    """A placement, what it takes and how fast one token is at `depth_tokens`."""

    settings: CacheSettings
    placement: Placement
    vram: Usage
    ram: Usage
    token: TokenTime
    prefill_tokens_s: float
    depth_tokens: int
    steps: tuple[str, ...]  # what gave way, in order


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be placed, where, for which engine."""

    spec: ModelSpec
    model: ModelBytes
    hardware: Hardware
    limits: Limits
    profile: EngineProfile

    @property
    def vram_bytes(self) -> int:
        """What may be used of the first GPU; 0 without one."""
        return self.limits.usable_vram(self.hardware)

    @property
    def ram_bytes(self) -> int:
        return self.limits.usable_ram(self.hardware)

    @property
    def ctx_tokens(self) -> int:
        return self.limits.ctx_tokens or default_context(self.spec)

    @property
    def rates(self) -> Rates:
        return rates(self.hardware, self.profile, self.limits.n_threads)


def solve(problem: Problem) -> Solution:
    """The fastest placement within the limits. Raises DoesNotFitError, which says what is missing."""
    found = [_on_cpu(problem, settings, steps) for settings, steps in _caches(problem)]
    # Without a GPU the engine's own cache type is kept as long as it fits.
    best = next((s for s in found if s.ram.total <= problem.ram_bytes), found[-1])
    if problem.vram_bytes:
        placed = [] if _forced(problem) else [best]
        ways = _ways(problem)
        for settings, steps in _caches(problem):
            placed += _with_gpu(problem, settings, steps, ways, _least(problem, placed))
        within = [s for s in placed if s.ram.total <= problem.ram_bytes]
        best = min(within or placed or [best], key=lambda s: _rank(problem, s))
    if best.ram.total > problem.ram_bytes:
        gib = 1 << 30
        raise DoesNotFitError(
            f"{problem.spec.name}: {best.ram.total / gib:.1f} GiB of RAM are needed and "
            f"{problem.ram_bytes / gib:.1f} GiB may be used: close programs, choose a smaller "
            "quantization or context (-c)"
        )
    return best


def solve_or_none(problem: Problem) -> Solution | None:
    """The fastest placement; None where there is none."""
    try:
        return solve(problem)
    except DoesNotFitError:
        return None


def _least(problem: Problem, placed: Sequence[Solution]) -> float:
    """Seconds a token of the fastest that RAM holds, which others must beat to be looked at."""
    if problem.limits.use_gpu:
        return inf
    return min((s.token.total for s in placed if s.ram.total <= problem.ram_bytes), default=inf)


def _rank(problem: Problem, solution: Solution) -> tuple[int, float]:
    """The best first: the fastest, or where the GPU is to be used the one with most layers there."""
    layers = solution.placement.n_gpu_layers if problem.limits.use_gpu else 0
    return -layers, solution.token.total


def _forced(problem: Problem) -> bool:
    """Whether flags say what lies on the GPU, faster or not."""
    asked = problem.limits.n_gpu_layers is not None or problem.limits.use_gpu
    return asked or any(layer.experts_on_gpu for layer in problem.model.layers)


def _base_settings(problem: Problem) -> CacheSettings:
    limits = problem.limits
    return CacheSettings(
        ctx_tokens=problem.ctx_tokens,
        type_k=limits.type_k or KVType.F16,
        type_v=limits.type_v or KVType.F16,
        n_batch=limits.n_batch or _BATCHES[0],
        n_slots=limits.n_slots,
    )


def _caches(problem: Problem) -> Iterator[tuple[CacheSettings, tuple[str, ...]]]:
    """Settings with each type of cache that may be chosen, and what of the wishes each gives up."""
    settings = _base_settings(problem)
    yield settings, ()
    if problem.limits.type_k is None and problem.limits.type_v is None and q8_cache_fits(problem.spec):
        yield replace(settings, type_k=KVType.Q8_0, type_v=KVType.Q8_0), ("the cache becomes q8_0",)


def _smaller_batches(
    problem: Problem, settings: CacheSettings, steps: tuple[str, ...]
) -> tuple[CacheSettings, tuple[str, ...]]:
    """The largest batch with which every layer fits; the smallest when none does."""
    wanted = _wanted_layers(problem)
    for n_batch in _BATCHES if problem.limits.n_batch is None else (settings.n_batch,):
        smaller = replace(settings, n_batch=n_batch)
        if _fixed_bytes(problem, smaller)[wanted] <= problem.vram_bytes:
            break
    if smaller.n_batch < settings.n_batch:
        steps = (*steps, f"prompts are read {smaller.n_batch} tokens at a time")
    return smaller, steps


def _wanted_layers(problem: Problem) -> int:
    n_layer, asked = problem.spec.n_layer, problem.limits.n_gpu_layers
    return n_layer if asked is None else min(asked, n_layer)


def q8_cache_fits(spec: ModelSpec) -> bool:
    """Whether every head is a number of q8_0 blocks."""
    heads = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, AttentionLayer)]
    return all(h.head_dim_k % _Q8_BLOCK == 0 and h.head_dim_v % _Q8_BLOCK == 0 for h in heads)


def _all_on_cpu(n_layer: int) -> Placement:
    return Placement((False,) * n_layer, (0,) * n_layer, output_on_gpu=False)


def _on_gpu(n_layer: int, n_gpu_layers: int) -> tuple[bool, ...]:
    """The last `n_gpu_layers` layers, as -ngl places them."""
    return (False,) * (n_layer - n_gpu_layers) + (True,) * n_gpu_layers


def _fixed_bytes(problem: Problem, settings: CacheSettings) -> list[int]:
    """VRAM without routed experts, for every number of layers on the GPU."""
    model = problem.model
    cache = cache_bytes(problem.spec, settings, problem.profile.cache_steps)
    once = _context_bytes(problem) + _gpu_buffers(problem, settings)
    once += 0 if model.head_in_ram else model.head
    layers = (
        layer.dense - layer.dense_in_ram + kv + state
        for layer, kv, state in zip(
            reversed(model.layers), reversed(cache.kv), reversed(cache.state), strict=True
        )
    )
    return [0, *list(accumulate(layers, initial=once))[1:]]


def _context_bytes(problem: Problem) -> int:
    """What the driver takes for itself."""
    return 0 if problem.hardware.gpus[0].emulated else GPU_CONTEXT_BYTES


def _gpu_buffers(problem: Problem, settings: CacheSettings) -> int:
    """Buffers of a step, and those that experts without a slot pass through where the engine streams them."""
    streamed = stream_bytes(problem.model) if problem.profile.per_expert else 0
    return step_bytes(problem.spec, settings.n_batch) + streamed


def _on_cpu(problem: Problem, settings: CacheSettings, steps: tuple[str, ...]) -> Solution:
    return _build(problem, settings, _all_on_cpu(problem.spec.n_layer), steps)


def _with_gpu(
    problem: Problem, settings: CacheSettings, steps: tuple[str, ...], ways: Sequence[_Way], seconds: float
) -> list[Solution]:
    """Numbers of layers on the GPU, with the best experts for each, that take less than `seconds` a token.

    What smaller batches free is for layers: experts get no more room than full batches would leave them, so
    that a larger card, whose batches are full, has no fewer experts.
    """
    placed: list[Solution] = []
    smaller, steps = _smaller_batches(problem, settings, steps)
    n_layer, wanted, vram_bytes = problem.spec.n_layer, _wanted_layers(problem), problem.vram_bytes
    freed = step_bytes(problem.spec, settings.n_batch) - step_bytes(problem.spec, smaller.n_batch)
    fixed = _fixed_bytes(problem, settings)
    room = {n: max(0, vram_bytes - fixed[n]) for n in range(wanted, 0, -1) if fixed[n] - freed <= vram_bytes}
    pinned = _with_room_for_pins(problem, room)
    if room and not pinned:
        problem = _without_pins(problem)
        ways = _ways(problem)
        steps = (*steps, "not all experts that -ot wants on the GPU are there")
    room = _with_slots_asked_for(problem, pinned or room, fixed[wanted])
    if _forced(problem):
        room = dict(list(room.items())[:1])
    bounds = _least_seconds(problem, smaller, ways[0].options)
    head = not problem.model.head_in_ram
    for n_gpu, left in room.items():
        fewest, cheapest = bounds[n_gpu]
        on_cpu = f"{n_layer - n_gpu} of {n_layer} layers are computed by the CPU"
        gave_way = (*steps, on_cpu) if n_gpu < wanted else steps
        for way in ways:
            if max(fewest - way.savings.within(left), cheapest) >= seconds:
                continue
            dense = _on_gpu(n_layer, n_gpu)
            resident = _resident(way.options, dense, left)
            found = _build(problem, smaller, Placement(dense, resident, output_on_gpu=head), gave_way)
            if found.ram.total <= problem.ram_bytes:
                seconds = min(seconds, found.token.total)
            placed.append(found)
    return placed


def _least_seconds(
    problem: Problem, settings: CacheSettings, options: Sequence[Group[int]]
) -> list[tuple[float, float]]:
    """For every number of layers on the GPU, seconds a token with the fewest experts there, and with those
    that take least time whether or not they fit."""
    model, rate, profile = problem.model, problem.rates, problem.profile
    reads = cache_read_bytes(problem.spec, settings, _depth(problem, settings))
    on_cpu = [layer_seconds(layer, reads[i], None, rate, profile)[0] for i, layer in enumerate(model.layers)]
    start = profile.token_s + head_seconds(model, rate, on_gpu=not model.head_in_ram) + sum(on_cpu)
    several_ways = []
    for picked in ([group.options[0] for group in options], [group.cheapest for group in options]):
        moved = [
            layer_seconds(layer, reads[i], picked[i].kind, rate, profile)[0] - on_cpu[i]
            for i, layer in enumerate(model.layers)
        ]
        several_ways.append(accumulate(reversed(moved), initial=start))
    return list(zip(*several_ways, strict=True))


@dataclass(frozen=True, slots=True)
class _Way:
    """How experts may be placed: for every layer the numbers that may lie in VRAM, and what that saves."""

    options: list[Group[int]]
    savings: Savings[int]


def _ways(problem: Problem) -> list[_Way]:
    """What the engine can do; the finer first, which mostly rules whole layers out."""
    kinds = (False, True) if problem.profile.per_expert else (True,)
    found = (_options(problem, whole_layers=whole) for whole in kinds)
    return [_Way(options, Savings(options)) for options in found]


def _options(problem: Problem, *, whole_layers: bool) -> list[Group[int]]:
    """For every layer the numbers of its experts that may lie in VRAM, none first, and seconds for each."""
    rate = problem.rates
    kept_on_cpu = problem.limits.n_cpu_moe or 0
    alike: dict[tuple[LayerBytes, int], Group[int]] = {}
    options = []
    for i, layer in enumerate(problem.model.layers):
        allowed = i >= kept_on_cpu if layer.experts_on_gpu is None else layer.experts_on_gpu
        most = layer.n_expert if allowed else 0
        if problem.limits.n_gpu_experts is not None and layer.experts_on_gpu is None:
            most = _slots_asked_for(problem, i)
            counts: Sequence[int] = [most]
        elif layer.experts_on_gpu:
            counts = [most]
        else:
            counts = sorted({0, most}) if whole_layers else range(most + 1)
        if (layer, most) not in alike:
            alike[layer, most] = Group(
                Option(n, n * layer.expert, expert_seconds(layer, n, rate, problem.profile)[0])
                for n in counts
            )
        options.append(alike[layer, most])
    return options


def _resident(options: Sequence[Group[int]], dense_on_gpu: Sequence[bool], left: int) -> tuple[int, ...]:
    """Experts in VRAM per layer that save most time within `left` bytes."""
    none = Group([Option(0, 0, 0.0)])
    possible = [group if gpu else none for group, gpu in zip(options, dense_on_gpu, strict=True)]
    return tuple(option.kind for option in choose(possible, left).options)


def _with_room_for_pins(problem: Problem, room: dict[int, int]) -> dict[int, int]:
    """Numbers of layers on the GPU with which all experts that -ot rules put into VRAM are there."""
    layers = problem.model.layers
    pinned = [i for i, layer in enumerate(layers) if layer.experts_on_gpu]
    if not pinned:
        return room
    nbytes = sum(layers[i].experts for i in pinned)
    return {n: left for n, left in room.items() if n >= len(layers) - pinned[0] and left >= nbytes}


def _with_slots_asked_for(problem: Problem, room: dict[int, int], taken: int) -> dict[int, int]:
    """Numbers of layers on the GPU that leave room for as many experts of each as --gpu-experts says.

    Raises DoesNotFitError, with the number there is room for, where not even one layer does.
    """
    asked = problem.limits.n_gpu_experts
    if asked is None:
        return room
    slots = [_slots_asked_for(problem, i) * layer.expert for i, layer in enumerate(problem.model.layers)]
    kept = {n: left for n, left in room.items() if sum(slots[len(slots) - n :]) <= left}
    if kept or not room:
        return kept
    mib = 1 << 20
    raise DoesNotFitError(
        f"--gpu-experts {asked}: {asked} experts of each layer take {sum(slots) / mib:,.1f} MiB and all else "
        f"{taken / mib:,.1f} MiB of the {problem.vram_bytes / mib:,.1f} MiB that may be used: give fewer, or "
        "leave the number to the plan"
    )


def _slots_asked_for(problem: Problem, layer: int) -> int:
    """Experts of a layer that --gpu-experts puts into VRAM."""
    asked, bytes_ = problem.limits.n_gpu_experts or 0, problem.model.layers[layer]
    if layer < (problem.limits.n_cpu_moe or 0) or bytes_.experts_on_gpu is not None:
        return 0
    return min(asked, bytes_.n_expert)


def _without_pins(problem: Problem) -> Problem:
    """The same problem with experts free to lie in RAM too."""
    layers = tuple(
        replace(layer, experts_on_gpu=None) if layer.experts_on_gpu else layer
        for layer in problem.model.layers
    )
    return replace(problem, model=replace(problem.model, layers=layers))


def _build(
    problem: Problem, settings: CacheSettings, placement: Placement, steps: tuple[str, ...]
) -> Solution:
    vram, ram = _usage(problem, settings, placement)
    token = _token(problem, settings, placement)
    prefill = prefill_tokens_s(problem.model, placement, problem.rates, settings.n_batch, problem.profile)
    return Solution(settings, placement, vram, ram, token, prefill, _depth(problem, settings), steps)


def _depth(problem: Problem, settings: CacheSettings) -> int:
    depth = problem.limits.depth_tokens
    return settings.ctx_tokens // 4 if depth is None else min(depth, settings.ctx_tokens)


def _token(problem: Problem, settings: CacheSettings, placement: Placement) -> TokenTime:
    reads = cache_read_bytes(problem.spec, settings, _depth(problem, settings))
    return decode(problem.model, reads, placement, problem.rates, problem.profile)


def _usage(problem: Problem, settings: CacheSettings, placement: Placement) -> tuple[Usage, Usage]:
    """(VRAM, RAM) of a placement. Embeddings are looked up in RAM; a tied one is also where the head is."""
    model = problem.model
    cache = cache_bytes(problem.spec, settings, problem.profile.cache_steps)
    buffers = step_bytes(problem.spec, settings.n_batch)
    on_gpu = placement.dense_on_gpu
    any_gpu = placement.n_gpu_layers > 0
    resident = sum(layer.expert * n for layer, n in zip(model.layers, placement.resident, strict=True))
    vram = Usage(
        dense=sum(
            layer.dense - layer.dense_in_ram for layer, gpu in zip(model.layers, on_gpu, strict=True) if gpu
        )
        + (model.head if placement.output_on_gpu else 0),
        experts=resident,
        cache=_cache_of(cache, on_gpu, where=True),
        buffers=_gpu_buffers(problem, settings) if any_gpu else 0,
        overhead=_context_bytes(problem) if any_gpu else 0,
    )
    ram = Usage(
        dense=sum(
            layer.dense_in_ram if gpu else layer.dense
            for layer, gpu in zip(model.layers, on_gpu, strict=True)
        )
        + model.embedding
        + (0 if placement.output_on_gpu else model.output),
        experts=model.experts - resident,
        cache=_cache_of(cache, on_gpu, where=False),
        buffers=buffers,
        overhead=process_bytes(problem.spec),
    )
    return vram, ram


def _cache_of(cache: CacheBytes, on_gpu: Sequence[bool], *, where: bool) -> int:
    layers = zip(cache.kv, cache.state, on_gpu, strict=True)
    return sum(kv + state for kv, state, gpu in layers if gpu is where)
