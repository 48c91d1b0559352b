"""`run` and `plan` with an emulated accelerator: the same plan, its accounts, and errors in one line."""

import json

import pytest

DEMO = ("demo", "--accelerator", "cpu", "--vram")


def run_json(pintpot, *args):
    result = pintpot("run", *DEMO, *args, "--json", "--temp", 0, "-n", 12, "What does os.path.join do?")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_the_demo_runs_in_twelve_mebibytes(pintpot):
    got = run_json(pintpot, "12MiB", "-ctk", "f32", "-ctv", "f32")
    plain = pintpot(
        "run",
        "demo",
        "-ctk",
        "f32",
        "-ctv",
        "f32",
        "--json",
        "--temp",
        0,
        "-n",
        12,
        "What does os.path.join do?",
    )
    assert got["tokens"] == json.loads(plain.out)["tokens"]
    use = got["memory"]["accelerator"]
    assert use["used_bytes"] <= use["peak_bytes"] <= use["allowed_bytes"] == 12 << 20
    assert sum(use["by_kind"].values()) == use["used_bytes"]
    prompt, answer = got["timings"]["prompt_experts"], got["timings"]["answer_experts"]
    assert answer["hits"] + answer["misses"] == 11 * 4 * 2  # tokens after the first, layers, experts a token
    assert prompt["hits"] + prompt["misses"] == (3 * got["timings"]["prompt_tokens"] + 1) * 2
    assert answer["misses"] > 0


def test_run_obeys_what_plan_prints(pintpot):
    flags = ("--accelerator", "cpu", "--vram", "14MiB", "--gpu-experts", 2, "-c", 256)
    planned = json.loads(pintpot("plan", "demo", *flags, "--json").out)
    assert planned["experts_in_vram"] == [2, 2, 2, 2]
    use = run_json(pintpot, "14MiB", "--gpu-experts", 2, "-c", 256)["memory"]["accelerator"]
    assert use["used_bytes"] == planned["vram"]["total"]
    assert use["by_kind"]["experts"] == planned["vram"]["experts"]


def test_hits_and_misses_are_shown_after_an_answer(pintpot):
    result = pintpot("run", *DEMO, "24MiB", "-n", 4, "--ignore-eos", "hello")
    assert result.code == 0
    assert "note: the cache becomes q8_0" in result.err
    assert "answer's experts: " in result.err
    assert " hits, " in result.err
    assert " of 24 MiB" in result.err


def test_one_token_has_no_decode_to_count(pintpot):
    result = pintpot("run", *DEMO, "24MiB", "-n", 1, "hello")
    assert "prompt's experts: " in result.err
    assert "answer's experts" not in result.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run", "demo", "--vram", "3MiB", "x"), "--vram: there is no accelerator to use"),
        (("run", "demo", "--accelerator", "none", "-ngl", "3", "x"), "-ngl: there is no accelerator to use"),
        (("run", "demo", "--accelerator", "cpu", "x"), "such as --vram 12MiB"),
        (("run", "demo", "--accelerator", "cpu", "--vram", "lots", "x"), "--vram 'lots': expected a size"),
        (("run", "demo", "--accelerator", "tpu", "x"), "--accelerator 'tpu': expected auto, none, cpu, cuda"),
        (("run", *DEMO, "9MiB", "-ot", "x=Y", "x"), "-ot 'x=Y': expected PATTERN=CPU"),
        (("run", *DEMO, "9MiB", "--expert-policy", "best", "x"), "--expert-policy 'best': expected adaptive"),
        (("plan", "demo", "--accelerator", "cpu"), "takes its memory from --vram"),
        (("plan", "demo", "--accelerator", "cuda"), "expected auto, or cpu"),
    ],
)
def test_wrong_flags_are_named_in_one_line(pintpot, args, words):
    result = pintpot(*args)
    assert result.code == 2
    assert words in result.err
    assert result.err.count("\n") == 1


def test_slots_that_do_not_fit_are_refused(pintpot):
    result = pintpot("run", *DEMO, "12MiB", "--gpu-experts", 16, "-ngl", 4, "x")
    assert result.code == 1
    assert "--gpu-experts 16: 16 experts of each layer take 24.0 MiB" in result.err
