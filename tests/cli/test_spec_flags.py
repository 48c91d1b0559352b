"""The flags of speculation: answers do not depend on them, guesses are counted, errors are one line."""

import json

import pytest

QUESTION = ("--temp", 0, "-n", 60, "--ignore-eos", "one two three one two three one two three one two")


def test_answers_do_not_depend_on_guesses(pintpot):
    runs = [("--spec-type", "none"), (), ("--spec-ngram-simple-size-n", 1, "--spec-ngram-simple-size-m", 4)]
    none, default, eager = (
        json.loads(pintpot("run", "demo", *flags, "--json", *QUESTION).out) for flags in runs
    )
    assert default["tokens"] == eager["tokens"] == none["tokens"]
    assert none["timings"]["drafted_tokens"] == none["timings"]["accepted_tokens"] == 0
    assert 0 <= eager["timings"]["accepted_tokens"] <= eager["timings"]["drafted_tokens"]
    assert eager["timings"]["drafted_tokens"] > 0


def test_guesses_are_told_after_an_answer(pintpot):
    result = pintpot("run", "demo", "--spec-ngram-simple-size-n", 1, *QUESTION)
    assert " drafted accepted), " in result.err


def test_an_accelerator_guesses_when_asked(pintpot):
    flags = (
        "run",
        "demo",
        "--accelerator",
        "cpu",
        "--vram",
        "12MiB",
        "--spec-ngram-simple-size-n",
        1,
        "--json",
    )
    silent = json.loads(pintpot(*flags, *QUESTION).out)
    assert silent["timings"]["drafted_tokens"] == 0
    asked = json.loads(pintpot(*flags, "--spec-type", "ngram-simple", *QUESTION).out)
    assert asked["timings"]["drafted_tokens"] > 0
    assert len(asked["tokens"]) == 60


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--spec-type", "magic"), "--spec-type 'magic': expected none, ngram-simple"),
        (("--spec-ngram-simple-size-m", 8), "--spec-ngram-simple-size-m is 8: expected 1 to 7"),
        (("--spec-ngram-simple-size-n", 0), "--spec-ngram-simple-size-n is 0"),
    ],
)
def test_wrong_values_are_one_line(pintpot, flags, says):
    result = pintpot("run", "demo", *flags, "hello")
    assert result.code != 0
    assert says in result.err
    assert result.err.count("\n") == 1
