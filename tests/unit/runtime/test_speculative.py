"""Guesses: what the index finds, and how long they are worth making."""

import numpy as np
import pytest

from pintpot.errors import UsageError
from pintpot.runtime.speculative import (
    Guesser,
    NgramIndex,
    Speculation,
    SpeculationParams,
    SpeculationType,
    StepCosts,
)


def search(tokens, n, at_most):
    """The rule, by a scan of the whole text."""
    best, longest = [], n - 1
    for place in range(len(tokens) - 1, n - 1, -1):
        length = 0
        while length < min(place, 32) and tokens[place - 1 - length] == tokens[-1 - length]:
            length += 1
        if length > longest:
            best, longest = (tokens[place:] * at_most)[:at_most], length
    return best


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_index_finds_what_a_scan_finds(n):
    rng = np.random.default_rng(n)
    # Few repetitions of each n-gram, so that all are among the candidates.
    text = rng.integers(0, {1: 60, 2: 12, 3: 5, 5: 3}[n], 120).tolist()
    text[60:75] = text[20:35]
    index = NgramIndex(n)
    found = 0
    for end in range(1, len(text)):
        guess = index.propose(text[:end], 4)
        assert guess == search(text[:end], n, 4)
        found += bool(guess)
    assert found


def test_the_longest_match_wins_and_then_the_latest():
    index = NgramIndex(2)
    assert index.propose([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3], 2) == [7, 9]
    assert NgramIndex(2).propose([5, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3], 2) == [8, 1]


def test_the_last_token_may_change_between_calls():
    index = NgramIndex(2)
    text = [1, 2, 3, 4, 1, 9]
    assert index.propose(text, 3) == []
    text[-1] = 2
    assert index.propose(text, 3) == [3, 4, 1]


def test_too_short_a_text_has_no_guess():
    index = NgramIndex(3)
    assert index.propose([], 3) == index.propose([1], 3) == index.propose([1, 2, 1], 3) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [({"size_n": 0}, "size-n is 0"), ({"size_m": 0}, "size-m is 0"), ({"size_m": 8}, "expected 1 to 7")],
)
def test_sizes_out_of_range_are_refused(options, says):
    with pytest.raises(UsageError, match=says):
        SpeculationParams(**options)


def test_an_unknown_type_is_refused():
    assert SpeculationType.parse("NGRAM-simple") is SpeculationType.NGRAM_SIMPLE
    with pytest.raises(UsageError, match=r"--spec-type 'draft'.*none, ngram-simple"):
        SpeculationType.parse("draft")


def costs(plain, token, *, recurrent=False, n=1):
    """What was measured of a machine where these are the seconds of a step and of one more token in it."""
    measured = StepCosts(recurrent)
    for _ in range(5):
        measured.observe(n, 0, plain)
        measured.observe(n, 4, plain + 4 * token)
    return measured


def test_guesses_are_longer_the_likelier_they_are_right():
    measured = costs(1.0, 0.3)
    lengths = [measured.best_length(7, p, 1) for p in (0.1, 0.4, 0.6, 0.8, 0.99)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (0, 7)


def test_nothing_is_guessed_where_a_token_costs_a_step():
    assert costs(1.0, 1.0).best_length(7, 0.99, 1) == 0
    assert costs(1.0, 0.0).best_length(7, 0.3, 1) == 7


def test_state_that_cannot_go_back_makes_guesses_dearer():
    p = 0.5
    assert costs(1.0, 0.3, recurrent=True).gain(2, p, 1) < costs(1.0, 0.3).gain(2, p, 1)
    # Of two tokens: right with p, both with p^2; computed again are 1 or 2 tokens with 1 - p and p (1 - p).
    again = (1 - p) * 1 + p * (1 - p) * 2
    expected = (1 + p + p * p) / (1 + 0.3 * (2 + again))
    assert costs(1.0, 0.3, recurrent=True).gain(2, p, 1) == pytest.approx(expected)


def test_other_sequences_wait_for_a_guess():
    assert costs(1.0, 0.3, n=4).gain(3, 0.7, 4) < costs(1.0, 0.3).gain(3, 0.7, 1)


def test_where_guesses_lose_they_are_tried_rarely_and_come_back():
    speculation = Speculation(SpeculationParams(size_n=1), recurrent=False)
    guesser = Guesser(speculation.params)
    text = [1, 2, 3, 1, 2, 3, 1]

    def guess():
        return speculation.guess(guesser, text, pending=1, room=9, n=1)

    assert guess() == []  # nothing was measured yet
    for _ in range(5):
        speculation.costs.observe(1, 0, 1.0)
    assert guess() == [2, 3]  # costs of guesses are not known: a few
    for _ in range(20):
        speculation.costs.observe(1, 3, 4.0)
    tried = [bool(guess()) for _ in range(640)]
    assert tried.count(True) == 20
    for _ in range(60):
        speculation.costs.observe(1, 3, 1.1)
    guesser.observe(20, 20)
    assert len(guess()) == 7


def test_a_step_has_room_for_so_many():
    always = Speculation(SpeculationParams(size_n=1, adaptive=False), recurrent=True)
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    for pending, room, most in ((1, 99, 7), (1, 3, 3), (5, 99, 3), (8, 99, 0), (1, -1, 0)):
        assert len(always.guess(Guesser(always.params), text, pending=pending, room=room, n=1)) == most
