"""The sampler against plain definitions of each rule."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pintpot.errors import UsageError
from pintpot.runtime.sampler import Sampler, SamplingParams, token_logprob, top_indices

OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


def draws(logits, n=4000, **params):
    """Relative frequency of each token over n draws."""
    sampler = Sampler(SamplingParams(**{"seed": 1, "temperature": 1.0, **OFF, **params}))
    counts = np.bincount([sampler.sample(logits, []) for _ in range(n)], minlength=len(logits))
    return counts / n


def softmax(x):
    p = np.exp(x - x.max())
    return p / p.sum()


LOGITS = np.array([1.0, 3.0, 2.0, 0.0, 2.5], np.float32)


@given(st.integers(1, 3000), st.integers(1, 50), st.integers(0, 2**32 - 1), st.booleans())
def test_top_indices_is_a_stable_sort(n, k, seed, ties):
    rng = np.random.default_rng(seed)
    values = (rng.integers(0, 5, n) if ties else rng.standard_normal(n)).astype(np.float32)
    expected = np.argsort(-values, kind="stable")[:k]
    assert top_indices(values, k).tolist() == expected.tolist()


def test_greedy_takes_the_first_of_equal_maxima():
    sampler = Sampler(SamplingParams(temperature=0))
    assert sampler.sample(np.array([0, 2, 2, 1], np.float32), []) == 1


def test_plain_draws_follow_the_distribution():
    assert np.abs(draws(LOGITS) - softmax(LOGITS)).max() < 0.03


def test_temperature_divides_logits():
    assert np.abs(draws(LOGITS, temperature=2.0) - softmax(LOGITS / 2)).max() < 0.03


def test_top_k_keeps_the_k_best():
    seen = np.flatnonzero(draws(LOGITS, top_k=2))
    assert seen.tolist() == [1, 4]


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    p = softmax(LOGITS)
    assert p[1] < 0.6 < p[1] + p[4]
    assert np.flatnonzero(draws(LOGITS, top_p=0.6)).tolist() == [1, 4]
    assert np.flatnonzero(draws(LOGITS, top_p=0.0)).tolist() == [1]


def test_min_p_is_relative_to_the_best():
    cut = math.exp(-0.75)
    assert np.flatnonzero(draws(LOGITS, min_p=cut)).tolist() == [1, 4]


def test_typical_prefers_expected_surprise():
    # One dominant token: its surprise is far below the entropy of the two-way tail mixture.
    p = np.array([0.5, 0.25, 0.125, 0.125])
    entropy = -(p * np.log(p)).sum()
    nearest = int(np.argmin(np.abs(-np.log(p) - entropy)))
    seen = np.flatnonzero(draws(np.log(p).astype(np.float32), typical_p=0.01))
    assert seen.tolist() == [nearest]


def test_penalties_follow_their_formulas():
    logits = np.array([2.0, -2.0, 1.9], np.float32)
    greedy = {"temperature": 0.0}
    assert Sampler(SamplingParams(**greedy)).sample(logits, [0]) == 0
    assert Sampler(SamplingParams(**greedy, repeat_penalty=1.2)).sample(logits, [0]) == 2
    assert Sampler(SamplingParams(**greedy, frequency_penalty=0.06)).sample(logits, [0]) == 0
    assert Sampler(SamplingParams(**greedy, frequency_penalty=0.06)).sample(logits, [0, 0]) == 2
    assert Sampler(SamplingParams(**greedy, presence_penalty=0.2)).sample(logits, [0]) == 2
    # A negative logit is multiplied, not divided: a repeated token always becomes less likely.
    negative = np.array([-1.0, -1.1], np.float32)
    assert Sampler(SamplingParams(**greedy, repeat_penalty=1.5)).sample(negative, [0]) == 1


def test_penalties_look_back_as_far_as_asked():
    logits = np.array([2.0, 1.9], np.float32)
    params = {"temperature": 0.0, "presence_penalty": 0.5}
    history = [0, 1, 1]
    assert Sampler(SamplingParams(**params, repeat_last_n=2)).sample(logits, history) == 0
    assert Sampler(SamplingParams(**params, repeat_last_n=0)).sample(logits, [0]) == 0
    assert Sampler(SamplingParams(**params, repeat_last_n=-1)).sample(logits, [0, *[2] * 0]) == 1


def test_logit_bias_moves_and_leaves_the_input_alone():
    logits = LOGITS.copy()
    assert Sampler(SamplingParams(temperature=0, logit_bias={0: 5.0})).sample(logits, []) == 0
    assert Sampler(SamplingParams(temperature=0, logit_bias={1: -math.inf})).sample(logits, []) == 4
    assert np.array_equal(logits, LOGITS)


def test_equal_seeds_give_equal_answers():
    logits = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    a, b = (Sampler(SamplingParams(seed=7)) for _ in range(2))
    assert [a.sample(logits, []) for _ in range(50)] == [b.sample(logits, []) for _ in range(50)]


def test_logprobs_are_those_of_the_model():
    lp = token_logprob(LOGITS, 2, 3)
    expected = np.log(softmax(LOGITS.astype(np.float64)))
    assert lp.logprob == pytest.approx(expected[2], abs=1e-6)
    assert [t for t, _ in lp.top] == [1, 4, 2]
    assert [p for _, p in lp.top] == pytest.approx(expected[[1, 4, 2]], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1), ("temperature", math.nan), ("temperature", math.inf), ("top_k", -1), ("top_p", 1.5),
     ("min_p", -0.1), ("typical_p", 2), ("repeat_penalty", 0), ("repeat_last_n", -2), ("seed", -5)],
)  # fmt: skip
def test_bad_values_are_refused_by_name(name, value):
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        SamplingParams(**{name: value})
