"""Attention at every kernel level against float64 NumPy.

The reference rounds keys and values as the cache does, so the tolerances below leave room only for float32
sums and, in f16 and q8_0, for values that fall on the other side of a rounding boundary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mixer_reference import Attention, batch, matrix, relative_error

from pintpot import _native

TOLERANCE = {"f32": 5e-6, "f16": 2e-4, "q8_0": 3e-3}

pytestmark = pytest.mark.usefixtures("isa")


def tokens(n: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def check_sequence(
    a: Attention, steps: tuple[int, ...], kind: str, kind_v: str, capacity: int, tolerance: float = 0.0
) -> None:
    x = tokens(sum(steps), a.n_embd)
    keys, values = a.keys_values(x.astype(np.float64), 0, kind, kind_v)
    layer, cache = a.layer(), a.cache(2, capacity, kind, kind_v)
    past, tolerance = 0, tolerance or max(TOLERANCE[kind], TOLERANCE[kind_v])
    for n in steps:
        end = past + n
        got = a.run(x[past:end], layer, cache, batch((1, past, n)))[-100:]
        checked = end - len(got)  # of a long prompt only the last tokens: the reference is slow
        want = a.reference(x[checked:end], checked, keys[:end], values[:end])
        assert relative_error(got, want) < tolerance, (past, n)
        past = end


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_head": 3, "n_head_kv": 3, "head_dim_k": 80, "head_dim_v": 80, "n_rot": 80, "scale": 0.11},
        {"n_head": 7, "n_head_kv": 1, "head_dim_k": 64, "head_dim_v": 96, "bias": True, "n_rot": 64},
        {"n_head": 16, "n_head_kv": 2, "head_dim_k": 256, "head_dim_v": 256, "n_rot": 64, "gated": True,
         "qk_norm": True, "scale": 1 / 16},
        {"n_head": 8, "n_head_kv": 4, "head_dim_k": 512, "head_dim_v": 128, "softcap": 3.0, "scale": 0.05},
        {"head_dim_k": 20, "head_dim_v": 24, "n_rot": 12, "interleaved": True, "mscale": 1.2, "sinks": True},
        {"has_v": False, "v_norm": True, "qk_norm": True, "n_rot": 32, "scale": 1.0},
        {"n_head": 130, "n_head_kv": 2, "sinks": True, "window": 9, "bias": True},
    ],
    ids=["plain", "mha", "mqa", "qwen35", "softcap", "odd", "v_is_k", "wide_group"],
)  # fmt: skip
def test_geometries(options: dict[str, Any]) -> None:
    check_sequence(Attention(**options), (1, 2, 70, 1, 1, 37, 5), "f32", "f32", 128)


@pytest.mark.parametrize(
    ("kind", "kind_v"), [("f16", "f16"), ("q8_0", "q8_0"), ("f16", "q8_0"), ("q8_0", "f32")]
)
def test_stored_types(kind: str, kind_v: str) -> None:
    a = Attention(n_head=8, n_head_kv=2, head_dim_k=64, head_dim_v=96, n_rot=32)
    check_sequence(a, (3, 1, 64, 1, 20, 7), kind, kind_v, 100)


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_deep_context_is_split_and_merged(kind: str) -> None:
    a = Attention(n_head=8, n_head_kv=2, head_dim_k=32, head_dim_v=32, n_rot=32, sinks=True)
    check_sequence(a, (2999, 1, 1, 40, 1), kind, kind, 3100)


@pytest.mark.parametrize("window", [1, 2, 63, 64, 65, 100])
@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_windows_and_wrap_around(window: int, kind: str) -> None:
    """The ring is as small as the layer allows, so every row is overwritten several times."""
    a = Attention(window=window, n_rot=16, sinks=True)
    check_sequence(a, (50, 1, 1, 60, 64, 1, 33, 60, 1, 64, 64), kind, kind, window + 63)


def test_faint_keys_behind_a_loud_one_add_up() -> None:
    """Integer weights of q8_0 values are relative to their own block, not to the loudest key of all."""
    a = Attention(n_head=2, n_head_kv=2, scale=0.12)
    a.w["wk"] = a.w["wq"]  # queries meet keys like themselves
    rng = np.random.default_rng(4)
    base = rng.standard_normal(a.n_embd)
    x = (base + 0.1 * rng.standard_normal((1500, a.n_embd))).astype(np.float32)
    x[0] = 3 * base
    keys, values = a.keys_values(x.astype(np.float64), 0, "q8_0", "q8_0")
    layer, cache = a.layer(), a.cache(1, 1500, "q8_0")
    a.run(x[:-1], layer, cache, batch((0, 0, 1499)))
    got = a.run(x[-1:], layer, cache, batch((0, 1499, 1)))
    assert relative_error(got, a.reference(x[-1:], 1499, keys, values)) < TOLERANCE["q8_0"]


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_segments_in_one_batch_equal_segments_alone(kind: str) -> None:
    a = Attention(n_head=6, n_head_kv=2, n_rot=32, window=200)
    layer, together, alone = a.layer(), a.cache(6, 1300, kind), a.cache(6, 1300, kind)
    history = {4: 1203, 0: 0, 5: 64, 2: 7}  # slot: past
    lengths = {4: 1, 0: 66, 5: 3, 2: 1}
    for slot, past in history.items():
        if past:
            x = tokens(past, a.n_embd, slot)
            for cache in (together, alone):
                a.run(x, layer, cache, batch((slot, 0, past)))
    x = {slot: tokens(n, a.n_embd, 100 + slot) for slot, n in lengths.items()}
    b = batch(*((slot, history[slot], n) for slot, n in lengths.items()))
    got = a.run(np.concatenate(list(x.values())), layer, together, b)
    want = [a.run(x[s], layer, alone, batch((s, history[s], n))) for s, n in lengths.items()]
    np.testing.assert_array_equal(got, np.concatenate(want))


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_threads_do_not_change_a_bit(kind: str) -> None:
    a = Attention(n_head=8, n_head_kv=2, n_rot=32, gated=True)
    layer, results = a.layer(), []
    for threads in (1, 2, 3, 4):
        cache, engine = a.cache(2, 2200, kind), _native.Engine(threads)
        outs = []
        for past, n in ((0, 2000), (2000, 1), (2001, 30)):
            x = tokens(n + 1, a.n_embd, past)
            b = batch((1, past, n), (0, past // 1000, 1))
            outs.append(a.run(x, layer, cache, b, engine=engine))
        results.append(np.concatenate(outs))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_a_layer_without_keys_reads_anothers_cache() -> None:
    owner, reader = Attention(n_rot=32), Attention(n_rot=32, has_k=False, n_head=8, seed=3)
    x = tokens(90, owner.n_embd)
    cache = owner.cache(1, 90)
    keys, values = owner.keys_values(x.astype(np.float64), 0, "f32", "f32")
    for past, n in ((0, 89), (89, 1)):
        b, step = batch((0, past, n)), x[past : past + n]
        owner.run(step, owner.layer(), cache, b)
        got = reader.run(step, reader.layer(), cache, b)
        want = reader.reference(step, past, keys[: past + n], values[: past + n])
        assert relative_error(got, want) < TOLERANCE["f32"]


def test_far_positions_rotate_exactly() -> None:
    """A window keeps the cache small while positions run to a million."""
    past = 1_000_000
    a = Attention(n_rot=32, window=4)
    layer, cache = a.layer(), a.cache(1, 8)
    x = tokens(5, a.n_embd)
    keys, values = a.keys_values(x.astype(np.float64), past, "f32", "f32")
    a.run(x[:4], layer, cache, batch((0, past, 4)))
    got = a.run(x[4:], layer, cache, batch((0, past + 4, 1)))
    want = a.reference(x[4:], past + 4, keys, values)
    assert relative_error(got, want) < TOLERANCE["f32"]


@pytest.mark.parametrize("stale", [1e4, np.nan])
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_stale_rows_of_a_slot_do_not_leak(kind: str, stale: float) -> None:
    """What an earlier sequence left is masked, not multiplied by zero."""
    a = Attention(n_rot=32)
    layer, used, fresh = a.layer(), a.cache(1, 128, kind), a.cache(1, 128, kind)
    a.run(tokens(128, a.n_embd) * np.float32(stale), layer, used, batch((0, 0, 128)))
    x = tokens(70, a.n_embd, 5)
    for past, n in ((0, 1), (1, 3), (4, 66)):
        step, b = x[past : past + n], batch((0, past, n))
        np.testing.assert_array_equal(a.run(step, layer, used, b), a.run(step, layer, fresh, b))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("n", [3, 70])  # few rows read the stored values, many an unpacked block
def test_a_token_that_is_not_finite_reaches_those_that_see_it_and_no_others(
    n: int, kind: str, bad: float
) -> None:
    for window in (None, 9):
        a = Attention(n_rot=32, window=window)
        layer, x, at = a.layer(), tokens(n, a.n_embd), n // 2
        clean = a.run(x, layer, a.cache(1, 128, kind), batch((0, 0, n)))
        x[at] = bad
        got = a.run(x, layer, a.cache(1, 128, kind), batch((0, 0, n)))
        end = min(n, at + (window or n))
        np.testing.assert_array_equal(got[:at], clean[:at])
        assert not np.isfinite(got[at:end]).any()
        np.testing.assert_array_equal(got[end:], clean[end:])


def test_large_scores_do_not_overflow() -> None:
    """Scores of about 1000: their float32 rounding alone is 6e-5 in the exponent."""
    a = Attention(scale=50.0)
    check_sequence(a, (40, 1), "f32", "f32", 64, tolerance=5e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cache": (2, 64, 2, 32, 64)}, "other heads than the layer"),
        ({"cache": (2, 64, 1, 32, 32)}, "other heads than the layer"),
        ({"segment": (2, 0, 4)}, "slot 2 is beyond the cache's 2"),
        ({"segment": (0, 61, 4)}, "holds 64 tokens, slot 0 needs 65"),
        ({"segment": (0, 0, 3)}, "tokens of the batch"),
        ({"width": 47}, "n_embd"),
    ],
)
def test_misfits_are_refused(change: dict[str, Any], message: str) -> None:
    a = Attention()
    cache = _native.KVCache(*change.get("cache", (2, 64, 2, 32, 32)), "f16", "f16")
    x = np.zeros((4, change.get("width", a.n_embd)), np.float32)
    with pytest.raises(ValueError, match=message):
        a.run(x, a.layer(), cache, batch(change.get("segment", (0, 0, 4))))


def test_a_windowed_ring_that_is_too_small_is_refused() -> None:
    a = Attention(window=30)
    x = np.zeros((8, a.n_embd), np.float32)
    with pytest.raises(ValueError, match="holds 36 tokens, slot 0 needs 37"):
        a.run(x, a.layer(), a.cache(1, 36), batch((0, 500, 8)))
    a.run(x, a.layer(), a.cache(1, 37), batch((0, 500, 8)))


@pytest.mark.parametrize(
    ("options", "weights", "message"),
    [
        ({"n_head": 5}, {}, "n_head 5 is no positive multiple of n_head_kv 2"),
        ({}, {"wk": np.zeros((63, 48))}, "wk is 63 x 48, expected 64 x 48"),
        ({}, {"wo": np.zeros((48, 64))}, "wo is 48 x 64, expected 48 x 128"),
        ({}, {"bq": np.zeros(5)}, "bq has 5 values, expected 128"),
        ({}, {"wk": None}, "wv needs wk"),
        ({"n_rot": 34}, {}, "rope_inv_freq has 17 values"),
        ({"gated": True, "head_dim_v": 64}, {}, "needs head_dim_v equal to head_dim_k"),
        ({"has_v": False, "head_dim_v": 64}, {}, "needs head_dim_v equal to head_dim_k"),
        ({"window": 0}, {}, "window must be at least 1"),
    ],
)
def test_impossible_layers_are_refused(
    options: dict[str, Any], weights: dict[str, Any], message: str
) -> None:
    a = Attention(**options)
    a.w |= {k: v if v is None else v.astype(np.float32) for k, v in weights.items()}
    with pytest.raises(ValueError, match=message):
        a.layer()


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(TypeError):
        _native.AttentionLayer(wq=matrix(np.zeros((4, 4))), rope_theta=1e4)
