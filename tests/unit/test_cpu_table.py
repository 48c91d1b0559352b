"""The measuring side of the CPU table: ratios, goals, resuming, the guard, the words. No program is timed."""

import argparse
import itertools
import json
import os
import sys

import pytest
from benchmarks import cpu_table, guard, others, record
from benchmarks.alternate import alternate, compared
from benchmarks.cpu_cases import GROUPS, Choice, Goal, ModelFile, jobs
from benchmarks.cpu_judge import goal_fields, judge
from benchmarks.plot import plot
from benchmarks.programs import ProgramError, find_program, name_test, run, version
from benchmarks.python_share import TimedModule, python_share
from benchmarks.table_text import in_order, last_table, markdown, row_line, summary, work

from pintpot import _native
from pintpot.kernels import cpu
from pintpot.synth.synthesize import synthesize


def make_row(key, ours, theirs, goal=None, **fields):
    group, _, test = key.split("/")[:3]
    row = {
        "key": key,
        "group": group,
        "work": "35B-A3B",
        "type": "Q4_K",
        "test": test,
        "cache_type": "f16",
        "unit": "tok/s",
        "goal": goal_fields(goal),
        **fields,
    }
    return row | compared({"pintpot": ours, "llama_cpp": theirs})


def make_run(*rows, date="2026-11-25T10:00:00+00:00", **fields):
    made = {
        "benchmark": "cpu_table",
        "date": date,
        "commit": "abc",
        "threads": 2,
        "quick": False,
        "machine": {"cpu": "Some CPU", "memory_bytes": 24 << 30},
        "llama_cpp": "b1",
        "bandwidth": [{"bytes_s": {"1": 30e9, "2": 40e9}}, {"bytes_s": {"2": 50e9}}],
        "rows": list(rows),
        **fields,
    }
    judge(made)
    return made


def store(path, *runs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(runs))
    return path


# --- rounds and ratios


def test_the_order_of_programs_swaps_every_round():
    order = []
    programs = {
        name: lambda name=name: order.append(name) or {"pp8": [float(len(order))], "tg4": [1.0, 2.0]}
        for name in ("pintpot", "llama_cpp")
    }
    samples = alternate(programs, 3)
    assert order == ["pintpot", "llama_cpp", "llama_cpp", "pintpot", "pintpot", "llama_cpp"]
    assert samples["pp8"] == {"pintpot": [1, 4, 5], "llama_cpp": [2, 3, 6]}
    assert samples["tg4"]["pintpot"] == [1, 2] * 3


def test_ratios_are_of_rounds_and_not_of_medians():
    found = compared({"pintpot": [10.0, 40.0, 30.0], "llama_cpp": [10.0, 20.0, 60.0]})
    assert found == {
        "pintpot_median": 30,
        "llama_cpp_median": 20,
        "ratio_median": 1,
        "ratio_min": 0.5,
        "ratio_max": 2,
    }
    assert compared({"pintpot": [2.0], "llama_cpp": [6.0]}, lower_is_better=True)["ratio_median"] == 3


# --- jobs


@pytest.mark.parametrize("quick", [False, True])
def test_rows_have_names_of_their_own_and_goals_have_rows(quick):
    wanted = jobs(Choice(quick=quick))
    keys = [job.key(test) for job in wanted for test in job.tests]
    assert len(set(keys)) == len(keys)
    assert all(set(job.goals) <= set(job.tests) for job in wanted)
    files = [job.file.name for job in wanted]
    assert len(list(itertools.groupby(files))) == len(set(files))  # one file after the other
    assert {job.group for job in wanted} == set(GROUPS) - ({"depth-100k"} if quick else set())


def test_groups_and_types_are_chosen():
    assert {(j.group, j.file.quant) for j in jobs(Choice(("moe", "delta"), ("Q6_K",)))} == {("moe", "Q6_K")}


def test_names_of_tests():
    assert [name_test(512, 0), name_test(0, 64, 4096), name_test(0, 32, 128, 4)] == [
        "pp512",
        "tg64@d4096",
        "tg32x4@d128",
    ]


# --- goals


def test_goals_are_judged_by_ratio_and_by_the_best_bandwidth():
    row = make_row("moe/a/tg64", [40.0], [20.0], Goal(ratio=1.8, bandwidth=0.7), token_bytes=8e8)
    judged = make_run(row)["rows"][0]
    assert judged["pintpot_bytes_s"] == 32e9
    assert judged["pintpot_bandwidth"] == pytest.approx(0.64)  # of 50 GB/s, not of 40
    assert [check["holds"] for check in judged["checks"]] == [True, False]
    assert judged["holds"] is False
    either = dict(row, goal=goal_fields(Goal(ratio=1.8, bandwidth=0.7, either=True)))
    assert make_run(either)["rows"][0]["holds"] is True
    assert make_run(make_row("moe/a/tg64", [1.0], [1.0]))["rows"][0]["holds"] is None


