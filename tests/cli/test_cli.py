"""The command line as a user meets it: output, errors in one line, exit codes."""

import inspect
import json
import subprocess
import sys

import pytest

from pintpot.cli.run import run
from pintpot.llm import load
from pintpot.runtime.sampler import SamplingParams

GREEDY = ("--temp", "0")


def one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


def test_run_streams_an_answer_and_prints_speed_and_memory(pintpot, toy):
    result = pintpot("run", toy(), "hello", "-n", 8, *GREEDY)
    assert result.code == 0
    assert result.out.strip()
    assert "answer 8 tokens" in result.err
    assert "tok/s" in result.err
    assert "mapped files" in result.err


def test_run_json_is_one_object_with_all_facts(pintpot, toy):
    args = ("run", toy(), "hello", "--raw", "-n", 5, "--json", "--logprobs", 3, *GREEDY)
    first, second = (json.loads(pintpot(*args).out) for _ in range(2))
    assert first["tokens"] == second["tokens"]
    assert len(first["tokens"]) == 5
    assert first["finish_reason"] == "length"
    assert first["timings"]["generated_tokens"] == 5
    assert first["memory"]["weights_bytes"] > 0
    assert [len(lp["top"]) for lp in first["logprobs"]] == [3] * 5
    assert [lp["token"] for lp in first["logprobs"]] == first["tokens"]
    for lp in first["logprobs"]:
        best = lp.pop("top")[0]
        assert best == lp
        assert bytes(lp["bytes"]).decode("utf-8", "replace") == lp["text"]


def test_logprobs_spell_their_tokens(pintpot):
    args = ("run", "demo", "What does os.path.join do?", "-n", 12, "--json", "--logprobs", 0, *GREEDY)
    answer = json.loads(pintpot(*args).out)
    assert "".join(lp["text"] for lp in answer["logprobs"]) == answer["text"]


def test_a_default_context_that_memory_cannot_hold_is_halved_and_told(pintpot, toy, monkeypatch):
    args = ("run", toy(), "hello", "-n", 1, "--json", *GREEDY)
    whole = json.loads(pintpot(*args).out)
    assert whole["ctx_tokens"] == 4096
    limit = whole["memory"]["cache_bytes"] // 3
    monkeypatch.setattr("pintpot.runtime.cache.memory_limit_bytes", lambda: limit)
    result = pintpot(*args)
    assert result.code == 0
    ctx_tokens = json.loads(result.out)["ctx_tokens"]
    assert ctx_tokens < 4096
    assert f"the context is {ctx_tokens:,} tokens" in one_line(result.err)
    refused = pintpot(*args, "-c", 4096)
    assert refused.code == 1
    assert "choose a smaller context (-c)" in one_line(refused.err)


def test_equal_seeds_give_equal_answers(pintpot, toy):
    args = ("run", toy(), "hello", "-n", 12, "--temp", 2, "--seed", 7)
    assert pintpot(*args).out == pintpot(*args).out


def test_results_do_not_depend_on_threads_or_batch(pintpot, toy):
    base = ("run", toy("qwen35moe"), "hello " * 30, "--raw", "-n", 6, "--json", *GREEDY)
    tokens = [
        json.loads(pintpot(*base, *extra).out)["tokens"]
        for extra in [("-t", 1), ("-t", 3), ("-t", 2, "-b", 7)]
    ]
    assert tokens[0] == tokens[1] == tokens[2]


@pytest.mark.parametrize("cache", ["f32", "f16", "q8_0"])
def test_cache_types_run(pintpot, toy, cache):
    result = pintpot("run", toy(), "hello", "-n", 4, "-ctk", cache, "-ctv", cache, *GREEDY)
    assert (result.code, result.out.strip() != "") == (0, True)


