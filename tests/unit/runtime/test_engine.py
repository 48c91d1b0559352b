"""The engine's bookkeeping, with a model whose logits depend on the whole history of a slot: a token computed
twice, left out, or in the wrong slot changes the answer."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from pintpot.errors import ContextLengthError, ModelFileError, UsageError
from pintpot.runtime.engine import Engine
from pintpot.runtime.sampler import SamplingParams
from pintpot.runtime.sequence import FinishReason, Request
from pintpot.spec import ModelSpec

N_VOCAB = 97
EOG = 96
GREEDY = SamplingParams(temperature=0)


def next_token(history):
    """What the model answers greedily: any rule that every token of the history enters."""
    h = 7
    for t in history:
        h = (h * 31 + t + 1) % 1_000_003
    return h % EOG


def expected_answer(prompt, n):
    history = list(prompt)
    for _ in range(n):
        history.append(next_token(history))
    return history[len(prompt) :]


class HashOps:
    name = "hash"

    def batch(self, segments):
        return list(segments)

    def to_numpy(self, x):
        return x


@dataclass
class HashModel:
    spec: ModelSpec = field(
        default_factory=lambda: ModelSpec("hash", "hash", 0, 0, 1, N_VOCAB, 1000, 1e-6, (), True)
    )
    ops: HashOps = field(default_factory=HashOps)
    slots: dict = field(default_factory=dict)
    steps: list = field(default_factory=list)
    broken: bool = False

    def forward(self, tokens, batch, state, out_rows):
        self.steps.append([(s.slot, s.past, s.n) for s in batch])
        rows, at = [], 0
        for s in batch:
            history = self.slots.setdefault(s.slot, [])
            assert len(history) >= s.past
            del history[s.past :]
            for t in tokens[at : at + s.n]:
                history.append(int(t))
                rows.append(next_token(history))
            at += s.n
        assert at == len(tokens)
        logits = np.zeros((len(out_rows), N_VOCAB), np.float32)
        for i, r in enumerate(out_rows):
            logits[i, rows[r]] = np.nan if self.broken else 5.0
        return logits


class LetterTokenizer:
    """Token t is the character chr(33 + t)."""

    eog_ids = frozenset({EOG})
    n_vocab = N_VOCAB

    def stream(self, *, after):
        assert after is not None

        class Stream:
            def push(self, token):
                return chr(33 + token)

            def flush(self):
                return ""

        return Stream()


def make_engine(**options):
    model = HashModel()
    return Engine(model, LetterTokenizer(), **{"ctx_tokens": 200, "n_batch": 16, **options}), model


def run(engine, *sequences):
    text = {id(s): "" for s in sequences}
    while any(s.finish_reason is None for s in sequences):
        for event in engine.step():
            text[id(event.sequence)] += event.text
    return [text[id(s)] for s in sequences]


def test_a_prompt_longer_than_a_step_is_computed_in_chunks():
    engine, model = make_engine()
    prompt = tuple(range(40))
    sequence = engine.submit(Request(prompt, GREEDY, max_tokens=5))
    (text,) = run(engine, sequence)
    assert sequence.answer == expected_answer(prompt, 5)
    assert text == "".join(chr(33 + t) for t in sequence.answer)
    assert model.steps == [[(0, 0, 16)], [(0, 16, 16)], [(0, 32, 8)], *[[(0, 40 + i, 1)] for i in range(4)]]
    assert sequence.finish_reason is FinishReason.LENGTH
    assert sequence.timings.prompt_tokens == 40
    assert sequence.timings.generated_tokens == 5


def test_sequences_run_side_by_side_without_mixing():
    engine, model = make_engine(n_slots=3)
    prompts = [(1, 2, 3), tuple(range(30)), (9,) * 20, (5, 6)]
    sequences = [engine.submit(Request(p, GREEDY, max_tokens=6)) for p in prompts]
    run(engine, *sequences)
    for prompt, sequence in zip(prompts, sequences, strict=True):
        assert sequence.answer == expected_answer(prompt, 6)
    assert max(sum(n for _, _, n in step) for step in model.steps) <= 16
    assert any(len(step) == 3 for step in model.steps)


def test_answers_go_on_while_a_long_prompt_is_read():
    engine, model = make_engine(n_slots=2)
    first = engine.submit(Request((1, 2), GREEDY, max_tokens=20))
    engine.step()
    second = engine.submit(Request(tuple(range(90)), GREEDY, max_tokens=2))
    run(engine, first, second)
    mixed = [step for step in model.steps if len(step) == 2]
    assert mixed
    assert all(step[0][2] == 1 for step in mixed)


def test_a_common_beginning_is_not_computed_again():
    engine, model = make_engine()
    first = engine.submit(Request((1, 2, 3, 4), GREEDY, max_tokens=3))
    run(engine, first)
    model.steps.clear()
    prompt = (*first.tokens, 50, 51)
    second = engine.submit(Request(prompt, GREEDY, max_tokens=2))
    run(engine, second)
    # The last token of the first answer was chosen but never computed.
    assert second.timings.cached_tokens == len(first.tokens) - 1
    assert model.steps[0] == [(0, len(first.tokens) - 1, 3)]
    assert second.answer == expected_answer(prompt, 2)


def test_an_equal_prompt_still_computes_its_last_token():
    engine, _ = make_engine()
    for _ in range(2):
        sequence = engine.submit(Request((4, 5, 6), GREEDY, max_tokens=1))
        run(engine, sequence)
        assert sequence.answer == expected_answer((4, 5, 6), 1)
    assert sequence.timings.cached_tokens == 2


def test_the_slot_with_the_longest_common_beginning_is_taken():
    engine, model = make_engine(n_slots=2)
    a, b = (engine.submit(Request(p, GREEDY, max_tokens=1)) for p in [(1, 2, 3), (7, 8, 9)])
    run(engine, a, b)
    again = engine.submit(Request((7, 8, 9, 10), GREEDY, max_tokens=1))
    run(engine, again)
    assert model.steps[-1] == [(1, 3, 1)]


def test_stop_strings_end_the_answer_before_them():
    engine, _ = make_engine()
    answer = expected_answer((1, 2), 8)
    stop = "".join(chr(33 + t) for t in answer[4:6])
    sequence = engine.submit(Request((1, 2), GREEDY, stop=(stop,)))
    (text,) = run(engine, sequence)
    assert text == "".join(chr(33 + t) for t in answer[:4])
    assert sequence.finish_reason is FinishReason.STOP


def test_end_of_generation_token_is_not_shown_unless_ignored():
    engine, _ = make_engine()
    always_end = SamplingParams(temperature=0, logit_bias={EOG: 100.0})
    sequence = engine.submit(Request((1, 2), always_end))
    assert run(engine, sequence) == [""]
    assert (sequence.answer, sequence.finish_reason) == ([EOG], FinishReason.STOP)
    ignoring = engine.submit(Request((1, 2), always_end, max_tokens=3, ignore_eos=True))
    run(engine, ignoring)
    assert ignoring.answer == [EOG] * 3


def test_a_full_context_ends_the_answer():
    engine, _ = make_engine(ctx_tokens=10)
    sequence = engine.submit(Request(tuple(range(7)), GREEDY))
    run(engine, sequence)
    assert sequence.finish_reason is FinishReason.CONTEXT
    assert len(sequence.tokens) == 10
    with pytest.raises(ContextLengthError, match=r"10 tokens .* holds 10.*-c"):
        engine.submit(Request(tuple(range(10)), GREEDY))


def test_cancelling_leaves_a_usable_cache():
    engine, _ = make_engine()
    sequence = engine.submit(Request((1, 2, 3), GREEDY))
    for _ in range(4):
        engine.step()
    engine.cancel(sequence)
    assert sequence.finish_reason is FinishReason.CANCELLED
    assert not engine.busy
    prompt = (*sequence.tokens, 9)
    following = engine.submit(Request(prompt, GREEDY, max_tokens=3))
    run(engine, following)
    assert following.timings.cached_tokens > 3
    assert following.answer == expected_answer(prompt, 3)


def test_an_interrupted_step_voids_the_slot():
    engine, model = make_engine()
    sequence = engine.submit(Request((1, 2, 3), GREEDY))
    engine.step()
    forward, model.forward = model.forward, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    model.forward = forward
    assert sequence.finish_reason is FinishReason.CANCELLED
    following = engine.submit(Request((1, 2, 3, 4), GREEDY, max_tokens=2))
    run(engine, following)
    assert following.timings.cached_tokens == 0
    assert following.answer == expected_answer((1, 2, 3, 4), 2)


def test_nan_logits_are_an_error_and_not_an_answer():
    engine, model = make_engine()
    model.broken = True
    engine.submit(Request((1, 2, 3), GREEDY))
    with pytest.raises(ModelFileError, match="NaN"):
        engine.step()
    assert not engine.busy
    model.broken = False
    following = engine.submit(Request((1, 2, 3), GREEDY, max_tokens=2))
    run(engine, following)
    assert following.answer == expected_answer((1, 2, 3), 2)


def test_rows_past_the_last_token_are_never_chosen():
    engine, _ = make_engine()
    engine.n_tokens = 50
    sequence = engine.submit(Request((1, 2, 3), SamplingParams(seed=1), max_tokens=30))
    run(engine, sequence)
    assert max(sequence.answer) < 50


def test_logits_cover_every_position():
    engine, _ = make_engine()
    tokens = list(range(40))
    logits = engine.logits(tokens)
    assert logits.shape == (40, N_VOCAB)
    assert logits.argmax(axis=1).tolist() == [next_token(tokens[: i + 1]) for i in range(40)]


def test_logprobs_come_with_each_token():
    engine, _ = make_engine()
    engine.submit(Request((1,), GREEDY, max_tokens=1, n_logprobs=2))
    (event,) = engine.step()
    assert event.logprob is not None
    assert event.logprob.token == event.token == event.logprob.top[0][0]
    assert len(event.logprob.top) == 2


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request(()), "prompt is empty"),
        (Request((1, 200)), "token id 200"),
        (Request((-1,)), "token id -1"),
        (Request((1,), max_tokens=0), "max_tokens is 0"),
        (Request((1,), n_logprobs=98), "logprobs is 98"),
        (Request((1,), SamplingParams(logit_bias={500: 1.0})), "logit_bias has token id 500"),
    ],
)
def test_requests_that_can_never_run_are_refused(request_, says):
    engine, _ = make_engine()
    with pytest.raises(UsageError, match=says):
        engine.submit(request_)
    assert not engine.busy


def test_a_checkpoint_is_come_back_to():
    engine, _ = make_engine(n_slots=3)
    prompt = (3, 1, 4, 1, 5)
    run(engine, engine.submit(Request(prompt, params=GREEDY, max_tokens=1)))
    checkpoint = engine.checkpoint(prompt)
    with pytest.raises(UsageError, match="no free slot holds exactly these 4 tokens"):
        engine.checkpoint(prompt[:4])
    run(engine, engine.submit(Request((*prompt, 9), params=GREEDY, max_tokens=4)))
    assert engine.rewind(checkpoint)
    sequence = engine.submit(Request((*prompt, 2), params=GREEDY, max_tokens=3))
    run(engine, sequence)
    assert sequence.answer == expected_answer((*prompt, 2), 3)
    assert sequence.timings.cached_tokens == len(prompt)


def test_a_checkpoint_is_lost_when_another_prompt_takes_its_slot():
    engine, _ = make_engine()
    run(engine, engine.submit(Request((1, 2, 3), params=GREEDY, max_tokens=1)))
    checkpoint = engine.checkpoint((1, 2, 3))
    with pytest.raises(UsageError, match="2 free slots are needed"):
        engine.rewind(checkpoint, 2)
    busy = engine.submit(Request((8, 9), params=GREEDY, max_tokens=2))
    engine.step()
    with pytest.raises(UsageError, match="1 free slots are needed"):
        engine.rewind(checkpoint)
    run(engine, busy)
    assert not engine.rewind(checkpoint)