def test_a_row_has_the_bandwidth_that_was_read_beside_it():
    row = make_row("moe/a/tg64", [40.0], [20.0], Goal(bandwidth=0.7), token_bytes=8e8, memory_median=36e9)
    judged = make_run(row)["rows"][0]
    assert judged["pintpot_bandwidth"] == pytest.approx(32 / 36)
    assert judged["llama_cpp_bandwidth"] == pytest.approx(16 / 36)
    assert judged["holds"] is True


def test_depth_costs_its_bytes_over_bandwidth():
    base = make_row("depth/a/tg32", [100.0], [100.0], token_bytes=1e8)
    deep = make_row(
        "depth/a/tg32@d16384",
        [50.0],
        [20.0],
        Goal(ratio=2.5, depth_cost=2.0),
        token_bytes=2e8,
        depth_bytes=5e8 / 2,
        base="depth/a/tg32",
    )
    judged = make_run(dict(base), dict(deep))["rows"][1]
    assert judged["pintpot_depth_cost"] == pytest.approx(2)  # 10 ms where 250 MB take 5
    assert judged["llama_cpp_depth_cost"] == pytest.approx(8)
    assert judged["holds"] is True
    assert make_run(deep)["rows"][0]["holds"] is False  # the row without depth is missing


# --- the results file


def test_a_run_goes_on_where_it_was_stored(tmp_path):
    path = tmp_path / "machine" / "commit.json"
    record.store(path, {"benchmark": "other"})
    log = record.Log(path, {"benchmark": "cpu_table", "threads": 2})
    log.run["rows"] = [1]
    log.save()
    assert record.Log(path, {"benchmark": "cpu_table", "threads": 4}, resume=True).run.get("rows") is None
    assert record.Log(path, {"benchmark": "cpu_table", "threads": 2}, resume=True).run["rows"] == [1]
    assert "rows" not in record.Log(path, {"benchmark": "cpu_table", "threads": 2}).run
    assert [run["benchmark"] for run in record.read_runs(path)] == ["other"] + ["cpu_table"] * 3


@pytest.fixture
def table_of(tmp_path, monkeypatch):
    """A table of toy files whose programs answer at once; `calls` are the jobs they ran for."""
    toy = synthesize(tmp_path / "toy.gguf", "qwen35moe", preset="toy", quant="Q8_0").path
    calls = []

    def answer(self, job, path):
        calls.append(job)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {p: lambda: {t: [2.0] for t in job.tests} for p in ("pintpot", "llama_cpp")}

    def write(self, folder):
        path = folder / f"{self.name}.gguf"
        path.write_bytes(toy.read_bytes())
        return path

    monkeypatch.setattr(ModelFile, "write", write)
    monkeypatch.setattr(cpu_table.Table, "_programs", answer)
    monkeypatch.setattr(cpu_table, "find_program", lambda name, folder: name)
    monkeypatch.setattr(cpu_table, "version", lambda program: "b1")
    monkeypatch.setattr(cpu_table, "ram_read_bytes_s", lambda threads, n: dict.fromkeys(threads, 1e9))
    monkeypatch.setattr(cpu_table.OthersWatch, "share", lambda self: 0.01)  # whatever else runs here

    def make(resume):
        options = {"threads": 2, "quick": False, "rounds": 2, "keep": False, "limit": None, "llama_bin": None}
        return cpu_table.Table(argparse.Namespace(**options, output=tmp_path / "result.json", resume=resume))

    return make, calls


def test_an_interrupted_table_resumes_with_what_is_missing(table_of, tmp_path):
    make, calls = table_of
    wanted = jobs(Choice(("dense-4b", "depth"), ("Q4_K", "Q6_K")))
    assert [job.file.quant for job in wanted] == ["Q4_K", "Q6_K", "Q4_K", "Q4_K"]
    files = tmp_path / "files"
    files.mkdir()
    with pytest.raises(KeyboardInterrupt):
        make(False).measure(wanted, files)
    stored = last_table(tmp_path / "result.json")
    assert [row["key"] for row in stored["rows"]] == [wanted[0].key(test) for test in wanted[0].tests]
    make(True).measure(wanted, files)
    assert calls == [wanted[0], wanted[1], *wanted[1:]]
    stored = last_table(tmp_path / "result.json")
    assert [row["key"] for row in stored["rows"]] == [job.key(test) for job in wanted for test in job.tests]
    deep = next(row for row in stored["rows"] if row["test"] == "tg32@d32768")
    assert deep["depth_bytes"] == 32768 * 2 * 2 * 128 * 2  # one layer, two heads of 128, keys and values, f16
    assert deep["samples"] == {"pintpot": [2], "llama_cpp": [2]}  # one round, for filling takes long
    assert stored["rows"][0]["samples"] == {"pintpot": [2, 2], "llama_cpp": [2, 2]}
    assert list(files.iterdir()) == []  # each was deleted after its last job


