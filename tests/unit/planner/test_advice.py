"""Advice is what solving again says: fits, or at least a tenth faster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pintpot.hardware.machine import Hardware, Process
from pintpot.hardware.words import describe
from pintpot.planner.advice import Advice, Change, advise
from pintpot.planner.limits import Limits
from pintpot.planner.placement import DoesNotFitError, Problem, solve, solve_or_none
from pintpot.planner.plan import Plan, plan_entry
from pintpot.planner.profile import LLAMA_CPP
from pintpot.planner.quality import quality_class
from pintpot.spec.cache import KVType
from pintpot.store import catalog

GIB = 1 << 30
BIG = "qwen3.5:35b-a3b"


def machine(gpu: str = "RTX 5060 Ti 16GB", ram: str = "64GiB") -> Hardware:
    return describe(gpu, None, ram, "60GB/s", 8, None)


def plan(hardware: Hardware, quant: str = "Q6_K", name: str = BIG, **limits) -> Plan:
    entry, _ = catalog.find(name)
    return plan_entry(entry, quant, hardware, Limits(**limits), LLAMA_CPP)


def of_kind(advice: tuple[Advice, ...], kind: Change) -> list[Advice]:
    return [a for a in advice if a.kind is kind]


def test_a_bigger_card_is_solved_for() -> None:
    found = plan(machine())
    (advice,) = of_kind(found.advice, Change.GPU)
    p = found.problem
    gpu = p.hardware.gpus[0]
    bigger = replace(gpu, vram_total_bytes=20 * GIB, vram_free_bytes=20 * GIB)
    limits = replace(p.limits, depth_tokens=found.solution.depth_tokens)
    s = solve(replace(p, hardware=replace(p.hardware, gpus=(bigger,)), limits=limits))
    assert advice.tokens_s == s.token.tokens_s
    assert advice.was_tokens_s == found.solution.token.tokens_s
    assert advice.gain == pytest.approx(s.token.tokens_s / found.solution.token.tokens_s - 1)
    assert str(advice).startswith("a card of 20 GiB, as fast as this one: about ")


def test_only_what_gains_a_tenth_is_kept_best_first() -> None:
    for ctx in (4096, 131_072):
        advice = [a for a in plan(machine(), ctx_tokens=ctx).advice if not a.allows]
        assert all(a.gain >= 0.1 for a in advice)
        assert advice == sorted(advice, key=lambda a: -a.tokens_s)
    small = plan(machine("RTX 4090"), name="qwen3:0.6b", quant="Q4_K_M", ctx_tokens=4096)
    assert not of_kind(small.advice, Change.GPU)  # all of it is in VRAM already
    assert not of_kind(small.advice, Change.CONTEXT)


def test_the_biggest_program_is_named() -> None:
    hardware = machine("RTX 4060 Ti 8GB")
    gpu = hardware.gpus[0]
    programs = (Process("Xorg", 7, 80 << 20), Process("game", 42, 3 * GIB))
    hardware = replace(hardware, gpus=(replace(gpu, vram_free_bytes=4 * GIB, processes=programs),))
    (advice,) = of_kind(plan(hardware, "Q2_K", ctx_tokens=16_384).advice, Change.CLOSE_PROGRAM)
    assert advice.change == "closing game (pid 42), which frees 3.0 GiB of VRAM"


def test_what_does_not_fit_is_told_what_would_make_it_fit() -> None:
    hardware = machine("none", "32GiB")
    memory = replace(hardware.memory, available_bytes=20 * GIB)
    hardware = replace(hardware, memory=memory, processes=(Process("browser", 9, 9 * GIB),))
    with pytest.raises(DoesNotFitError) as error:
        plan(hardware)
    text = str(error.value)
    assert "it would fit with" in text
    for words in (
        "the smaller format Q3_K_M",
        "closing browser (pid 9), which frees 9.0 GiB of RAM",
        "16 GiB more RAM (48 GiB in all)",
    ):
        assert words in text


def test_the_smallest_ram_that_holds_it() -> None:
    p = plan(machine("none", "128GiB"), "Q8_0").problem
    small = replace(p, hardware=machine("none", "8GiB"))
    assert solve_or_none(small) is None
    (advice,) = of_kind(advise(small, None), Change.RAM)
    assert advice.change == "40 GiB more RAM (48 GiB in all)"
    assert advice.gain is None
    capped = replace(small, limits=Limits(ram_bytes=4 * GIB))
    assert of_kind(advise(capped, None), Change.RAM) == []


def test_more_ram_for_a_better_format() -> None:
    found = plan(machine("none", "32GiB"), "Q4_K_M")
    assert next(f for f in found.quants if f.label == "Q8_0").solution is None
    assert [a.allows for a in found.advice if a.allows] == ["Q8_0"]
    assert "16 GiB more RAM (48 GiB in all) would hold Q8_0, at about" in str(found.advice[-1])


def test_a_smaller_cache_where_the_user_chose_a_big_one() -> None:
    limits = {"type_k": KVType.F32, "type_v": KVType.F32, "ctx_tokens": 131_072}
    assert of_kind(plan(machine(), **limits).advice, Change.CACHE_TYPE)
    limits = {"type_k": KVType.Q8_0, "type_v": KVType.Q8_0, "ctx_tokens": 131_072}
    assert not of_kind(plan(machine(), **limits).advice, Change.CACHE_TYPE)


def test_half_the_context_is_judged_at_the_same_depth() -> None:
    limits = {"type_k": KVType.F16, "type_v": KVType.F16, "ctx_tokens": 262_144}
    found = plan(machine("RTX 4060 Ti 8GB"), "Q2_K", **limits)
    (advice,) = of_kind(found.advice, Change.CONTEXT)
    p: Problem = found.problem
    limits = replace(p.limits, ctx_tokens=131_072, depth_tokens=found.solution.depth_tokens)
    assert advice.tokens_s == solve(replace(p, limits=limits)).token.tokens_s


def test_formats_carry_bits_and_quality() -> None:
    formats = plan(machine()).quants
    bits = [f.bits_per_weight for f in formats]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] == pytest.approx(8.5, abs=0.05)  # Q8_0: 34 bytes for 32 values
    assert [f.quality for f in formats][-2:] == ["visible loss", "large loss"]


@pytest.mark.parametrize(
    ("quant", "words"),
    [("BF16", "as good as F16"), ("Q6_K", "as good as F16"), ("Q5_K_S", "close to F16"), ("Q4_K_M", "good"),
     ("IQ4_XS", "good"), ("Q3_K_L", "visible loss"), ("Q2_K", "large loss"), ("IQ1_S", ""), ("", "")],
)  # fmt: skip
def test_quality_classes(quant: str, words: str) -> None:
    assert quality_class(quant) == words
