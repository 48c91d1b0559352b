"""Did pintpot get slower? Compares a run of the CPU table with the one before, by ratio to llama.cpp.

    python -m benchmarks.guard NEW.json [OLD.json]

A ratio of the same rounds does not change when the machine is slower than last time. Rows that other programs
disturbed are left out. A row has lost
when its median ratio fell by more than 5% and the ratios of its rounds lie below all of the old ones, so that
the spread of either run does not count as a loss. OLD is by default the newest earlier run on this machine.
Exits with 1 and names the rows when any has lost, with 2 when there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, Run, machine_name, read_runs
from benchmarks.table_text import disturbed, last_table

TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """A row of both runs, by its ratios to llama.cpp."""

    key: str
    old: float
    new: float
    apart: bool  # every new ratio is below every old one

    @property
    def lost(self) -> bool:
        return self.apart and self.new < self.old * (1 - TOLERANCE)

    def __str__(self) -> str:
        return f"{self.key}: {self.old:.2f} -> {self.new:.2f} ({self.new / self.old - 1:+.0%})"


def changes(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[Change]:
    """The rows that both runs measured beside llama.cpp, undisturbed, in the order of `new`."""
    before = {row["key"]: row for row in old["rows"] if "ratio_median" in row and not disturbed(row)}
    return [
        Change(
            row["key"],
            before[row["key"]]["ratio_median"],
            row["ratio_median"],
            row["ratio_max"] < before[row["key"]]["ratio_min"],
        )
        for row in new["rows"]
        if "ratio_median" in row and row["key"] in before and not disturbed(row)
    ]


def previous(new: Mapping[str, Any], files: Iterable[Path]) -> Run | None:
    """The newest run of the table before `new` with the same threads, quick only if `new` is."""
    fields = ("benchmark", "threads", "quick")
    found = [
        run
        for path in files
        for run in read_runs(path)
        if all(run.get(field) == new[field] for field in fields) and run["date"] < new["date"]
    ]
    return max(found, key=lambda run: str(run["date"]), default=None)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("new", type=Path)
    parser.add_argument("old", type=Path, nargs="?")
    args = parser.parse_args()
    new = last_table(args.new)
    stored = sorted((RESULTS / machine_name()).glob("*.json"))
    old = last_table(args.old) if args.old else previous(new, stored)
    found = [] if old is None else changes(new, old)
    if old is None or not found:
        print("no earlier run with the same rows: nothing to compare with", file=sys.stderr)
        sys.exit(2)
    lost = [change for change in found if change.lost]
    for change in found:
        print(f"{'LOST ' if change.lost else '     '}{change}")
    print(f"{len(found)} rows compared with {old['commit']} of {old['date'][:10]}, {len(lost)} lost")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
