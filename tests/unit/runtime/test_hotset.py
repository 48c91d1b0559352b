"""Slots of experts: what is resident, what is counted, what is swapped."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pintpot.runtime.hotset import ADAPTIVE, LFU, LRU, STATIC, HotSet, Phase, Policy, Swap
from pintpot.synth.routing import simulate_routing

POLICIES = (STATIC, LRU, LFU, ADAPTIVE)


def select(rng: np.random.Generator, n_layers: int, n_tokens: int, n_expert: int, n_used: int) -> np.ndarray:
    """Distinct experts a token, some likelier than others: int32 [n_layers, n_tokens, n_used]."""
    noise = rng.gumbel(size=(n_layers, n_tokens, n_expert)) - 0.3 * np.arange(n_expert)
    return np.argsort(-noise, axis=2)[:, :, :n_used].astype(np.int32)


def step(hot: HotSet, *experts: int, phase: Phase = Phase.DECODE) -> None:
    """A token of a model with one layer."""
    hot.observe(np.array([[experts]], np.int32), phase)


def swap_all(hot: HotSet, max_swaps: int = 99) -> list[Swap]:
    swaps = hot.plan_swaps(max_swaps)
    for swap in swaps:
        hot.commit(swap)
    return swaps


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    policy=st.sampled_from(POLICIES),
    n_slots=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    n_used=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(Phase)), max_size=12),
)
def test_invariants(seed, policy, n_slots, n_used, steps):
    """Whatever is observed: slots are never shared, capacity stays, every selection is a hit or a miss,
    swaps stay below the cap, residents change with commits only."""
    rng = np.random.default_rng(seed)
    n_layers, n_expert = len(n_slots), 9
    hot = HotSet(rng.integers(0, 5, (n_layers, n_expert)), n_slots, n_used, policy)
    first = hot.slot_of.copy()
    hits = selections = 0
    for n_tokens, max_swaps, phase in steps:
        ids = select(rng, n_layers, n_tokens, n_expert, n_used)
        before = hot.slot_of.copy()
        hits += sum(int((before[layer, ids[layer]] >= 0).sum()) for layer in range(n_layers))
        selections += ids.size
        hot.observe(ids, phase)
        swaps = hot.plan_swaps(max_swaps, phase)
        assert len(swaps) <= max_swaps
        np.testing.assert_array_equal(hot.slot_of, before)
        for swap in swaps:
            assert before[swap.layer, swap.expert_out] == swap.slot
            assert before[swap.layer, swap.expert_in] == -1
            hot.commit(swap)
        for layer, n in enumerate(n_slots):
            slots = hot.slot_of[layer]
            assert sorted(slots[slots >= 0]) == list(range(n))
            assert len(hot.residents(layer)) == n
    counts = [hot.counts(phase) for phase in Phase]
    assert sum(c.hits for c in counts) == hits
    assert sum(c.hits + c.misses for c in counts) == selections
    assert np.all(np.isfinite(hot.rates))
    if policy is STATIC:
        np.testing.assert_array_equal(hot.slot_of, first)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_slots=st.integers(1, 7), n_steps=st.integers(1, 30))
def test_lru_swaps_on_miss(seed, n_slots, n_steps):
    """One expert a token: the residents are the last distinct ones used."""
    rng = np.random.default_rng(seed)
    hot = HotSet(np.ones((1, 8)), [n_slots], 1, LRU)
    recent = list(range(n_slots))[::-1]  # the profile's order breaks the tie of the never used
    for expert in rng.integers(0, 8, n_steps).tolist():
        missed = expert not in recent
        step(hot, expert)
        swaps = swap_all(hot)
        if missed:
            assert [s.expert_in for s in swaps] == [expert]
            recent.pop()
        else:
            assert swaps == []
            recent.remove(expert)
        recent.insert(0, expert)
        assert sorted(hot.residents(0).tolist()) == sorted(recent)


def test_starts_with_the_most_frequent_of_the_profile():
    hot = HotSet([[5, 0, 9, 7], [0, 0, 0, 0]], [2, 1], 1, ADAPTIVE)
    assert hot.residents(0).tolist() == [2, 3]
    assert hot.residents(1).tolist() == [0]  # nothing is known: all are alike
    np.testing.assert_allclose(hot.rates.sum(axis=1), 1)


def test_a_batch_of_tokens_counts_as_they_do_one_by_one():
    rng = np.random.default_rng(3)
    ids = select(rng, 2, 20, 9, 3)
    together, apart = (HotSet(np.ones((2, 9)), [4, 4], 3, ADAPTIVE) for _ in range(2))
    together.observe(ids, Phase.PREFILL)
    for t in range(20):
        apart.observe(ids[:, t : t + 1], Phase.PREFILL)
    np.testing.assert_allclose(together.rates, apart.rates, rtol=1e-12)
    assert together.counts(Phase.PREFILL) == apart.counts(Phase.PREFILL)
    assert together.counts(Phase.DECODE).hits == 0


def test_layers_may_come_apart():
    ids = select(np.random.default_rng(4), 3, 5, 9, 2)
    together, apart = (HotSet(np.ones((3, 9)), [4, 4, 2], 2, LFU) for _ in range(2))
    together.observe(ids, Phase.PREFILL)
    apart.observe(ids[:2], Phase.PREFILL)
    apart.observe(ids[2:], Phase.PREFILL, first_layer=2)
    np.testing.assert_array_equal(together.rates, apart.rates)
    np.testing.assert_array_equal(together.hits, apart.hits)
    apart.observe(ids[2:, :0], Phase.PREFILL, first_layer=2)  # a step that wants no logits
    np.testing.assert_array_equal(together.rates, apart.rates)


def test_swaps_must_pay_back():
    """A gain of 0.25 selections a token pays an upload back within 4 tokens, not within 3."""
    for payback, n_swaps in ((3, 0), (5, 1)):
        hot = HotSet([[1, 1, 0, 0]], [2], 1, Policy("", 1e9, payback, 0))
        hot.rates[:] = [[0.6, 0.25, 0.5, 0.0]]
        assert len(hot.plan_swaps(9)) == n_swaps
        assert hot.plan_swaps(9, Phase.PREFILL) == []


def test_the_best_swaps_come_first_wherever_they_are():
    hot = HotSet([[1, 1, 0, 0], [1, 1, 0, 0]], [2, 2], 1, LFU)
    hot.rates[:] = [[0.3, 0.2, 0.4, 0.1], [0.1, 0.2, 0.6, 0.8]]
    first = hot.plan_swaps(2)
    assert [(s.layer, s.expert_in, s.expert_out) for s in first] == [(1, 3, 0), (1, 2, 1)]
    assert [(s.layer, s.expert_in, s.expert_out) for s in hot.plan_swaps(2)] == [(0, 2, 1)]  # the rest


def test_pending_swaps():
    hot = HotSet([[3, 2, 1, 0]], [2], 1, LRU)
    step(hot, 3)
    (swap,) = hot.plan_swaps(1)
    assert (swap.expert_in, swap.expert_out) == (3, 1)
    assert hot.plan_swaps(1) == []
    hot.cancel(swap)
    assert hot.plan_swaps(1) == [swap]
    hot.evict(swap)
    assert hot.residents(0).tolist() == [0]
    with pytest.raises(ValueError, match="overwritten"):
        hot.cancel(swap)
    step(hot, 1)
    assert hot.counts(Phase.DECODE).hits == 0
    hot.commit(swap)
    assert hot.residents(0).tolist() == [0, 3]
    assert hot.n_swaps == 1
    with pytest.raises(ValueError, match="not pending"):
        hot.commit(swap)


def test_the_prompt_ranks_anew():
    """Residents follow the prompt's own routing, not the profile, and stay when they have paid."""
    hot = HotSet([[9, 9, 9, 1, 1, 1]], [3], 2, ADAPTIVE)
    prompt = np.array([[[3, 4], [4, 5], [3, 5]] * 40], np.int32)
    hot.observe(prompt, Phase.PREFILL)
    for swap in hot.plan_swaps(9, Phase.PREFILL):
        hot.commit(swap)
    assert sorted(hot.residents(0).tolist()) == [3, 4, 5]
    hot.observe(prompt, Phase.DECODE)
    assert hot.counts(Phase.DECODE).hit_rate == 1.0
    assert hot.plan_swaps(9) == []


