"""KV cache and recurrent state: sizes, copies, what is refused."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from mixer_reference import Attention, DeltaNet, batch

from pintpot import _native


@pytest.mark.parametrize(("kind", "bytes_a_value"), [("f32", 4), ("f16", 2), ("q8_0", 34 / 32)])
def test_nbytes_counts_blocks_of_64_tokens(kind: str, bytes_a_value: float) -> None:
    cache = _native.KVCache(3, 100, 2, 96, 64, kind, kind)
    assert cache.nbytes == 3 * 128 * 2 * (96 + 64) * bytes_a_value


def test_types_of_keys_and_values_may_differ() -> None:
    assert _native.KVCache(1, 64, 1, 64, 64, "q8_0", "f16").nbytes == 64 * (64 * 34 // 32 + 128)


def test_untouched_pages_cost_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cache = _native.KVCache(4, 100_000, 8, 128, 128, "f16", "f16")
    assert cache.nbytes > 1.6e9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((1, 64, 1, 48, 64, "q8_0", "f16"), "head_dim_k to be a multiple of 32, not 48"),
        ((1, 64, 1, 64, 80, "f16", "q8_0"), "head_dim_v to be a multiple of 32, not 80"),
        ((1, 64, 1, 64, 64, "q4_0", "f16"), "unknown KV cache type 'q4_0'"),
        ((0, 64, 1, 64, 64, "f16", "f16"), "n_slots is 0"),
        ((1, -1, 1, 64, 64, "f16", "f16"), "capacity is -1"),
    ],
)
def test_impossible_caches_are_refused(args: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _native.KVCache(*args)


def test_more_than_the_address_space_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        _native.KVCache(1 << 20, 1 << 30, 1 << 20, 1 << 20, 256, "f32", "f32")


@pytest.mark.parametrize(("capacity", "n_tokens", "window"), [(300, 150, None), (200, 500, 64)])
def test_copy_slot_continues_the_sequence(capacity: int, n_tokens: int, window: int | None) -> None:
    a = Attention(n_rot=16, window=window)
    layer, cache = a.layer(), a.cache(3, capacity)
    x = np.random.default_rng(0).standard_normal((n_tokens + 5, a.n_embd)).astype(np.float32)
    for past in range(0, n_tokens, 100):
        a.run(x[past : min(past + 100, n_tokens)], layer, cache, batch((2, past, min(100, n_tokens - past))))
    cache.copy_slot(2, 0, n_tokens)
    got = a.run(x[n_tokens:], layer, cache, batch((0, n_tokens, 5)))
    want = a.run(x[n_tokens:], layer, cache, batch((2, n_tokens, 5)))
    assert np.array_equal(got, want)


@pytest.mark.parametrize("args", [(0, 2, 1), (-1, 0, 1), (0, 1, -1)])
def test_copy_slot_checks_its_arguments(args: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="on a cache of 2 slots"):
        _native.KVCache(2, 64, 1, 32, 32, "f16", "f16").copy_slot(*args)


def test_delta_state_save_restore_copy_reset() -> None:
    d = DeltaNet()
    layer, state = d.layer(), d.state(3)
    x = np.random.default_rng(0).standard_normal((30, d.n_embd)).astype(np.float32)
    fresh = d.run(x, layer, state, batch((1, 0, 30)))
    saved = state.save(1)
    state.copy_slot(1, 2)
    want = d.run(x, layer, state, batch((1, 30, 30)))
    assert np.array_equal(d.run(x, layer, state, batch((2, 30, 30))), want)
    state.restore(0, saved)
    assert np.array_equal(d.run(x, layer, state, batch((0, 30, 30))), want)
    state.reset(0)
    assert np.array_equal(d.run(x, layer, state, batch((0, 0, 30))), fresh)


def test_delta_state_refuses_what_does_not_fit() -> None:
    state = DeltaNet().state(2)
    for call in (lambda: state.reset(2), lambda: state.copy_slot(0, -1), lambda: state.save(5)):
        with pytest.raises(ValueError, match="of a state with 2 slots"):
            call()
    with pytest.raises(ValueError, match="another shape"):
        state.restore(0, state.save(0)[:-4])
    with pytest.raises(ValueError, match="conv_kernel is 9"):
        _native.DeltaState(1, 2, 32, 32, 192, 9)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([(-1, 0, 1)], "negative slot"),
        ([(0, -1, 1)], "past -1"),
        ([(0, 0, 0)], "length 0"),
        ([(0, 2**30, 1)], "out of range"),
        ([(0, 0, 1), (0, 1, 1)], "slot 0 appears twice"),
    ],
)
def test_batches_are_checked(segments: list[tuple[int, int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch(*segments)


def test_batch_takes_arrays_and_lists() -> None:
    assert batch((3, 0, 4), (1, 7, 1)).n_tokens == 5
    assert _native.Batch([3, 1], [0, 7], [4, 1]).n_tokens == 5
    with pytest.raises(ValueError, match="equally long"):
        _native.Batch([3, 1], [0], [4, 1])
