"""-ot: rules are kept where they can be, and never a reason to give up."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pintpot.errors import UsageError
from pintpot.hardware.words import describe
from pintpot.planner.limits import Limits, TensorRule, parse_tensor_rules, place_by_rules
from pintpot.planner.memory import TensorSize, weigh
from pintpot.planner.placement import Problem, solve
from pintpot.planner.profile import LLAMA_CPP, PINTPOT, EngineProfile
from pintpot.store import catalog


def problem(*rules: str, vram: str = "12GiB", profile: EngineProfile = LLAMA_CPP, **limits) -> Problem:
    entry, _ = catalog.find("qwen3.5:35b-a3b")
    ne = dict(entry.tensors())
    sizes = [TensorSize(n, nbytes, prod(ne[n])) for n, nbytes in entry.tensor_bytes("Q4_K_M")]
    parsed = parse_tensor_rules(rules)
    hardware = describe("RTX 4090", vram, "64GiB", "60GB/s", 8, None)
    limits = Limits(override_tensors=parsed, **limits)
    return Problem(entry.spec(), weigh(entry.spec(), sizes, parsed), hardware, limits, profile)


@pytest.mark.parametrize("profile", [LLAMA_CPP, PINTPOT])
def test_experts_lie_where_rules_say(profile: EngineProfile) -> None:
    s = solve(problem(r"blk\.(30|31)\.ffn_.*_exps=CPU", r"blk\.(2|3)\.ffn_.*_exps=GPU", profile=profile))
    assert [s.placement.resident[i] for i in (30, 31, 2, 3)] == [0, 0, 256, 256]
    assert not any("-ot" in step for step in s.steps)


def test_a_rule_for_a_layer_goes_before_ncmoe() -> None:
    s = solve(problem(r"blk\.1\.ffn_.*_exps=GPU", n_cpu_moe=40))
    assert [i for i, resident in enumerate(s.placement.resident) if resident] == [1]


def test_dense_tensors_in_ram_are_counted_there_and_take_time() -> None:
    plain, ruled = solve(problem()), solve(problem(r"blk\.\d+\.ffn_.*_shexp=CPU"))
    p = problem(r"blk\.\d+\.ffn_.*_shexp=CPU", n_cpu_moe=40)
    moved = sum(layer.dense_in_ram for layer in p.model.layers)
    with_rule, without = solve(p), solve(problem(n_cpu_moe=40))
    assert moved > 0
    assert without.vram.dense - with_rule.vram.dense == moved
    assert with_rule.ram.dense - without.ram.dense == moved
    assert with_rule.token.cpu > without.token.cpu
    assert with_rule.token.total > without.token.total
    assert ruled.prefill_tokens_s < plain.prefill_tokens_s


def test_the_head_can_stay_in_ram() -> None:
    p = problem(r"^output\.weight=CPU")
    s, plain = solve(p), solve(problem())
    assert not s.placement.output_on_gpu
    assert s.ram.dense - plain.ram.dense == p.model.output
    assert s.token.total > plain.token.total


def test_experts_that_find_no_room_on_the_gpu_give_way() -> None:
    s = solve(problem("exps=GPU", vram="8GiB"))
    assert "not all experts that -ot wants on the GPU are there" in s.steps
    assert 0 < sum(r > 0 for r in s.placement.resident) < 40


@settings(max_examples=60, deadline=None)
@given(
    pattern=st.sampled_from(["exps", "ffn", r"blk\.[0-9]\.", r"\d", "attn", "output", "nothing at all", "."]),
    on_gpu=st.booleans(),
    vram=st.sampled_from(["2GiB", "8GiB", "16GiB", "24GiB"]),
    profile=st.sampled_from([LLAMA_CPP, PINTPOT]),
    ngl=st.sampled_from([None, 0, 7]),
)
def test_limits_are_kept_under_any_rule(pattern, on_gpu, vram, profile, ngl) -> None:
    p = problem(str(TensorRule(pattern, on_gpu)), vram=vram, profile=profile, n_gpu_layers=ngl)
    s = solve(p)
    assert s.vram.total <= p.vram_bytes
    weights = s.vram.dense + s.vram.experts + s.ram.dense + s.ram.experts
    assert weights == p.model.total - p.model.rows - p.model.unread


def test_the_first_rule_counts() -> None:
    rules = parse_tensor_rules([r"blk\.1\.=CPU,exps=CUDA0"])
    assert [
        place_by_rules(n, rules) for n in ("blk.1.ffn_up_exps.weight", "blk.2.ffn_up_exps.weight", "x")
    ] == [
        False,
        True,
        None,
    ]


@pytest.mark.parametrize("text", ["exps", "=CPU", "exps=", "exps=DISK", "(=CPU", "a=CPU,"])
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"^-ot '.*': (expected PATTERN=CPU or|no regular expression)"):
        parse_tensor_rules([text])
