"""The CPU table in words: a line a row while it is measured, and Markdown for the README.

python -m benchmarks.table_text benchmarks/results/MACHINE/COMMIT.json
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.alternate import OURS, THEIRS
from benchmarks.cpu_cases import GROUPS
from benchmarks.record import Run, read_runs

_TEST = re.compile(r"(?P<kind>pp|tg)(?P<n>\d+)(x(?P<parallel>\d+))?(@d(?P<depth>\d+))?")


OTHERS_LIMIT = 0.05  # of the CPUs' time; what the system itself does takes a per cent or two


def disturbed(row: Mapping[str, Any]) -> bool:
    """Whether other programs used so much of the machine that the row says little."""
    return (row.get("others_share") or 0.0) > OTHERS_LIMIT


def last_table(path: Path) -> Run:
    """The newest run of the table in a results file. Exits with a message when there is none."""
    runs = [run for run in read_runs(path) if run.get("benchmark") == "cpu_table"]
    if not runs:
        raise SystemExit(f"{path}: no run of benchmarks.cpu_table in it")
    return runs[-1]


def row_line(row: Mapping[str, Any]) -> str:
    """One measured row on a terminal."""
    if "failed" in row:
        return f"{row['key']:48} failed: {row['failed'].splitlines()[0]}"
    parts = [f"{row['key']:48} {_speed(row, OURS):>10}"]
    if "ratio_median" in row:
        spread = f"({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
        parts.append(f"llama.cpp {_speed(row, THEIRS):>10}  ratio {row['ratio_median']:.2f} {spread}")
    if f"{OURS}_bandwidth" in row:
        parts.append(f"{row[f'{OURS}_bandwidth']:.0%} of bandwidth")
    parts += [f"{check['goal']}: {_mark(check['holds'])}" for check in row.get("checks", ())]
    if disturbed(row):
        parts.append(f"DISTURBED: others used {row['others_share']:.0%} of the CPUs")
    return "  ".join(parts)


def in_order(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The measured rows: those of a group together, prefill before decode, shallow before deep."""
    groups = list(GROUPS)

    def place(row: Mapping[str, Any]) -> tuple[int, int, int, str]:
        match = _TEST.fullmatch(row["test"])
        decode, depth = (match["kind"] == "tg", int(match["depth"] or 0)) if match else (0, 0)
        return groups.index(row["group"]), decode, depth, row["cache_type"]

    return sorted((row for row in run["rows"] if "failed" not in row), key=place)


