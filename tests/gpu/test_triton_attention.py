"""Attention over the cache against plain torch: split and whole, rings, and every kind of cache."""

from __future__ import annotations

import pytest
import torch
from weights import ON_GPU

from pintpot.kernels.api import Segment
from pintpot.kernels.reference_state import ReferenceKVCache
from pintpot.kernels.triton.attention import AttentionShape, attend, attend_reference
from pintpot.kernels.triton.batch import DeviceBatch, device_batch
from pintpot.kernels.triton.kv_cache import DeviceKVCache
from pintpot.spec.cache import KVLayout, KVType

DECODE = (Segment(1, 40, 1), Segment(0, 3, 1))
PREFILL = (Segment(0, 0, 19), Segment(2, 30, 3))
FEW = (Segment(2, 37, 4),)


def randn(*shape: int, device: str, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def filled(
    shape: AttentionShape, segments: tuple[Segment, ...], kind: KVType, capacity: int, device: str
) -> tuple[DeviceKVCache, DeviceBatch]:
    """A cache that holds the past of every segment, written 16 tokens at a time, and the step's keys."""
    layout = KVLayout(3, capacity, shape.n_head_kv, shape.head_dim_k, shape.head_dim_v, kind, kind)
    cache = DeviceKVCache(layout, device)
    past = [Segment(s.slot, at, min(16, s.past - at)) for s in segments for at in range(0, s.past, 16)]
    for i, part in enumerate([(p,) for p in past] + [segments]):
        batch = device_batch(part, device)
        k = randn(batch.n_tokens, shape.n_head_kv, shape.head_dim_k, device=device, seed=2 * i)
        v = randn(batch.n_tokens, shape.n_head_kv, shape.head_dim_v, device=device, seed=2 * i + 1)
        cache.store(batch, k, v)
    return cache, batch


def check(
    shape: AttentionShape,
    segments: tuple[Segment, ...],
    device: str,
    *,
    kind: KVType = KVType.F32,
    capacity: int = 64,
    splits: int | None = None,
    with_sinks: bool = False,
    with_gate: bool = False,
) -> None:
    cache, batch = filled(shape, segments, kind, capacity, device)
    n, h, dk = batch.n_tokens, shape.n_head, shape.head_dim_k
    sinks = randn(h, device=device, seed=90) if with_sinks else None
    fused = randn(n, h, 2 * dk, device=device, seed=91)  # q and gate within each head
    q = fused[..., :dk].contiguous()
    gate = fused.view(-1)[dk:] if with_gate else None
    y = attend(
        q, cache, batch, shape,
        sinks=sinks, gate=gate, gate_stride=2 * dk, splits=splits, dot_dtype=torch.float32,
    )  # fmt: skip
    plain_gate = fused[..., dk:].reshape(n, -1) if with_gate else None
    expected = attend_reference(q, cache, batch, shape, sinks=sinks, gate=plain_gate)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-6)


GQA = AttentionShape(6, 2, 24, 24, 0.2)


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("segments", [DECODE, PREFILL, FEW], ids=["decode", "prefill", "few"])
def test_grouped_heads(segments: tuple[Segment, ...], splits: int, device: str) -> None:
    check(GQA, segments, device, splits=splits)


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("segments", [DECODE, PREFILL], ids=["decode", "prefill"])
def test_all_at_once(segments: tuple[Segment, ...], splits: int, device: str) -> None:
    """A window in a ring, sinks, a soft cap and a gate; keys and values of one width."""
    shape = AttentionShape(4, 1, 10, 10, 0.3, window=7, softcap=2.0)
    check(shape, segments, device, capacity=32, splits=splits, with_sinks=True, with_gate=True)


@pytest.mark.parametrize("kind", [KVType.F16, KVType.Q8_0], ids=lambda k: k.name)
@pytest.mark.parametrize("segments", [DECODE, PREFILL], ids=["decode", "prefill"])
def test_smaller_caches(kind: KVType, segments: tuple[Segment, ...], device: str) -> None:
    check(AttentionShape(3, 3, 64, 96, 0.125), segments, device, kind=kind)


def test_widths_of_keys_and_values_differ(device: str) -> None:
    check(AttentionShape(4, 2, 16, 40, 0.25, window=20), PREFILL, device, splits=2)


def test_parts_may_be_empty(device: str) -> None:
    check(GQA, (Segment(0, 0, 1), Segment(1, 2, 1)), device, splits=8, with_sinks=True)


@pytest.mark.skipif(not ON_GPU, reason="the interpreter adds half-precision products in half precision")
def test_half_precision(device: str) -> None:
    cache, batch = filled(GQA, PREFILL, KVType.F16, 64, device)
    q = randn(batch.n_tokens, 6, 24, device=device, seed=3)
    y = attend(q, cache, batch, GQA)
    torch.testing.assert_close(y, attend_reference(q, cache, batch, GQA), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", list(KVType), ids=lambda k: k.name)
def test_the_cache_holds_what_the_reference_holds(kind: KVType, device: str) -> None:
    layout = KVLayout(2, 8, 2, 64, 32, kind, kind)
    cache, reference = DeviceKVCache(layout, device), ReferenceKVCache(layout, torch.float32)
    for i, segments in enumerate([(Segment(0, 0, 5),), (Segment(1, 0, 2), Segment(0, 5, 6))]):
        n = sum(s.n for s in segments)
        k, v = randn(n, 2, 64, device="cpu", seed=i), randn(n, 2, 32, device="cpu", seed=9 + i)
        k[0, 0, :32] = 0  # a block without a scale
        cache.store(device_batch(segments, device), k.to(device), v.to(device))
        reference.store(segments, k, v)
    cache.copy_slot(0, 1, 11)
    reference.copy_slot(0, 1, 11)
    at = torch.arange(3, 11) % layout.capacity
    for slot in (0, 1):
        for ours, theirs in zip((cache.k, cache.v), reference.load(slot, 3, 11), strict=True):
            torch.testing.assert_close(ours.floats().cpu()[slot, at], theirs, rtol=0, atol=0)
    assert cache.nbytes == layout.n_slots * layout.capacity * layout.token_bytes
