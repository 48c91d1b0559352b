"""`pintpot imatrix` as a user meets it."""

import re

import numpy as np
import pytest

from pintpot.quantization.collect import Collector
from pintpot.quantization.importance import read_imatrix


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    words = ["rain", "falls", "on", "the", "plain", "while", "foxes", "jump", "over", "lazy", "dogs"]
    path.write_text(" ".join(np.random.default_rng(0).choice(words, 600)), encoding="utf-8")
    return path


@pytest.fixture
def collected(pintpot, toy, text, tmp_path):
    """Collects from the toy model and returns the file."""

    def make(*args, name="i.gguf", arch="qwen3moe"):
        result = pintpot("imatrix", toy(arch), text, "-o", tmp_path / name, "-c", 32, "--chunks", 3, *args)
        assert result.code == 0, result.err
        return tmp_path / name, result

    return make


def test_collects_and_says_what_it_did(collected, text):
    path, result = collected()
    assert result.out == ""
    assert re.search(r"i\.gguf: \d+ tensors, 3 chunks of 32 tokens; perplexity [\d.]+ ± [\d.]+", result.err)
    got = read_imatrix(path)
    assert got.datasets == (str(text),)
    assert got.tensors["blk.0.attn_q.weight"].counts.tolist() == [96]


def test_names_the_experts_the_text_never_reached(collected):
    path, result = collected("-c", 4, "--chunks", 1)
    unreached = {n: t.unreached for n, t in read_imatrix(path).tensors.items() if "down_exps" in n}
    assert sum(map(len, unreached.values())) > 0
    total = re.search(r"experts the text never reached: (\d+) of (\d+) \(", result.err)
    assert int(total[1]) == sum(map(len, unreached.values()))
    for name, experts in unreached.items():
        if len(experts):
            assert f"  layer {name.split('.')[1]}: {', '.join(map(str, experts[:16]))}" in result.err


def test_flags_of_llama_imatrix(pintpot, toy, text, tmp_path):
    out = tmp_path / "i.gguf"
    args = ("-m", toy(), "-f", text, "-o", out, "-c", 32, "--chunks", 2, "--process-output", "--no-ppl")
    result = pintpot("imatrix", *args, "--chunk", 1, "--parse-special", "-b", 8, "-t", 1)
    assert result.code == 0
    assert "perplexity" not in result.err
    assert "output.weight" in read_imatrix(out).tensors


@pytest.mark.parametrize("form", [("MODEL", "TEXT"), ("-m", "MODEL", "TEXT"), ("-f", "TEXT", "MODEL")])
def test_names_with_and_without_flags(pintpot, toy, text, tmp_path, form):
    known = {"MODEL": toy(), "TEXT": text}
    args = (known.get(a, a) for a in form)
    assert pintpot("imatrix", *args, "-o", tmp_path / "i.gguf", "-c", 8, "--chunks", 1).code == 0
    assert read_imatrix(tmp_path / "i.gguf").datasets == (str(text),)


def test_merging_files_alone_and_with_text(pintpot, collected, tmp_path):
    first, _ = collected(name="a.gguf")
    second, _ = collected("--from-chunk", 3, name="b.gguf")
    both = tmp_path / "both.gguf"
    assert pintpot("imatrix", "--in-file", first, "--in-file", second, "-o", both).code == 0
    added, _ = collected("--from-chunk", 3, "--in-file", first, name="added.gguf")
    for path in (both, added):
        got = read_imatrix(path)
        assert got.chunk_count == 6
        assert len(got.datasets) == 2
        for name, tensor in got.tensors.items():
            parts = [read_imatrix(p).tensors[name] for p in (first, second)]
            np.testing.assert_array_equal(tensor.counts, parts[0].counts + parts[1].counts)
            np.testing.assert_allclose(tensor.sum2, parts[0].sum2 + parts[1].sum2, rtol=1e-6)


def test_statistics(pintpot, collected):
    path, _ = collected()
    for args in ((path,), ("--in-file", path)):
        result = pintpot("imatrix", "--show-statistics", *args)
        assert result.code == 0
        for name in read_imatrix(path).tensors:
            assert name in result.out
        assert re.search(r"ffn_down_exps\.weight .*\d%", result.out)
        assert "3 chunks of 32 tokens" in result.out
        assert max(map(len, result.out.splitlines()[:-1])) <= 80


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ((), 2, "give MODEL and TEXT"),
        (("MODEL",), 2, "give MODEL and TEXT"),
        (("-m", "MODEL", "-f", "TEXT", "more"), 2, "more: one name too many"),
        (("MODEL", "missing.txt"), 1, "missing.txt: No such file"),
        (("missing.gguf", "TEXT"), 1, "missing.gguf: no such file"),
        (("MODEL", "TEXT", "-c", "100000"), 2, "give longer text or a smaller chunk"),
        (("MODEL", "TEXT", "-o", "MODEL"), 2, "exists already"),
        (("MODEL", "TEXT", "-o", "nosuch/i.gguf"), 2, "nosuch: no such folder"),
        (("MODEL", "TEXT", "-o", ".", "--force"), 2, ".: is a folder"),
        (("MODEL", "TEXT", "--in-file", "TEXT"), 1, "is no importance matrix"),
        (("--in-file", "MODEL"), 1, "is no importance matrix"),
        (("--show-statistics",), 2, "give one imatrix file"),
        (("--show-statistics", "TEXT"), 1, "is no importance matrix"),
    ],
)
def test_mistakes_are_told_in_one_line(pintpot, toy, text, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    known = {"MODEL": str(toy()), "TEXT": str(text)}
    result = pintpot("imatrix", *(known.get(a, a) for a in args))
    assert result.code == code
    assert message in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("args", "chunks_written"), [((), None), (("-ofreq", 1), 2), (("-ofreq", 2), 2)])
def test_interruption_leaves_nothing_or_the_last_write(
    pintpot, toy, text, tmp_path, monkeypatch, args, chunks_written
):
    """Ctrl-C during the third chunk of five."""
    run = Collector.run

    def interrupted(collector):
        for done in run(collector):
            if done == 3:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(Collector, "run", interrupted)
    result = pintpot("imatrix", toy(), text, "-o", tmp_path / "i.gguf", "-c", 32, "--chunks", 5, *args)
    out = tmp_path / "i.gguf"
    kept = f"{out} holds the first {chunks_written}" if chunks_written else "nothing was written"
    assert (result.code, result.err) == (130, f"interrupted after 2 of 5 chunks: {kept}\n")
    assert [p.name for p in tmp_path.iterdir()] == ([] if chunks_written is None else ["i.gguf"])
    if chunks_written:
        assert read_imatrix(tmp_path / "i.gguf").chunk_count == chunks_written
