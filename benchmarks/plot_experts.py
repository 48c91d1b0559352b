"""Hit rates and predicted speed of policies of the hot set by the share of experts in VRAM: figure, tables.

    python -m benchmarks.plot_experts benchmarks/results/MACHINE/COMMIT.json

Draws the last study (`benchmarks.expert_policies`) of the file, in the style of `benchmarks.plot`, and prints
it as Markdown.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.expert_policies import BELADY, FORESIGHT
from benchmarks.plot import INK, STYLE
from benchmarks.record import read_runs

_LINES: Final = {  # in the legend's order: color, style
    BELADY: (INK, ":"),
    FORESIGHT: (INK, "--"),
    "adaptive": ("#2f81f7", "-"),
    "lru": ("#e3873a", "-"),
    "lfu": ("#2da44e", "-"),
    "prompt": ("#8957e5", "-"),
    "static": ("#bf3989", "-"),
}
_LABELS: Final = {
    "adaptive": "adaptive (the default)",
    "lru": "LRU",
    "lfu": "LFU",
    "prompt": "profile, then the prompt's own",
    "static": "static profile",
}
_PUBLISHED: Final = ((0.61, 0.72), (0.86, 0.92))  # hit rates at 40%: static, adapting
_BAND: Final[Mapping[str, Any]] = {"color": INK, "linewidth": 8, "alpha": 0.4, "solid_capstyle": "butt"}


def plot(run: Mapping[str, Any], path: Path) -> None:
    """Draws to `path`, whose suffix names the format."""
    traces = list(dict.fromkeys(row["trace"] for row in run["rows"]))
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    with matplotlib.rc_context(STYLE):
        timed = [trace for trace in traces if any("tokens_s" in row for row in _of(run, trace))]
        n_columns = (len(timed) + len(traces) + 1) // 2
        figure, panels = pyplot.subplots(2, n_columns, figsize=(4.2 * n_columns, 7.4), layout="constrained")
        axes = list(panels.flat)
        for panel, trace in zip(axes, timed, strict=False):
            _speeds(panel, trace, run)
        for panel, trace in zip(axes[len(timed) :], traces, strict=False):
            _hits(panel, trace, run)
        for panel in axes[len(timed) + len(traces) :]:
            panel.axis("off")
        axes[0].plot([], [], label="published traces: static, adapting", **_BAND)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, transparent=True, dpi=150, metadata=metadata)
        pyplot.close(figure)


def _of(run: Mapping[str, Any], trace: str) -> list[Mapping[str, Any]]:
    return [row for row in run["rows"] if row["trace"] == trace]


def _lines(axes: Any, rows: Sequence[Mapping[str, Any]], value: str, scale: float) -> None:
    for policy, (color, style) in _LINES.items():
        mine = [row for row in rows if row["policy"] == policy]
        axes.plot(
            [100 * row["resident"] for row in mine],
            [scale * row[value] for row in mine],
            style,
            color=color,
            linewidth=2.2 if policy == "adaptive" else 1.4,
            marker=None if style != "-" else "o",
            markersize=3.5,
            label=_LABELS.get(policy, policy),
        )
    axes.grid(color=INK, alpha=0.2)
    axes.set(xlabel="% of experts in VRAM")


def _speeds(axes: Any, trace: str, run: Mapping[str, Any]) -> None:
    _lines(axes, _of(run, trace), "tokens_s", 1.0)
    planned = 100 * run["planned_resident"]
    axes.axvline(planned, color=INK, linewidth=1)
    axes.annotate(
        "fits 16 GB,\n128K context", (planned, 0), xycoords=("data", "axes fraction"),
        xytext=(4, 6), textcoords="offset points", color=INK,
    )  # fmt: skip
    axes.set_title(trace, color=INK)
    gpu = run["gpu"].removeprefix("NVIDIA GeForce ")
    axes.set(ylabel=f"tokens a second, predicted\n{run['model']}, {gpu}", ylim=(0, None))


def _hits(axes: Any, trace: str, run: Mapping[str, Any]) -> None:
    _lines(axes, _of(run, trace), "hit_rate", 100.0)
    if trace.startswith("simulated"):
        for low, high in _PUBLISHED:
            axes.plot([40, 40], [100 * low, 100 * high], zorder=0, **_BAND)
    axes.set_title(trace, color=INK)
    axes.set(ylabel="% of selections found in VRAM", ylim=(0, 102))


def markdown(run: Mapping[str, Any]) -> str:
    """A table a trace: hits / experts read from RAM, in % of selections, and tok/s where predicted."""
    policies = list(dict.fromkeys(row["policy"] for row in run["rows"]))
    lines = []
    for trace in dict.fromkeys(row["trace"] for row in run["rows"]):
        rows = {(row["resident"], row["policy"]): row for row in run["rows"] if row["trace"] == trace}
        lines += ["", f"| {trace} | {' | '.join(policies)} |", "|---:|" + "---:|" * len(policies)]
        for share in sorted({share for share, _ in rows}):
            cells = [_cell(rows[share, policy]) for policy in policies]
            lines.append(f"| {share:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def _cell(row: Mapping[str, Any]) -> str:
    speed = f": {row['tokens_s']:.0f}" if "tokens_s" in row else ""
    return f"{100 * row['hit_rate']:.0f} / {100 * row['ram_reads']:.0f}{speed}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, help="a results file")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/expert_policies.svg"))
    args = parser.parse_args()
    studies = [run for run in read_runs(args.result) if run["benchmark"] == "expert_policies"]
    if not studies:
        raise SystemExit(f"{args.result}: has no study of policies")
    plot(studies[-1], args.output)
    print(markdown(studies[-1]))
    print(f"\ndrawn to {args.output}")


if __name__ == "__main__":
    main()