def summary(run: Mapping[str, Any]) -> str:
    """A line for the rows of each kind of work, over all types of weights: ratios and shares from the least
    to the greatest, and how many reach their goal."""
    works: dict[str, list[Mapping[str, Any]]] = {}
    for row in in_order(run):
        if row["holds"] is not None:
            works.setdefault(work(row), []).append(row)
    lines = [
        "| work | types | times llama.cpp | of bandwidth | goal | reached |",
        "|---|---|---:|---:|---|---:|",
    ]
    for name, rows in works.items():
        ratios = [row["ratio_median"] for row in rows if "ratio_median" in row]
        shares = [row[f"{OURS}_bandwidth"] for row in rows if f"{OURS}_bandwidth" in row]
        cells = [
            name,
            " ".join(dict.fromkeys(row["type"] for row in rows)),
            _range(ratios, "{:.2f}") if ratios else _speed(rows[0], OURS),
            _range(shares, "{:.0%}"),
            " / ".join(dict.fromkeys(_goal(row) for row in rows)),
            f"{sum(row['holds'] for row in rows)} of {len(rows)}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_notes(run)])


def _range(values: Sequence[float], form: str) -> str:
    ends = dict.fromkeys(form.format(value) for value in (min(values), max(values))) if values else {}
    return " to ".join(ends)


def markdown(run: Mapping[str, Any]) -> str:
    """Every row, with what was measured on and how under it."""
    rows = in_order(run)
    lines = [
        "| work | type | pintpot | llama.cpp | ratio | of bandwidth | goal |",
        "|---|---|" + "---:|" * 4 + "---|",
    ]
    lines += [_cells(row) for row in rows]
    return "\n".join([*lines, *_notes(run)])


def _notes(run: Mapping[str, Any]) -> list[str]:
    rows = in_order(run)
    held, asked = sum(row["holds"] is True for row in rows), sum(row["holds"] is not None for row in rows)
    lines = ["", f"{held} of {asked} goals are reached. {_setting(run)}"]
    failed = [row for row in run["rows"] if "failed" in row]
    shaky = [row for row in rows if disturbed(row)]
    for what, which in (("Not measured", failed), ("Disturbed by other programs", shaky)):
        if which:
            lines += ["", f"{what}: " + ", ".join(f"`{row['key']}`" for row in which) + "."]
    return lines


def work(row: Mapping[str, Any]) -> str:
    """What a row measured, in words."""
    match = _TEST.fullmatch(row["test"])
    if match is None:
        return str(row["work"])
    what = f"prefill of {match['n']}" if match["kind"] == "pp" else "decode"
    if match["parallel"]:
        what += f" of {match['parallel']} together"
    elif match["depth"]:
        what += f" at {int(match['depth']) // 1024}K"
    cache = "" if row["cache_type"] == "f16" else f", {row['cache_type']} cache"
    return f"{what}, {row['work']}{cache}"


def _cells(row: Mapping[str, Any]) -> str:
    ratio, share = "", ""
    if "ratio_median" in row:
        ratio = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
    if f"{OURS}_bandwidth" in row:
        share = f"{row[f'{OURS}_bandwidth']:.0%} / {row[f'{THEIRS}_bandwidth']:.0%}"
    goal = "" if row["holds"] is None else f"{_mark(row['holds'])}: {_goal(row, measured=True)}"
    cells = [work(row), row["type"], _speed(row, OURS), _speed(row, THEIRS), ratio, share, goal]
    return "| " + " | ".join(cells) + " |"


def _goal(row: Mapping[str, Any], *, measured: bool = False) -> str:
    """What is asked of a row. `measured`: with the figures that the table has no column for."""
    parts = []
    for check in row["checks"]:
        text = check["goal"]
        if measured and "depth adds" in text and check["measured"] is not None:
            text += f" ({check['measured']:.2f}x)"
        parts.append(text)
    return (" or " if row["goal"]["either"] else ", ").join(parts)


def _mark(holds: bool) -> str:
    return "yes" if holds else "no"


def _speed(row: Mapping[str, Any], program: str) -> str:
    value = row.get(f"{program}_median")
    if value is None:
        return ""
    if row["unit"] == "share":
        return f"{value:.1%}"
    return f"{value:.2f} s" if row["unit"] == "s" else f"{value:.{0 if value >= 100 else 1}f} tok/s"


def _setting(run: Mapping[str, Any]) -> str:
    machine, threads = run["machine"], run["threads"]
    best = max(_rates(run, threads))
    return (
        f"{machine['cpu']}, {machine['memory_bytes'] / 2**30:.0f} GiB, {threads} threads, which read"
        f" {best / 1e9:.0f} GB/s; commit {run['commit']}, {run['date'][:10]}; llama.cpp"
        f" {run.get('llama_cpp', 'of unknown version')}. Medians of runs that alternate; in brackets the"
        " least and the greatest ratio of a round; of bandwidth: pintpot / llama.cpp."
    )


def _rates(run: Mapping[str, Any], threads: int) -> Iterable[float]:
    return (rates["bytes_s"][str(threads)] for rates in run["bandwidth"])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, help="a results file")
    parser.add_argument("--full", action="store_true", help="a line for every row")
    args = parser.parse_args()
    run = last_table(args.result)
    print(markdown(run) if args.full else summary(run))


if __name__ == "__main__":
    main()
