"""The study of hot-set policies: simulations, oracles, what they cost, the figure."""

import json
import math
import sys

import numpy as np
import pytest
from benchmarks import expert_policies, plot_experts
from benchmarks.expert_policies import compare, max_swaps, published_case
from benchmarks.expert_simulation import (
    UNCAPPED,
    Outcome,
    simulate,
    simulate_belady,
    simulate_foresight,
)
from benchmarks.expert_traces import Conversation, Trace, recorded_demo, simulated
from hypothesis import given, settings
from hypothesis import strategies as st

from pintpot.planner.profile import LLAMA_CPP, PINTPOT
from pintpot.planner.speed import decode
from pintpot.runtime.hotset import ADAPTIVE, LFU, LRU, STATIC


def random_trace(seed: int, n_expert: int, n_used: int) -> Trace:
    """Two layers, two conversations, selections with some skew."""
    rng = np.random.default_rng(seed)
    skew = 0.3 * np.arange(n_expert)

    def select(n_tokens: int) -> np.ndarray:
        noise = rng.gumbel(size=(2, n_tokens, n_expert)) - skew
        return np.argsort(-noise, axis=2)[:, :, :n_used].astype(np.int32)

    talks = tuple(Conversation(select(rng.integers(1, 4)), select(rng.integers(1, 25))) for _ in range(2))
    return Trace("random", rng.integers(0, 9, (2, n_expert)).astype(float), talks)


def best_hits(uses: list[set[int]], resident: frozenset[int], n_slots: int) -> int:
    """By trying everything: the most hits when only missed experts may enter."""
    if not uses:
        return 0
    hits = len(uses[0] & resident)
    entering = uses[0] - resident
    choices = {resident}
    for expert in sorted(entering):
        choices |= {kept | {expert} for kept in choices if len(kept) < n_slots}
        choices |= {(kept - {old}) | {expert} for kept in list(choices) for old in kept}
    return hits + max(best_hits(uses[1:], kept, n_slots) for kept in choices)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_slots=st.integers(1, 4), n_used=st.integers(1, 2))
def test_belady_is_the_best_there_is(seed, n_slots, n_used):
    rng = np.random.default_rng(seed)
    answer = np.stack([np.argsort(rng.random((5, 5)), axis=1)[:, :n_used]]).astype(np.int32)
    none = np.empty((1, 0, n_used), np.int32)
    trace = Trace("one layer", np.ones((1, 5)), (Conversation(none, answer),))
    uses = [set(step) for step in answer[0].tolist()]
    best = best_hits(uses, frozenset(range(n_slots)), n_slots)
    assert simulate_belady(trace, n_slots).hit_rate == pytest.approx(best / answer.size)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_slots=st.integers(1, 8), n_used=st.integers(1, 3))
def test_no_policy_that_swaps_on_miss_beats_the_oracle(seed, n_slots, n_used):
    trace = random_trace(seed, 8, n_used)
    oracle = simulate_belady(trace, n_slots)
    static = simulate(trace, STATIC, n_slots, UNCAPPED)
    lru = simulate(trace, LRU, n_slots, UNCAPPED)
    assert max(static.hit_rate, lru.hit_rate) <= oracle.hit_rate + 1e-12
    assert static.upload_rate == static.prompt_uploads == 0.0
    if n_slots == 8:
        assert oracle.hit_rate == lru.hit_rate == 1.0
        assert oracle.no_miss_rate == 1.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_swaps=st.integers(0, 2))
def test_uploads_stay_below_the_cap(seed, n_swaps):
    trace = random_trace(seed, 8, 2)
    for policy in (LRU, LFU, ADAPTIVE):
        for simulation in (simulate, simulate_foresight):
            outcome = simulation(trace, policy, 3, n_swaps)
            assert outcome.upload_rate * trace.selections_a_token <= n_swaps + 1e-12
            assert outcome.ram_reads == pytest.approx(1 - outcome.hit_rate + outcome.upload_rate)


def test_foresight_beats_hindsight():
    trace = simulated(64, 4, 2, n_conversations=2, prompt_tokens=16, answer_tokens=64)
    seen = simulate_foresight(trace, ADAPTIVE, 20, 2)
    assert seen.ram_reads < simulate(trace, ADAPTIVE, 20, 2).ram_reads
    assert seen.hit_rate > simulate(trace, STATIC, 20, 2).hit_rate


def test_the_topic_changes_within_the_answer():
    steady, drifting = (
        simulated(32, 4, 2, n_conversations=2, prompt_tokens=8, answer_tokens=16, drifting=drifting)
        for drifting in (False, True)
    )
    for i in range(2):
        ours, changed = steady.conversations[i], drifting.conversations[i]
        np.testing.assert_array_equal(ours.prompt, changed.prompt)
        np.testing.assert_array_equal(ours.answer[:, :8], changed.answer[:, :8])
        np.testing.assert_array_equal(steady.conversations[1 - i].answer[:, 8:], changed.answer[:, 8:])
    np.testing.assert_array_equal(steady.profile, drifting.profile)