def test_the_long_unused_rank_as_in_the_profile():
    hot = HotSet([[4, 3, 2, 1]], [1], 1, LRU)
    for _ in range(3000):
        step(hot, 3)
    rates = hot.rates[0]
    assert rates[3] > rates[0] > rates[1] > rates[2] > np.finfo(float).tiny


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_same_routes_same_swaps(policy):
    routes = simulate_routing(32, 4, 3, 120, n_prompts=2, seed=2).transpose(1, 0, 2)

    def run() -> list[list[Swap]]:
        hot = HotSet(np.ones((3, 32)), [8, 10, 12], 4, policy)
        found = []
        for t in range(routes.shape[1]):
            hot.observe(routes[:, t : t + 1], Phase.DECODE)
            found.append(swap_all(hot, 2))
        return found

    assert run() == run()


def test_adapts_to_a_change_of_topic():
    """Within an answer the profile's experts are left behind, a few swaps a token."""
    routes = simulate_routing(64, 4, 2, 800, n_prompts=2, seed=9).transpose(1, 0, 2)
    profile = np.stack([np.bincount(layer[:400].ravel(), minlength=64) for layer in routes])
    rates = {}
    for policy in (STATIC, ADAPTIVE):
        hot = HotSet(profile, [20, 20], 4, policy)
        for t in range(400, 800):
            hot.observe(routes[:, t : t + 1], Phase.DECODE)
            swap_all(hot, 1)
        rates[policy.name] = hot.counts(Phase.DECODE).hit_rate
    assert rates["adaptive"] > rates["static"] + 0.1


@pytest.mark.parametrize(
    ("profile", "n_slots", "words"),
    [
        ([1, 2], [1], "shape"),
        ([[1, 2]], [1, 1], "2 layers"),
        ([[1, 2]], [3], "0 to 2"),
        ([[1, -2]], [1], "negative"),
        ([[1, math.inf]], [1], "infinite"),
    ],
)
def test_nonsense_is_refused(profile, n_slots, words):
    with pytest.raises(ValueError, match=words):
        HotSet(profile, n_slots, 1, STATIC)
