"""How a sequence is cut into steps, and what else is in a step, makes no difference."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import load, new_state, relative_error, run, tokens

from pintpot.kernels.api import Segment
from pintpot.kernels.reference import ReferenceOps
from pintpot.runtime.cache import ModelState
from pintpot.spec import AttentionLayer, DeltaNetLayer
from pintpot.spec.cache import KVLayout, KVType

TOLERANCE = 1e-4
STEPS = ["llama", "qwen3moe", "qwen35moe", "gemma4-e", "gemma4-moe", "gpt-oss"]
WINDOWED = ["gemma4-e", "gpt-oss"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: load(name, folder, ReferenceOps())[1] for name in STEPS}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("chunks", [[1], [16], [5, 1, 9, 2]])
def test_prefill_in_pieces(models, name, chunks):
    model = models[name]
    ids = tokens(48)
    whole = run(model, new_state(model), ids, [48])
    assert relative_error(run(model, new_state(model, n_batch=16), ids, chunks), whole) < TOLERANCE


@pytest.mark.parametrize("name", WINDOWED)
def test_rings_wrap(models, name):
    model = models[name]
    n = 150
    state = new_state(model, n_batch=9)
    rings = {
        s.layout.capacity
        for s, layer in zip(state.layers, model.spec.layers, strict=True)
        if layer.mixer.window is not None
    }
    assert rings == {32}  # window 7 + 9 new tokens, rounded up: the ring wraps several times
    ids = tokens(n)
    whole = run(model, new_state(model), ids, [n])
    assert relative_error(run(model, state, ids, [9, 4, 1]), whole) < TOLERANCE


@pytest.mark.parametrize("name", STEPS)
def test_sequences_share_a_step(models, name):
    model = models[name]
    a, b = tokens(30, seed=2), tokens(23, seed=3)
    alone = [run(model, new_state(model), ids, [len(ids)]) for ids in (a, b)]
    state = new_state(model, n_slots=3, n_batch=24)
    got = [[], []]
    past = [0, 0]
    for n_a, n_b in ((10, 7), (1, 15), (14, 1), (5, 0)):
        parts = [(2, 0, a, n_a), (0, 1, b, n_b)]
        segments = [Segment(slot, past[k], n) for slot, k, _, n in parts if n]
        ids = np.concatenate([ids[past[k] : past[k] + n] for _, k, ids, n in parts])
        rows = np.arange(len(ids), dtype=np.int32)
        logits = model.ops.to_numpy(model.forward(ids, model.ops.batch(segments), state, rows))
        got[0].append(logits[:n_a].copy())
        got[1].append(logits[n_a:].copy())
        past = [past[0] + n_a, past[1] + n_b]
    for mine, expected in zip(got, alone, strict=True):
        assert relative_error(np.concatenate(mine), expected) < TOLERANCE


@pytest.mark.parametrize("name", STEPS)
def test_only_wanted_rows(models, name):
    model = models[name]
    ids = tokens(20)
    every = run(model, new_state(model), ids, [20])
    state = new_state(model)
    nothing = model.forward(ids[:12], model.ops.batch([Segment(0, 0, 12)]), state, np.zeros(0, np.int32))
    assert len(nothing) == 0
    rows = np.array([7, 2], np.int32)
    some = model.forward(ids[12:], model.ops.batch([Segment(0, 12, 8)]), state, rows)
    assert relative_error(model.ops.to_numpy(some), every[12 + rows]) < TOLERANCE


def test_routes_are_recorded(models):
    model = models["qwen3moe"]
    ids = tokens(9)
    routes: dict[int, np.ndarray] = {}
    batch = model.ops.batch([Segment(0, 0, 9)])
    model.forward(ids, batch, new_state(model), np.array([8], np.int32), routes)
    assert sorted(routes) == [0, 1, 2]
    assert [routes[i].shape for i in range(3)] == [(9, 3), (9, 3), (1, 3)]
    for chosen in routes.values():
        assert chosen.min() >= 0
        assert chosen.max() < 7
        assert all(len(set(row)) == 3 for row in chosen.tolist())


def test_kept_prefix_continues(models):
    """A second prompt builds on what the first left in the cache, as far as the cache can."""
    model = models["gpt-oss"]
    state = new_state(model, n_batch=16)
    first = tokens(60)
    run(model, state, first, [16])
    assert state.keepable(0, 60, 60) == 60
    assert state.keepable(0, 60, 50) == 50
    assert state.keepable(0, 60, 20) == 0  # the ring of 32 lost position 14
    second = np.concatenate((first[:50], tokens(25, seed=9)))
    got = model.ops.to_numpy(
        model.forward(
            second[50:66], model.ops.batch([Segment(0, 50, 16)]), state, np.arange(16, dtype=np.int32)
        )
    )
    expected = run(model, new_state(model), second, [75])
    assert relative_error(got, expected[50:66]) < TOLERANCE
    # Going back a second time: the ring was written up to 66, not only up to the 55 kept then.
    assert state.keepable(0, 66, 55) == 55
    assert state.keepable(0, 55, 40) == 40
    assert state.keepable(0, 55, 39) == 0
    state.reset(0)
    assert state.keepable(0, 10, 3) == 3


def test_recurrent_state_goes_back_only_to_the_start(models):
    model = models["qwen35moe"]
    state = new_state(model)
    ids = tokens(12)
    expected = run(model, state, ids, [12])
    assert state.keepable(0, 12, 12) == 12
    assert state.keepable(0, 12, 11) == 0
    state.reset(0)
    assert relative_error(run(model, state, ids, [5]), expected) < TOLERANCE


@pytest.mark.parametrize("name", STEPS)
def test_copied_slot_continues(models, name):
    model = models[name]
    state = new_state(model, n_slots=2)
    ids = tokens(24)
    expected = run(model, state, ids[:20], [20])
    state.copy_slot(0, 1, 20)
    state.reset(0)
    whole = run(model, new_state(model), ids, [24])
    batch = model.ops.batch([Segment(1, 20, 4)])
    rest = model.ops.to_numpy(model.forward(ids[20:], batch, state, np.arange(4, dtype=np.int32)))
    assert relative_error(np.concatenate((expected, rest)), whole) < TOLERANCE


def test_saved_recurrent_state_is_restored(models):
    model = models["qwen35moe"]
    state = new_state(model, n_slots=2)
    run(model, state, tokens(9), [9])
    for cache, layer in zip(state.layers, model.spec.layers, strict=True):
        if isinstance(layer.mixer, DeltaNetLayer):
            saved = cache.save(0)
            cache.restore(1, saved)
            assert bytes(cache.save(1)) == bytes(saved)
            cache.reset(0)
            assert bytes(cache.save(0)) != bytes(saved)


@pytest.mark.parametrize(("kind", "tolerance"), [(KVType.F16, 5e-3), (KVType.Q8_0, 0.1)])
def test_cache_types_round_a_little(tmp_path, kind, tolerance):
    _, model = load("gemma4-e" if kind is KVType.F16 else "qwen3-q8", tmp_path, ReferenceOps())
    ids = tokens(30)
    exact = run(model, new_state(model), ids, [30])
    rounded = run(
        model, ModelState(model, n_slots=1, ctx_tokens=64, n_batch=30, type_k=kind, type_v=kind), ids, [30]
    )
    assert 0 < relative_error(rounded, exact) < tolerance


def test_layers_share_caches_as_the_spec_says(models):
    model = models["gemma4-e"]
    state = new_state(model)
    owners = [layer.mixer.kv_layer for layer in model.spec.layers if isinstance(layer.mixer, AttentionLayer)]
    assert owners == [0, 1, 2, 3, 2, 3]
    assert [state.layers[i] is state.layers[o] for i, o in enumerate(owners)] == [True] * 6
    assert state.nbytes == sum(state.layers[i].nbytes for i in range(4))
    assert all(isinstance(s.layout, KVLayout) for s in state.layers)