def test_a_program_that_fails_costs_its_rows_only(table_of, tmp_path, monkeypatch):
    make, calls = table_of
    calls += [None, None]  # no interruption

    def fail(self, job, path):
        def stop():
            raise ProgramError("llama-bench: exit 1\nout of memory")

        return {"pintpot": stop}

    monkeypatch.setattr(cpu_table.Table, "_programs", fail)
    wanted = jobs(Choice(("delta",)))
    (tmp_path / "files").mkdir()
    table = make(False)
    table.measure(wanted, tmp_path / "files")
    assert [row["failed"] for row in table.run["rows"]] == ["llama-bench: exit 1\nout of memory"] * 2
    assert row_line(table.run["rows"][0]).endswith("failed: llama-bench: exit 1")
    assert table._missing(wanted[0])


def test_a_disturbed_row_is_marked_and_measured_again(table_of, tmp_path, monkeypatch):
    make, calls = table_of
    calls += [None, None]
    wanted = jobs(Choice(("delta",)))
    (tmp_path / "files").mkdir()
    monkeypatch.setattr(cpu_table.OthersWatch, "share", lambda self: 0.5)
    table = make(False)
    table.measure(wanted, tmp_path / "files")
    row = table.run["rows"][0]
    assert row_line(row).endswith("DISTURBED: others used 50% of the CPUs")
    assert f"Disturbed by other programs: `{row['key']}`" in markdown(table.run)
    assert guard.changes(table.run, table.run) == []
    monkeypatch.setattr(cpu_table.OthersWatch, "share", lambda self: 0.01)
    table = make(True)
    table.measure(wanted, tmp_path / "files")
    assert [row["others_share"] for row in table.run["rows"]] == [0.01, 0.01]
    assert len(calls) == 4


def test_own_processes_are_no_others(tmp_path):
    watch = others.OthersWatch()
    run([sys.executable, "-c", "sum(range(3_000_000))"])
    assert 0 <= watch.share() <= 1
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 999 99 4 5 6 0 0\ncpu0 1 1\n")
    assert others._busy_seconds(stat) == pytest.approx(165 / os.sysconf("SC_CLK_TCK"))
    assert others._busy_seconds(tmp_path / "none") is None


# --- programs


