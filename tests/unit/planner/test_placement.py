"""Placements keep their limits, more room never hurts, small problems are solved as by trying everything."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pintpot.hardware.words import describe
from pintpot.planner.limits import Limits
from pintpot.planner.memory import (
    CacheSettings,
    LayerBytes,
    ModelBytes,
    TensorSize,
    cache_bytes,
    cache_read_bytes,
    step_bytes,
    stream_bytes,
    weigh,
)
from pintpot.planner.placement import GPU_CONTEXT_BYTES, DoesNotFitError, Problem, solve
from pintpot.planner.profile import LLAMA_CPP, PINTPOT, EngineProfile
from pintpot.planner.speed import Placement, decode
from pintpot.spec import ModelSpec
from pintpot.spec.cache import KVType
from pintpot.store import catalog

GIB = 1 << 30
MODELS = ("qwen3.5:35b-a3b", "qwen3:8b", "gpt-oss:20b", "gemma4:26b-a4b", "qwen3:30b-a3b")


@cache
def weights(name: str, quant: str) -> tuple[ModelSpec, ModelBytes]:
    entry, _ = catalog.find(name)
    ne = dict(entry.tensors())
    sizes = [TensorSize(n, nbytes, prod(ne[n])) for n, nbytes in entry.tensor_bytes(quant)]
    return entry.spec(), weigh(entry.spec(), sizes)


def problem(
    name: str = MODELS[0],
    quant: str = "Q4_K_M",
    *,
    vram_gib: float = 0.0,
    ram_gib: float = 64.0,
    profile: EngineProfile = PINTPOT,
    limits: Limits | None = None,
) -> Problem:
    spec, model = weights(name, quant)
    gpu = f"{vram_gib}GiB" if vram_gib else None
    hardware = describe("RTX 4090" if gpu else "none", gpu, f"{ram_gib}GiB", "60GB/s", 8, None)
    return Problem(spec, model, hardware, limits or Limits(), profile)


machines = {
    "name": st.sampled_from(MODELS),
    "quant": st.sampled_from(["Q2_K", "Q4_K_M", "Q6_K", "Q8_0"]),
    "vram_gib": st.just(0.0) | st.floats(0.5, 64.0),
    "ram_gib": st.floats(2.0, 192.0),
    "profile": st.sampled_from([PINTPOT, LLAMA_CPP]),
    "ctx": st.sampled_from([None, 4096, 32_768, 131_072]),
    "kv": st.sampled_from([None, KVType.F16, KVType.Q8_0]),
    "ngl": st.sampled_from([None, 0, 5, 99]),
    "ncmoe": st.sampled_from([None, 0, 10, 99]),
}


@settings(max_examples=2000, deadline=None)
@given(**machines)
def test_limits_are_kept(name, quant, vram_gib, ram_gib, profile, ctx, kv, ngl, ncmoe) -> None:
    limits = Limits(ctx_tokens=ctx, type_k=kv, type_v=kv, n_gpu_layers=ngl, n_cpu_moe=ncmoe)
    p = problem(name, quant, vram_gib=vram_gib, ram_gib=ram_gib, profile=profile, limits=limits)
    try:
        s = solve(p)
    except DoesNotFitError:
        return
    assert s.vram.total <= p.vram_bytes
    assert s.ram.total <= p.ram_bytes
    assert ctx is None or s.settings.ctx_tokens == ctx
    assert kv is None or s.settings.type_k is kv
    if ngl is not None:
        assert s.placement.n_gpu_layers <= ngl
    for i, resident in enumerate(s.placement.resident):
        assert 0 <= resident <= p.model.layers[i].n_expert
        assert resident == 0 or s.placement.dense_on_gpu[i]
        assert resident == 0 or ncmoe is None or i >= ncmoe
        assert profile.per_expert or resident in (0, p.model.layers[i].n_expert)
    assert s.token.total > 0
    assert s.prefill_tokens_s > 1 / s.token.total * 0.9  # a batch is never slower than one at a time


@settings(max_examples=1000, deadline=None)
@given(
    name=machines["name"],
    quant=machines["quant"],
    profile=machines["profile"],
    ctx=machines["ctx"],
    kv=machines["kv"],
    vram_gib=st.floats(0.6, 32.0),
    more_gib=st.floats(0.01, 8.0),
)
def test_more_vram_is_never_slower(name, quant, profile, ctx, kv, vram_gib, more_gib) -> None:
    limits = Limits(ctx_tokens=ctx, type_k=kv, type_v=kv)
    less, more = (
        solve(problem(name, quant, vram_gib=v, ram_gib=256.0, profile=profile, limits=limits))
        for v in (vram_gib, vram_gib + more_gib)
    )
    assert more.token.total <= less.token.total * (1 + 1e-9)


@settings(max_examples=300, deadline=None)
@given(
    n_expert=st.integers(1, 4),
    sizes=st.lists(st.sampled_from([30, 40, 70]), min_size=1, max_size=3),
    slots=st.integers(0, 14),
    profile=st.sampled_from([PINTPOT, LLAMA_CPP]),
    gpu_gb_s=st.sampled_from([1008, 60, 20]),  # some are slower than RAM
)
def test_small_problems_are_solved_as_by_trying_everything(n_expert, sizes, slots, profile, gpu_gb_s) -> None:
    base = problem(vram_gib=24.0, profile=profile)
    gpu = replace(base.hardware.gpus[0], bandwidth_bytes_s=gpu_gb_s * 1e9)
    base = replace(base, hardware=replace(base.hardware, gpus=(gpu,)))
    mib = 1 << 20
    layers = tuple(LayerBytes(mib, size * mib * n_expert, n_expert, min(2, n_expert)) for size in sizes)
    spec = replace(base.spec, n_layer=len(layers), layers=base.spec.layers[: len(layers)])
    model = replace(base.model, layers=layers, embedding=0, output=mib)
    p = replace(
        base, spec=spec, model=model, limits=Limits(type_k=KVType.F16, type_v=KVType.F16, n_batch=128)
    )
    empty = Placement((True,) * len(layers), (0,) * len(layers), output_on_gpu=True)
    p = replace(p, limits=replace(p.limits, vram_bytes=vram_bytes(p, empty) + (slots - 2) * 30 * mib))
    assert solve(p).token.total == pytest.approx(min(_all_times(p)))


def vram_bytes(p: Problem, placement: Placement) -> int:
    settings = CacheSettings(32_768, n_batch=128)
    layers = range(len(p.model.layers))
    if not any(placement.dense_on_gpu):
        return 0
    cache = cache_bytes(p.spec, settings, p.profile.cache_steps)
    return (
        sum(
            p.model.layers[i].dense + cache.kv[i] + cache.state[i]
            for i in layers
            if placement.dense_on_gpu[i]
        )
        + sum(p.model.layers[i].expert * placement.resident[i] for i in layers)
        + p.model.head
        + step_bytes(p.spec, settings.n_batch)
        + (stream_bytes(p.model) if p.profile.per_expert else 0)
        + GPU_CONTEXT_BYTES
    )


def _all_times(p: Problem) -> list[float]:
    """Seconds a token of every placement that the limit allows."""
    layers = p.model.layers
    reads = cache_read_bytes(p.spec, CacheSettings(32_768), 8192)
    times = []
    for n_gpu in range(len(layers) + 1):
        dense = tuple(i >= len(layers) - n_gpu for i in range(len(layers)))
        counts = [
            ((0,) if not gpu else range(layer.n_expert + 1) if p.profile.per_expert else (0, layer.n_expert))
            for layer, gpu in zip(layers, dense, strict=True)
        ]
        for resident in product(*counts):
            placement = Placement(dense, resident, output_on_gpu=n_gpu > 0)
            if vram_bytes(p, placement) <= p.vram_bytes:
                times.append(decode(p.model, reads, placement, p.rates, p.profile).total)
    return times


def test_what_gives_way_is_said_in_order() -> None:
    assert solve(problem(ram_gib=64.0)).steps == ()
    assert solve(problem(vram_gib=24.0)).steps == ("the cache becomes q8_0",)  # faster
    assert solve(problem(vram_gib=24.0, limits=Limits(type_k=KVType.F16, type_v=KVType.F16))).steps == ()
    tight = solve(problem(vram_gib=3.0, limits=Limits(ctx_tokens=131_072)))
    assert tight.steps[0] == "the cache becomes q8_0"
    assert any("layers are computed by the CPU" in step for step in tight.steps)
    assert tight.settings.ctx_tokens == 131_072


def test_too_small_a_machine() -> None:
    with pytest.raises(DoesNotFitError, match=r"GiB of RAM are needed .* smaller quantization"):
        solve(problem(quant="Q8_0", ram_gib=8.0))


def test_published_llama_cpp_speeds() -> None:
    """RTX 5080 with 77 GB/s of RAM, 65K context, q8_0 cache (design: published figures), within a quarter."""
    for quant, n_cpu_moe, published in (("Q8_0", 99, 35.7), ("Q4_K_M", 99, 51.0), ("Q4_K_M", 24, 69.6)):
        spec, model = weights(MODELS[0], quant)
        hardware = describe("RTX 5080", None, "64GiB", "77GB/s", 16, None)
        limits = Limits(
            ctx_tokens=65_536, type_k=KVType.Q8_0, type_v=KVType.Q8_0, n_cpu_moe=n_cpu_moe, depth_tokens=1000
        )
        s = solve(Problem(spec, model, hardware, limits, LLAMA_CPP))
        assert s.token.tokens_s == pytest.approx(published, rel=0.25)
