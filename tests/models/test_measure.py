"""The speed meter computes what a test says, once: a depth is filled a single time, whatever runs there."""

from __future__ import annotations

import numpy as np
import pytest

import pintpot
from pintpot.errors import UsageError
from pintpot.runtime.measure import SpeedMeter, SpeedTest
from pintpot.runtime.sampler import SamplingParams
from pintpot.runtime.sequence import Request
from pintpot.synth.synthesize import synthesize


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    return {
        arch: synthesize(folder / f"{arch}.gguf", arch, preset="toy", quant="Q8_0").path
        for arch in ("qwen3", "qwen35moe", "gpt-oss")
    }


def record_steps(engine):
    """The segments of every step from now on, as (past, n)."""
    steps = []
    forward = engine.model.forward

    def recorded(tokens, batch, state, out_rows):
        steps.append(len(tokens))
        return forward(tokens, batch, state, out_rows)

    engine.model.forward = recorded
    return steps


# gpt-oss: its sliding window of 20 tokens goes back over a test of 16.
@pytest.mark.parametrize("arch", ["qwen3", "qwen35moe", "gpt-oss"])
def test_a_depth_is_filled_once(toys, arch):
    engine = pintpot.load(toys[arch], ctx=128, threads=1, batch=64, slots=2).engine
    steps = record_steps(engine)
    meter = SpeedMeter(engine)
    for _ in range(3):
        assert meter.run(SpeedTest("pp", 16, 40)) > 0
        assert meter.run(SpeedTest("tg", 3, 40)) > 0
    assert steps == [40] + 3 * [16, 1, 1, 1, 1]
    steps.clear()
    meter.run(SpeedTest("tg", 2, 50, parallel=2))  # continues from the 40 tokens there are
    assert steps == [10, 2, 2, 2]


def test_more_sequences_than_a_step_holds_are_all_counted(toys):
    engine = pintpot.load(toys["qwen3"], ctx=32, threads=1, batch=2, slots=3).engine
    steps = record_steps(engine)
    assert SpeedMeter(engine).decode(4, parallel=3) > 0
    assert max(steps) == 2
    assert not engine.busy


def test_a_kind_that_is_none_is_refused(toys):
    engine = pintpot.load(toys["qwen3"], ctx=8, threads=1).engine
    with pytest.raises(UsageError, match="'pg'"):
        SpeedMeter(engine).run(SpeedTest("pg", 1, 0))


@pytest.mark.parametrize("arch", ["qwen3", "qwen35moe", "gpt-oss"])
def test_what_follows_a_rewind_is_what_followed_before(toys, arch):
    engine = pintpot.load(toys[arch], ctx=96, threads=1, slots=2).engine
    rng = np.random.default_rng(5)
    past = tuple(int(t) for t in rng.integers(0, 300, 40))

    def answer(prompt):
        sequence = engine.submit(
            Request(prompt, params=SamplingParams(temperature=0), max_tokens=6, ignore_eos=True)
        )
        while sequence.finish_reason is None:
            engine.step()
        return sequence.answer, sequence.timings.cached_tokens

    engine.logits(past)
    checkpoint = engine.checkpoint(past)
    first, cached = answer((*past, 7))
    assert cached == 40
    answer((*past, 11, 12))
    assert engine.rewind(checkpoint, 2)
    sequences = [
        engine.submit(
            Request((*past, 7), params=SamplingParams(temperature=0), max_tokens=6, ignore_eos=True)
        )
        for _ in range(2)
    ]
    while any(s.finish_reason is None for s in sequences):
        engine.step()
    assert [s.answer for s in sequences] == [first, first]
    assert [s.timings.cached_tokens for s in sequences] == [40, 40]
