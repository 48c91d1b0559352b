"""Where a model's parts go under given limits, and what had to give way.

In VRAM come first, in this order: every layer's dense weights, its cache, the output head and the buffers
of a step. Routed experts get what is left, as slots in every layer or as whole layers, whichever is faster.
What does not fit gives way in a stated order: a q8_0 cache, smaller batches, then layers from the front of
the model move to the CPU with their caches. The context is never cut behind the user's back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pintpot.errors import PintpotError
from pintpot.hardware.machine import Hardware
from pintpot.knapsack import Option, choose
from pintpot.planner.limits import Limits
from pintpot.planner.memory import (
    CacheBytes,
    CacheSettings,
    LayerBytes,
    ModelBytes,
    cache_bytes,
    cache_read_bytes,
    step_bytes,
)
from pintpot.planner.profile import EngineProfile
from pintpot.planner.speed import Placement, Rates, TokenTime, decode, expert_seconds, prefill_tokens_s, rates
from pintpot.spec import AttentionLayer, ModelSpec
from pintpot.spec.cache import KVType

DEFAULT_CTX_TOKENS: Final = 32_768
GPU_CONTEXT_BYTES: Final = 400 << 20  # CUDA context, kernels and library workspaces: to be measured on a GPU
PROCESS_BYTES: Final = 150 << 20  # the interpreter, its libraries and a tokenizer
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
        return self.limits.ctx_tokens or min(self.spec.ctx_train, DEFAULT_CTX_TOKENS)

    @property
    def rates(self) -> Rates:
        return rates(self.hardware, self.profile, self.limits.n_threads)


def solve(problem: Problem) -> Solution:
    """The fastest placement within the limits. Raises DoesNotFitError, which says what is missing."""
    best: Solution | None = None
    for settings, steps in _ladder(problem):
        fixed = _fixed_bytes(problem, settings, problem.spec.n_layer)
        if problem.vram_bytes and (fixed <= problem.vram_bytes or _last_rung(problem, settings)):
            best = _with_gpu(problem, settings, steps)
            break
    if best is None:
        best = _build(problem, _base_settings(problem), _all_on_cpu(problem.spec.n_layer), ())
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


def _base_settings(problem: Problem) -> CacheSettings:
    limits = problem.limits
    return CacheSettings(
        ctx_tokens=problem.ctx_tokens,
        type_k=limits.type_k or KVType.F16,
        type_v=limits.type_v or KVType.F16,
        n_batch=limits.n_batch or _BATCHES[0],
    )


def _ladder(problem: Problem) -> Iterator[tuple[CacheSettings, tuple[str, ...]]]:
    """Settings in the order in which they give way, each with what was given up so far."""
    settings = _base_settings(problem)
    steps: tuple[str, ...] = ()
    yield settings, steps
    if problem.limits.type_k is None and problem.limits.type_v is None and q8_cache_fits(problem.spec):
        settings = replace(settings, type_k=KVType.Q8_0, type_v=KVType.Q8_0)
        steps = (*steps, "the cache becomes q8_0")
        yield settings, steps
    if problem.limits.n_batch is None:
        for n_batch in _BATCHES[1:]:
            settings = replace(settings, n_batch=n_batch)
            steps = (*steps, f"prompts are read {n_batch} tokens at a time")
            yield settings, steps


def _last_rung(problem: Problem, settings: CacheSettings) -> bool:
    *_, (last, _) = _ladder(problem)
    return settings == last


def q8_cache_fits(spec: ModelSpec) -> bool:
    """Whether every head is a number of q8_0 blocks."""
    heads = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, AttentionLayer)]
    return all(h.head_dim_k % _Q8_BLOCK == 0 and h.head_dim_v % _Q8_BLOCK == 0 for h in heads)


def _all_on_cpu(n_layer: int) -> Placement:
    return Placement((False,) * n_layer, (0,) * n_layer, output_on_gpu=False)


def _on_gpu(n_layer: int, n_gpu_layers: int) -> tuple[bool, ...]:
    """The last `n_gpu_layers` layers, as -ngl places them."""
    return tuple(i >= n_layer - n_gpu_layers for i in range(n_layer))


def _fixed_bytes(problem: Problem, settings: CacheSettings, n_gpu_layers: int) -> int:
    """VRAM without routed experts."""
    n_layer = problem.spec.n_layer
    head = n_gpu_layers > 0 and not problem.model.head_in_ram
    placement = Placement(_on_gpu(n_layer, n_gpu_layers), (0,) * n_layer, output_on_gpu=head)
    return _usage(problem, settings, placement)[0].total


def _with_gpu(problem: Problem, settings: CacheSettings, steps: tuple[str, ...]) -> Solution:
    n_layer = problem.spec.n_layer
    wanted = n_layer if problem.limits.n_gpu_layers is None else min(problem.limits.n_gpu_layers, n_layer)
    # Every layer takes more, so the most that fits is found by halving.
    n_gpu = bisect_right(
        range(1, wanted + 1), problem.vram_bytes, key=lambda n: _fixed_bytes(problem, settings, n)
    )
    if n_gpu < wanted:
        steps = (*steps, f"{n_layer - n_gpu} of {n_layer} layers are computed by the CPU")
    if n_gpu == 0:
        return _build(problem, settings, _all_on_cpu(n_layer), steps)
    dense = _on_gpu(n_layer, n_gpu)
    left = problem.vram_bytes - _fixed_bytes(problem, settings, n_gpu)
    if not _pinned_fit(problem, dense, left):
        problem = _without_pins(problem)
        steps = (*steps, "not all experts that -ot wants on the GPU are there")
    candidates = [_resident(problem, dense, left, whole_layers=True)]
    if problem.profile.per_expert:
        candidates.append(_resident(problem, dense, left, whole_layers=False))
    head = not problem.model.head_in_ram
    placed = [_build(problem, settings, Placement(dense, r, output_on_gpu=head), steps) for r in candidates]
    return min(placed, key=lambda solution: solution.token.total)


def _resident(
    problem: Problem, dense_on_gpu: Sequence[bool], left: int, *, whole_layers: bool
) -> tuple[int, ...]:
    """Experts in VRAM per layer that save most time within `left` bytes."""
    rate = problem.rates
    kept_on_cpu = problem.limits.n_cpu_moe or 0
    known: dict[tuple[LayerBytes, int], list[Option[int]]] = {}  # most layers are alike
    options = []
    for i, layer in enumerate(problem.model.layers):
        allowed = i >= kept_on_cpu if layer.experts_on_gpu is None else layer.experts_on_gpu
        most = layer.n_expert if dense_on_gpu[i] and allowed else 0
        if (layer, most) not in known:
            counts = (
                [most] if layer.experts_on_gpu else sorted({0, most}) if whole_layers else range(most + 1)
            )
            known[layer, most] = [
                Option(n, n * layer.expert, expert_seconds(layer, n, rate, problem.profile)[0])
                for n in counts
            ]
        options.append(known[layer, most])
    return tuple(option.kind for option in choose(options, left).options)


def _pinned_fit(problem: Problem, dense_on_gpu: Sequence[bool], left: int) -> bool:
    """Whether the experts that -ot rules put into VRAM have room and their layers are there."""
    pinned = [
        (layer, gpu)
        for layer, gpu in zip(problem.model.layers, dense_on_gpu, strict=True)
        if layer.experts_on_gpu
    ]
    return all(gpu for _, gpu in pinned) and sum(layer.experts for layer, _ in pinned) <= left


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
    depth = problem.limits.depth_tokens
    depth = settings.ctx_tokens // 4 if depth is None else min(depth, settings.ctx_tokens)
    reads = cache_read_bytes(problem.spec, settings, depth)
    token = decode(problem.model, reads, placement, problem.rates, problem.profile)
    prefill = prefill_tokens_s(problem.model, placement, problem.rates, settings.n_batch, problem.profile)
    return Solution(settings, placement, vram, ram, token, prefill, depth, steps)


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
        buffers=buffers if any_gpu else 0,
        overhead=GPU_CONTEXT_BYTES if any_gpu else 0,
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
        overhead=PROCESS_BYTES,
    )
    return vram, ram


def _cache_of(cache: CacheBytes, on_gpu: Sequence[bool], *, where: bool) -> int:
    layers = zip(cache.kv, cache.state, on_gpu, strict=True)
    return sum(kv + state for kv, state, gpu in layers if gpu is where)
