"""What follows from measured rows: bytes a second, shares of the bandwidth, and whether goals hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from benchmarks.alternate import MEMORY, OURS, THEIRS
from benchmarks.cpu_cases import Goal

Row: TypeAlias = dict[str, Any]


def judge(run: Mapping[str, Any]) -> None:
    """Adds to every row of a run what follows from its samples and from the run's bandwidth.

    The bandwidth of a row is the median of the readings that took turns with its programs. Rows without have
    the best of all that were measured with the run's number of threads.
    """
    measured = [rates["bytes_s"][str(run["threads"])] for rates in run["bandwidth"]]
    best = max(measured) if measured else None
    rows = {row["key"]: row for row in run["rows"]}
    for row in rows.values():
        if "failed" not in row:
            _judge_row(row, rows, row.get(f"{MEMORY}_median", best))


def _judge_row(row: Row, rows: Mapping[str, Row], bandwidth: float | None) -> None:
    for program in (OURS, THEIRS):
        speed = row.get(f"{program}_median")
        if speed is None or bandwidth is None or "token_bytes" not in row:
            continue
        row[f"{program}_bytes_s"] = row["token_bytes"] * speed
        row[f"{program}_bandwidth"] = row["token_bytes"] * speed / bandwidth
        base = rows.get(row.get("base", ""), {}).get(f"{program}_median")
        if base is not None:
            row[f"{program}_depth_cost"] = (1 / speed - 1 / base) / (row["depth_bytes"] / bandwidth)
    row["checks"] = checks(row, Goal(**row["goal"])) if row["goal"] else []
    row["holds"] = _holds(row)


def checks(row: Row, goal: Goal) -> list[dict[str, Any]]:
    """Every part of a goal: what is asked, what was measured (None: could not be), whether it holds."""
    asked = [
        (goal.ratio, "≥ {:g}x llama.cpp", row.get("ratio_median"), 1),
        (goal.bandwidth, "≥ {:.0%} of bandwidth", row.get(f"{OURS}_bandwidth"), 1),
        (goal.depth_cost, "depth adds ≤ {:g}x its bytes over bandwidth", row.get(f"{OURS}_depth_cost"), -1),
        (goal.at_most, "≤ {:.0%}", row.get(f"{OURS}_median"), -1),
    ]
    return [
        {
            "goal": text.format(limit),
            "measured": value,
            "holds": value is not None and sign * value >= sign * limit,
        }
        for limit, text, value, sign in asked
        if limit is not None
    ]


def _holds(row: Row) -> bool | None:
    """Whether the row reaches its goal; None without one."""
    if not row["goal"]:
        return None
    each = [check["holds"] for check in row["checks"]]
    return any(each) if row["goal"]["either"] else all(each)


def goal_fields(goal: Goal | None) -> dict[str, Any] | None:
    """A goal as results store it."""
    return None if goal is None else asdict(goal)