def test_prompt_from_a_file(pintpot, toy, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("hello", encoding="utf-8")
    from_file = pintpot("run", toy(), "-f", path, "-n", 6, "-q", *GREEDY)
    direct = pintpot("run", toy(), "hello", "-n", 6, "-q", *GREEDY)
    assert from_file.out == direct.out
    assert from_file.err == ""


def test_logit_bias_forces_a_token(pintpot, toy):
    result = pintpot("run", toy(), "hi", "-n", 3, "--json", "-l", "70+1000", *GREEDY)
    assert json.loads(result.out)["tokens"] == [70, 70, 70]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["run", "nosuch.gguf", "hi"], 1, "nosuch.gguf: no such file"),
        (["run", "nosuch.gguf"], 1, "nosuch.gguf: no such file"),
        (["run", "TOY", "hi", "-c", "1000000000"], 1, "choose a smaller context (-c)"),
        (["run", "TOY", "hi", "--top-p", "3"], 2, "top-p is 3.0"),
        (["run", "TOY", "hi", "-ctk", "q4"], 2, "cache type 'q4'"),
        (["run", "TOY", "hi", "-l", "x"], 2, "--logit-bias 'x'"),
        (["run", "TOY", "hi", "-n", "0"], 2, "-n 0"),
        (["run", "TOY", "hi", "--logprobs", "2"], 2, "--logprobs needs --json"),
        (["run", "TOY", "hi", "--raw", "-sys", "be brief"], 2, "--raw takes no system prompt"),
        (["run", "TOY", "hello " * 50, "-c", "16"], 1, "holds 16"),
        (["bench", "TOY", "-p", "x"], 2, "-p 'x'"),
        (["bench", "TOY", "-p", "0", "-n", "0"], 2, "nothing to measure"),
        (["synth", "nosuch", "out.gguf"], 2, "nosuch"),
        (["show", "FOLDER"], 1, "is a folder"),
    ],
)
def test_errors_are_one_line_with_the_right_code(pintpot, toy, tmp_path, monkeypatch, args, code, says):
    monkeypatch.chdir(tmp_path)
    names = {"TOY": toy(), "FOLDER": tmp_path}
    result = pintpot(*[names.get(a, a) for a in args])
    assert result.code == code
    assert says in one_line(result.err)
    assert result.out == ""