def test_routing_of_the_demo_is_recorded():
    trace = recorded_demo(n_windows=2)
    assert trace.profile.shape == (4, 16)
    assert trace.profile.sum() == 4 * 1024 * 2
    (talk,) = trace.conversations
    assert talk.prompt.shape == (4, 256, 2)
    assert talk.answer.shape == (4, 768, 2)
    assert max_swaps(trace) == 1


def test_speeds_are_the_planners():
    """Without uploads it is its own figure for that hit rate; uploads cost, and PCIe is a limit."""
    case = published_case()
    p = case.problem
    slots = tuple(round(0.4 * layer.n_expert) for layer in p.model.layers)
    placement = type(case.solution.placement)((True,) * 40, slots, output_on_gpu=True)
    hits = p.profile.hit_share(slots[0] / 256, 256)
    plain = case.tokens_s(0.4, Outcome(hits, 0.0, 0.0, 0.0), 512)
    reads = expert_policies.cache_read_bytes(p.spec, case.solution.settings, case.solution.depth_tokens)
    assert plain == pytest.approx(decode(p.model, reads, placement, p.rates, p.profile).tokens_s)
    assert case.tokens_s(0.4, Outcome(hits, 0.05, 0.0, 0.0), 512) < plain
    assert case.tokens_s(0.4, Outcome(hits, 0.0, 20.0, 0.0), 512) < plain
    assert 0.3 < case.planned_share < 0.7


def test_the_planner_assumes_what_the_adaptive_policy_reaches():
    """Hits less uploads, on other draws than the curves were fitted to."""
    drifting = simulated(256, 8, 3, n_conversations=4, drifting=True, seed=7)
    for trace, shares in ((drifting, (0.1, 0.2, 0.4, 0.6)), (recorded_demo(8), (0.25, 0.5))):
        for share in shares:
            n_slots = round(share * trace.n_expert)
            outcome = simulate(trace, ADAPTIVE, n_slots, max_swaps(trace))
            assumed = PINTPOT.hit_share(n_slots / trace.n_expert, trace.n_expert)
            assert assumed == pytest.approx(1 - outcome.ram_reads, abs=0.05), (trace.name, share)


@pytest.mark.parametrize("n_expert", [16, 256])
def test_the_first_experts_catch_most(n_expert):
    """The bounds of `recommend` hold for concave curves only."""
    hits = np.array([PINTPOT.hit_share(i / n_expert, n_expert) for i in range(n_expert + 1)])
    assert (hits[0], hits[-1]) == (0.0, 1.0)
    assert np.all(np.diff(hits) > 0)
    assert np.all(np.diff(hits, 2) < 0)
    assert LLAMA_CPP.hit_share(0.3, n_expert) == pytest.approx(0.3)


def test_the_smallest_study_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(expert_policies, "RESIDENT", (0.4,))
    small = simulated(32, 4, 2, n_conversations=2, prompt_tokens=8, answer_tokens=16)
    monkeypatch.setattr(expert_policies, "simulated", lambda *_, **__: small)
    monkeypatch.setattr(expert_policies, "recorded_demo", lambda: small)
    path = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["expert_policies", "-o", str(path), "--layers", "2"])
    expert_policies.main()
    (run,) = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert len(run["rows"]) == 4 * 7
    assert run["policies"][0]["half_life_tokens"] is None
    assert {row["half_life_tokens"] for row in run["constants"]} >= {ADAPTIVE.half_life_tokens}
    assert {row["prompt_payback_tokens"] for row in run["prompts"]} >= {ADAPTIVE.prompt_payback_tokens}
    assert {row["payback_tokens"] for row in run["constants"]} >= {ADAPTIVE.payback_tokens}


def test_a_study_is_compared_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(expert_policies, "RESIDENT", (0.25, 0.5))
    trace = simulated(16, 2, 2, n_conversations=2, prompt_tokens=8, answer_tokens=16)
    rows = compare(trace, published_case())
    assert len(rows) == 2 * 7
    assert all(math.isfinite(row["tokens_s"]) for row in rows)
    assert "tok/s" in capsys.readouterr().out
    run = {"benchmark": "expert_policies", "rows": rows, "planned_resident": 0.4}
    result, drawn = tmp_path / "results.json", tmp_path / "drawn.svg"
    result.write_text(json.dumps([run | {"model": "m", "gpu": "g"}]))
    monkeypatch.setattr(sys, "argv", ["plot_experts", str(result), "-o", str(drawn)])
    plot_experts.main()
    assert "adaptive (the default)" in drawn.read_text()
    table = capsys.readouterr().out.splitlines()
    assert table[0].count("|") == 2 + 7
    assert table[2].startswith(f"| 25% | {100 * rows[0]['hit_rate']:.0f} / ")
    result.write_text(json.dumps([{"benchmark": "other"}]))
    with pytest.raises(SystemExit, match="no study"):
        plot_experts.main()
