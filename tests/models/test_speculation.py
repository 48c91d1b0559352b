"""Answers do not depend on guesses, however many are right or wrong, to the last bit of their logits."""

from __future__ import annotations

import numpy as np
import pytest

import pintpot
from pintpot import _native
from pintpot.kernels.api import Segment
from pintpot.runtime.cache import ModelState
from pintpot.runtime.sampler import SamplingParams
from pintpot.runtime.sequence import Request
from pintpot.runtime.speculative import (
    MAX_SEGMENT_TOKENS,
    Guesser,
    SpeculationParams,
    SpeculationType,
)
from pintpot.spec.cache import KVType
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

QUANTS = ("F32", "Q8_0", "Q4_K_M")
ALWAYS = SpeculationParams(size_n=1, adaptive=False)
NEVER = SpeculationParams(SpeculationType.NONE)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    made = {}

    def file(name, quant):
        if (name, quant) not in made:
            made[name, quant] = folder / f"{name}-{quant}.gguf"
            write_model(made[name, quant], TOYS[name], quant=quant)
        return made[name, quant]

    return file


def load(path, **options):
    return pintpot.load(path, **{"ctx": 256, "threads": 2, "accelerator": "none", **options})


def prompt(llm, n=40):
    """Random tokens, of which some come twice."""
    ids = np.random.default_rng(5).integers(3, llm.engine.n_tokens, n).tolist()
    ids[n // 2 : n // 2 + n // 4] = ids[: n // 4]
    return ids


class Telling(Guesser):
    """Knows a text, and errs in every `wrong`-th token of it."""

    def __init__(self, text, wrong):
        super().__init__(ALWAYS)
        self.text, self.wrong = text, wrong

    def propose(self, tokens, at_most):
        told = self.text[len(tokens) : len(tokens) + at_most]
        places = range(len(tokens), len(tokens) + len(told))
        return [
            (token + 1) % 300 if place % self.wrong == 0 else token
            for token, place in zip(told, places, strict=True)
        ]


def answer(engine, requests, texts=None, wrong=5):
    """The sequences of requests that run side by side; `texts`: what is guessed of each."""
    sequences = [engine.submit(request) for request in requests]
    for sequence, text in zip(sequences, texts or [], strict=False):
        sequence.guesser = Telling(text, wrong)
    while any(s.finish_reason is None for s in sequences):
        engine.step()
    return sequences


def facts(sequence):
    """What whoever asked sees."""
    events = list(sequence.events)
    return (
        sequence.answer,
        "".join(event.text for event in events),
        sequence.finish_reason,
        [event.logprob for event in events],
    )


@pytest.fixture(params=list(_native.Isa), ids=lambda level: level.name)
def isa(request):
    """Runs the test once for each kernel level that the CPU has."""
    if request.param > _native.detect_isa():
        pytest.skip(f"this CPU lacks the {request.param.name} level")
    before = _native.active_isa()
    assert _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("name", TOYS)
def test_tokens_of_a_short_segment_are_computed_as_if_alone(files, name, quant):
    check_short_segments(load(files(name, quant), ctx=700))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("quant", QUANTS)
def test_they_are_so_at_every_kernel_level(files, quant):
    check_short_segments(load(files("qwen35moe", quant), ctx=700))


def check_short_segments(llm):
    model, ids = llm.engine.model, np.array(prompt(llm, 620), np.int32)

    def logits(n):
        """Of everything past 480 tokens, where the keys of a step begin to be parted: `n` tokens a step."""
        state = ModelState(
            model, n_slots=1, ctx_tokens=700, n_batch=480, type_k=KVType.F16, type_v=KVType.F16
        )
        model.forward(ids[:480], model.ops.batch([Segment(0, 0, 480)]), state, np.zeros(0, np.int32))
        rows = []
        for past in range(480, 620 - n + 1, n):
            batch = model.ops.batch([Segment(0, past, n)])
            wanted = np.arange(n, dtype=np.int32)
            rows.append(model.ops.to_numpy(model.forward(ids[past : past + n], batch, state, wanted)).copy())
        return np.concatenate(rows)

    alone = logits(1)
    for n in (2, 3, 5, MAX_SEGMENT_TOKENS):
        together = logits(n)
        np.testing.assert_array_equal(together, alone[: len(together)])


def forget(engine):
    """Empties free slots: a prompt found in the cache but for its last token is rounded otherwise than one
    computed whole."""
    for slot in engine._slots:
        engine._keep(slot, 0)


def same_with_guesses(engine, requests, wrong):
    """Answers with guesses are those without; returns how many guesses were accepted, and made."""
    forget(engine)
    engine.speculate(NEVER)
    plain = answer(engine, requests)
    forget(engine)
    engine.speculate(ALWAYS)
    drafted = answer(engine, requests, [s.tokens for s in plain], wrong)
    assert [facts(s) for s in drafted] == [facts(s) for s in plain]
    timings = [s.timings for s in drafted]
    return sum(t.accepted_tokens for t in timings), sum(t.drafted_tokens for t in timings)


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("name", TOYS)
def test_greedy_answers_are_the_same(files, name, quant):
    llm = load(files(name, quant), slots=3)
    greedy = SamplingParams(temperature=0)
    requests = [
        Request(tuple(prompt(llm)[k:]), greedy, max_tokens=40, ignore_eos=True, n_logprobs=2)
        for k in range(3)
    ]
    assert 0 < np.divide(*same_with_guesses(llm.engine, requests, 5)) < 1
    accepted, drafted = same_with_guesses(llm.engine, requests, 1000)
    assert accepted == drafted > 0
    assert same_with_guesses(llm.engine, requests, 1)[0] == 0


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("n_batch", [5, 64])
def test_sampled_answers_are_the_same(files, name, n_batch):
    """With every rule that looks at the text so far, in steps that hardly hold the guesses."""
    llm = load(files(name, "Q8_0"), slots=3, batch=n_batch)
    biased = {7: 2.0, 11: -3.0}
    params = [
        SamplingParams(temperature=1.5, seed=1),
        SamplingParams(seed=2, repeat_penalty=1.3, frequency_penalty=0.4, logit_bias=biased),
        SamplingParams(temperature=0.9, seed=3, presence_penalty=0.5, repeat_last_n=-1, typical_p=0.9),
    ]
    requests = [Request(tuple(prompt(llm)), p, max_tokens=40, ignore_eos=True) for p in params]
    for wrong in (3, 1000):
        assert same_with_guesses(llm.engine, requests, wrong)[0] > 0


@pytest.mark.parametrize("name", ["llama", "qwen35moe", "gemma4-e", "gpt-oss"])
def test_an_answer_that_ends_within_a_guess_leaves_a_usable_cache(files, name):
    llm = load(files(name, "F32"), ctx=90)
    engine, greedy = llm.engine, SamplingParams(temperature=0)
    engine.speculate(NEVER)
    (long,) = answer(engine, [Request(tuple(prompt(llm)), greedy, ignore_eos=True)])
    assert len(long.tokens) == 90  # the context is full
    stop = "".join(event.text for event in list(long.events)[17:19])
    assert stop
    for request in (
        Request(tuple(prompt(llm)), greedy, ignore_eos=True),
        Request(tuple(prompt(llm)), greedy, max_tokens=13, ignore_eos=True),
        Request(tuple(prompt(llm)), greedy, stop=(stop,), ignore_eos=True),
    ):
        accepted, _ = same_with_guesses(engine, [request], 6)
        assert accepted > 0
        engine.speculate(ALWAYS)
        (first,) = answer(engine, [request], [long.tokens], 6)
        following = Request((*first.tokens[:60], 9, 8, 7), greedy, max_tokens=9, ignore_eos=True)
        (continued,) = answer(engine, [following])
        forget(engine)
        engine.speculate(NEVER)
        (anew,) = answer(engine, [following])
        assert continued.answer == anew.answer
        if not engine.state.recurrent:
            assert continued.timings.cached_tokens == min(60, len(first.tokens) - 1)


@pytest.mark.parametrize("name", ["llama", "qwen35", "gpt-oss"])
def test_prompt_lookup_guesses_what_repeats(files, name):
    """A model of random weights soon repeats itself."""
    llm = load(files(name, "Q8_0"))
    greedy = SamplingParams(temperature=0)
    request = Request(tuple(prompt(llm)), greedy, max_tokens=150, ignore_eos=True)
    llm.engine.speculate(NEVER)
    (plain,) = answer(llm.engine, [request])
    llm.engine.speculate(ALWAYS)
    (drafted,) = answer(llm.engine, [request])
    assert facts(drafted) == facts(plain)
    assert drafted.timings.accepted_tokens > 0
    assert drafted.timings.generated_tokens == 150


@pytest.mark.parametrize("name", ["qwen3moe", "qwen35moe"])
def test_routing_is_learned_once(files, name):
    """Of a text that is decoded with guesses as of one that is decoded without."""

    def learned(wrong):
        llm = load(files(name, "F32"), accelerator="cpu", vram=1 << 30, gpu_experts=3, expert_policy="static")
        seen = [[] for _ in llm.spec.layers]  # experts chosen, in the order of tokens
        experts = llm.engine.experts
        observe = experts._hot.observe

        def recorded(ids, phase, first):
            for layer, chosen in enumerate(ids, first):
                seen[layer] += chosen.tolist()
            observe(ids, phase, first)

        experts._hot.observe = recorded
        llm.engine.speculate(NEVER if wrong is None else ALWAYS)
        request = Request(tuple(prompt(llm)), SamplingParams(temperature=0), max_tokens=30, ignore_eos=True)
        (sequence,) = answer(llm.engine, [request], None if wrong is None else [texts[0]], wrong)
        texts.append(sequence.tokens)
        return seen

    texts = []
    plain = learned(None)
    for wrong in (4, 1000):
        assert learned(wrong) == plain
        assert texts[-1] == texts[0]