def test_programs_that_fail_or_hang_say_so():
    with pytest.raises(ProgramError, match="no-such-program: not found on PATH"):
        find_program("no-such-program")
    with pytest.raises(ProgramError, match="exit 3\nwhy"):
        run([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(ProgramError, match=r"took longer than 0 s"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)


def test_a_version_is_read_from_either_stream(tmp_path):
    program = tmp_path / "llama-bench"
    program.write_text("#!/bin/sh\necho 'version: 7 (abc)' >&2\n")
    program.chmod(0o755)
    assert version(str(program)) == "7 (abc)"


# --- the guard


def ratio_row(key, median, least, most):
    return {"key": key, "ratio_median": median, "ratio_min": least, "ratio_max": most}


@pytest.mark.parametrize(
    ("new", "lost"),
    [
        ((1.80, 1.75, 1.85), True),  # 10% down, rounds apart
        ((1.80, 1.75, 1.96), False),  # its best round reaches the old ones
        ((1.91, 1.90, 1.92), False),  # 4.5% down
        ((2.50, 2.40, 2.60), False),
    ],
)
def test_a_row_has_lost_when_it_fell_beyond_tolerance_and_spread(new, lost):
    old = {"rows": [ratio_row("a", 2.0, 1.95, 2.05), ratio_row("gone", 1, 1, 1)]}
    changed = guard.changes({"rows": [ratio_row("a", *new), ratio_row("added", 1, 1, 1), {"key": "f"}]}, old)
    assert [(change.key, change.lost) for change in changed] == [("a", lost)]


def test_the_guard_finds_the_run_before_and_names_what_lost(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "some-cpu"
    old = make_run(make_row("moe/a/tg64", [20.0], [10.0]), date="2026-11-02", commit="old")
    older = make_run(make_row("moe/a/tg64", [90.0], [10.0]), date="2026-11-01")
    quick = make_run(make_row("moe/a/tg64", [90.0], [10.0]), date="2026-11-03", quick=True)
    new = make_run(make_row("moe/a/tg64", [18.0], [10.0]), date="2026-11-04")
    store(folder / "old.json", older, old, quick, {"benchmark": "quantize", "date": "2026-11-03"})
    path = store(folder / "new.json", new)
    monkeypatch.setattr(guard, "RESULTS", tmp_path)
    monkeypatch.setattr(guard, "machine_name", lambda: "some-cpu")
    monkeypatch.setattr(sys, "argv", ["guard", str(path)])
    with pytest.raises(SystemExit) as stop:
        guard.main()
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert "LOST moe/a/tg64: 2.00 -> 1.80 (-10%)" in out
    assert "1 rows compared with old of 2026-11-02, 1 lost" in out
    monkeypatch.setattr(sys, "argv", ["guard", str(path), str(path)])
    with pytest.raises(SystemExit) as stop:
        guard.main()
    assert stop.value.code == 0
    monkeypatch.setattr(guard, "machine_name", lambda: "another")
    monkeypatch.setattr(sys, "argv", ["guard", str(path)])
    with pytest.raises(SystemExit) as stop:
        guard.main()
    assert stop.value.code == 2


# --- words


def table_run():
    goal = Goal(ratio=1.8, bandwidth=0.7)
    return make_run(
        make_row("depth/d/tg32@d16384/q8_0", [9.0], [3.0], Goal(ratio=2.5), cache_type="q8_0"),
        make_row("moe/a/tg64", [40.0, 44.0, 42.0], [20.0, 20.0, 20.0], goal, token_bytes=1e9),
        make_row("moe/b/tg64", [150.0], [100.0], goal, token_bytes=2e8, type="Q6_K"),
        make_row("moe/a/pp512", [300.0], [100.0], Goal(ratio=2.5)),
        make_row("load/a/load", [0.5], [1.5], Goal(ratio=1.0), unit="s", work="load to first token"),
        {"key": "delta/x/pp512", "group": "delta", "failed": "exit 1"},
    )


def test_markdown_has_every_row_in_order():
    lines = markdown(table_run()).splitlines()
    assert [row["test"] for row in in_order(table_run())] == ["pp512", "tg64", "tg64", "load", "tg32@d16384"]
    assert lines[3] == (
        "| decode, 35B-A3B | Q4_K | 42.0 tok/s | 20.0 tok/s | 2.10 (2.00-2.20) | 84% / 40% |"
        " yes: ≥ 1.8x llama.cpp, ≥ 70% of bandwidth |"
    )
    assert lines[4].startswith("| decode, 35B-A3B | Q6_K | 150 tok/s | 100 tok/s | 1.50")
    assert "| load to first token | Q4_K | 0.50 s | 1.50 s | 0.33" in lines[5]
    assert lines[6].startswith("| decode at 16K, 35B-A3B, q8_0 cache |")
    assert (
        "Some CPU, 24 GiB, 2 threads, which read 50 GB/s; commit abc, 2026-11-25; llama.cpp b1." in lines[8]
    )
    assert lines[-1] == "Not measured: `delta/x/pp512`."


def test_the_summary_has_a_line_for_each_kind_of_work():
    lines = summary(table_run()).splitlines()
    assert lines[3] == (
        "| decode, 35B-A3B | Q4_K Q6_K | 1.50 to 2.10 | 60% to 84% |"
        " ≥ 1.8x llama.cpp, ≥ 70% of bandwidth | 1 of 2 |"
    )
    assert lines[2].startswith("| prefill of 512, 35B-A3B | Q4_K | 3.00 |  | ≥ 2.5x llama.cpp | 1 of 1 |")
    assert len(lines) == 10


def test_sequences_together_are_said():
    row = {"test": "tg32x4@d128", "work": "35B-A3B", "cache_type": "f16"}
    assert work(row) == "decode of 4 together, 35B-A3B"


def test_a_file_without_a_table_is_an_error(tmp_path):
    path = store(tmp_path / "r.json", {"benchmark": "quantize"})
    with pytest.raises(SystemExit, match="no run of benchmarks"):
        last_table(path)


def test_the_plot_is_drawn_and_needs_decode_rows(tmp_path):
    path = tmp_path / "images" / "roofline.svg"
    plot(table_run(), path)
    text = path.read_text()
    assert "limit: 50 GB/s read" in text
    assert "35B-A3B, Q6_K" in text
    with pytest.raises(SystemExit, match="no decode rows"):
        plot(make_run(), path)


# --- Python's share


def test_functions_of_the_module_are_timed_and_types_are_not():
    class Module:
        Thing = dict

        @staticmethod
        def double(x):
            return 2 * x

    timed = TimedModule(Module)
    assert timed.Thing is dict
    assert timed.double(4) == 8
    assert timed.double(x=3) == 6
    assert timed.calls == 2
    assert timed.seconds > 0


def test_python_has_a_share_of_a_step(tmp_path):
    path = synthesize(tmp_path / "toy.gguf", "qwen35moe", preset="toy", quant="Q8_0").path
    found = python_share(path, 1, 4)
    assert 0 < found["share"] < 1
    assert 0 < found["native_s"] < found["step_s"]
    assert found["calls"] > 8
    assert cpu._native is _native