def test_a_damaged_file_is_one_line(pintpot, toy, tmp_path):
    whole = toy().read_bytes()
    for name, data in {
        "empty.gguf": b"",
        "magic.gguf": b"nope" + whole[4:],
        "cut.gguf": whole[: len(whole) // 2],
        "header.gguf": whole[:100],
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        for command in (["show", path], ["run", path, "hi"], ["bench", path]):
            result = pintpot(*command)
            assert result.code == 1, command
            assert name in one_line(result.err)


def test_an_unexpected_failure_shows_no_traceback(pintpot, toy, monkeypatch):
    monkeypatch.setattr("pintpot.llm.load", lambda *_, **__: 1 / 0)
    result = pintpot("run", toy(), "hi")
    assert result.code == 70
    assert "internal error: ZeroDivisionError" in one_line(result.err)


def test_show_counts_every_byte(pintpot, toy):
    path = toy("qwen35moe", "Q4_K_M")
    facts = json.loads(pintpot("show", path, "--json", "--tensors").out)
    assert facts["architecture"] == "qwen35moe"
    assert facts["weights_bytes"] == sum(t["bytes"] for t in facts["tensors"])
    assert facts["weights_bytes"] == sum(t["bytes"] for t in facts["types"].values())
    assert facts["weights_bytes"] < path.stat().st_size
    assert "Q4_K" in facts["types"]
    text = pintpot("show", path).out
    assert "gated delta net" in text
    assert "experts" in text


def test_bench_reports_each_test(pintpot, toy):
    result = pintpot("bench", toy(), "-p", "16,32", "-n", 4, "-r", 2, "-d", "0,8", "-o", "json")
    rows = json.loads(result.out)
    assert [r["test"] for r in rows] == ["pp16", "pp32", "pp16 @ d8", "pp32 @ d8", "tg4", "tg4 @ d8"]
    for r in rows:
        samples = r["samples_tokens_s"]
        assert len(samples) == 2
        assert min(samples) > 0
        assert r["tokens_s"] == r["median_tokens_s"] == pytest.approx(sum(samples) / 2)
        assert r["stddev_tokens_s"] == pytest.approx(abs(samples[0] - samples[1]) / 2**0.5)
    for style, begins in (("md", "| model"), ("csv", "model,"), ("table", "┏")):
        assert pintpot("bench", toy(), "-p", 8, "-n", 0, "-r", 1, "-o", style).out.startswith(begins)


def test_bench_warms_up_with_the_whole_test(pintpot, toy, monkeypatch):
    runs = []
    monkeypatch.setattr(
        "pintpot.runtime.measure.SpeedMeter.run", lambda _, test: runs.append(test) or float(len(runs))
    )
    result = pintpot("bench", toy(), "-p", 64, "-n", 9, "-r", 3, "-d", "5,0", "-npl", "1,2", "-o", "json")
    at_0 = [("pp", 64, 0, 1), ("tg", 9, 0, 1), ("tg", 9, 0, 2)]
    at_5 = [("pp", 64, 5, 1), ("tg", 9, 5, 1), ("tg", 9, 5, 2)]
    assert runs == [test for test in (*at_0, *at_5) for _ in range(4)]  # shallow first: depths build up
    rows = json.loads(result.out)
    asked = ["pp64 @ d5", "pp64", "tg9 @ d5", "tg9 x2 @ d5", "tg9", "tg9 x2"]
    assert [r["test"] for r in rows] == asked
    assert [r["n_parallel"] for r in rows] == [1, 1, 1, 2, 1, 2]
    assert rows[0]["samples_tokens_s"] == [14, 15, 16]
    assert "runs once unmeasured first" in " ".join(pintpot("bench", "--help").out.replace("│", "").split())


def test_bench_refuses_no_sequences(pintpot, toy):
    result = pintpot("bench", toy(), "-npl", "4,0")
    assert result.code == 2
    assert "-npl '4,0': at least one sequence" in one_line(result.err)


def test_synth_refuses_to_overwrite(pintpot, tmp_path):
    path = tmp_path / "out.gguf"
    path.write_bytes(b"mine")
    result = pintpot("synth", "llama", path, "--preset", "toy")
    assert result.code == 2
    assert "--force" in one_line(result.err)
    assert path.read_bytes() == b"mine"
    assert pintpot("synth", "llama", path, "--preset", "toy", "--quant", "Q8_0", "--force").code == 0
    assert path.read_bytes()[:4] == b"GGUF"


def test_a_closed_pipe_is_silent(toy):
    command = [
        sys.executable,
        "-m",
        "pintpot.cli",
        "run",
        str(toy()),
        "hi",
        "-n",
        "200",
        "--temp",
        "0",
        "--ignore-eos",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        errors = process.stderr.read()
    assert b"Traceback" not in errors


def test_defaults_are_those_of_the_python_api():
    flags = inspect.signature(run).parameters
    names = {"temp": "temperature", "typical": "typical_p"}
    api = SamplingParams()
    for flag in list(flags)[list(flags).index("temp") : list(flags).index("seed")]:
        assert flags[flag].default == getattr(api, names.get(flag, flag)), flag
    loaded = inspect.signature(load).parameters
    for flag, name in (("batch_size", "batch"), ("cache_type_k", "cache_type_k"), ("ctx_size", "ctx")):
        assert flags[flag].default == loaded[name].default


@pytest.mark.parametrize(
    "args", [["--help"], ["plan", "demo"], ["plan", "qwen3.5:2b-q4_k_m", "--ram", "32GiB"]]
)
def test_quick_commands_need_no_heavy_module(args):
    code = (
        f"import sys; sys.argv = {['pintpot', *args]}\n"
        "from pintpot.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'numpy', 'torch', 'tokenizers', 'jinja2', 'transformers', 'ssl'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
