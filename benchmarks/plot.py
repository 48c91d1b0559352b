"""The roofline of decoding: tokens and bytes a second of both programs against what the memory gives.

    python -m benchmarks.plot benchmarks/results/MACHINE/COMMIT.json -o docs/images/cpu_roofline.svg

Takes matplotlib (`pip install pintpot[test]`). Text is of a grey that reads on light and on dark pages, the
background is left out.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.alternate import MEMORY, OURS, THEIRS
from benchmarks.table_text import in_order, last_table, work

INK, _OURS, _THEIRS = "#7d8590", "#2f81f7", "#e3873a"
STYLE = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "pintpot",
}
_MARKERS = "osD^vPX"


def plot(run: Mapping[str, Any], path: Path) -> None:
    """Draws the decode rows of a run to `path`, whose suffix names the format. Exits when it has none."""
    rows = [row for row in in_order(run) if row["goal"] and f"{OURS}_bytes_s" in row]
    if not rows:
        raise SystemExit("the run has no decode rows to draw")
    bandwidth = max(rates["bytes_s"][str(run["threads"])] for rates in run["bandwidth"])
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = pyplot.subplots(
            1, 2, figsize=(12, max(4.0, 1.6 + 0.18 * len(rows))), layout="constrained"
        )
        _roofline(left, rows, bandwidth)
        _bars(right, rows, bandwidth)
        figure.suptitle(
            f"Decode on {run['machine']['cpu']}, {run['threads']} threads: pintpot and llama.cpp on the same"
            " files",
            fontsize=11,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(
            path, transparent=True, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {}
        )
        pyplot.close(figure)


def _roofline(axes: Any, rows: Sequence[Mapping[str, Any]], bandwidth: float) -> None:
    """Tokens a second over bytes a token: nothing can lie above the line."""
    read = [row["token_bytes"] / 1e9 for row in rows]
    ends = [min(read) / 1.5, max(read) * 1.5]
    axes.plot(ends, [bandwidth / 1e9 / x for x in ends], color=INK, linewidth=1.2)
    kinds = list(dict.fromkeys(row["work"] for row in rows))
    for row, x in zip(rows, read, strict=True):
        marker = _MARKERS[kinds.index(row["work"]) % len(_MARKERS)]
        ours, theirs = row[f"{OURS}_median"], row[f"{THEIRS}_median"]
        axes.plot([x, x], [ours, theirs], color=INK, linewidth=0.6, alpha=0.5, zorder=1)
        for value, color in ((theirs, _THEIRS), (ours, _OURS)):
            axes.plot([x], [value], marker, color=color, markersize=5.5, zorder=2)
    for i, kind in enumerate(kinds):
        axes.plot([], [], _MARKERS[i % len(_MARKERS)], color=INK, markersize=5.5, label=kind)
    axes.plot([], [], color=INK, linewidth=1.2, label=f"limit: {bandwidth / 1e9:.0f} GB/s read")
    axes.legend(frameon=False, loc="upper right", labelcolor=INK)
    axes.set(xscale="log", yscale="log", xlabel="GB read a token", ylabel="tokens a second")
    _plain_ticks(axes.xaxis)
    _plain_ticks(axes.yaxis)


def _plain_ticks(axis: Any) -> None:
    """1, 2 and 5 of each decade, written out."""
    ticker = importlib.import_module("matplotlib.ticker")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(ticker.NullLocator())


def _bars(axes: Any, rows: Sequence[Mapping[str, Any]], bandwidth: float) -> None:
    """Bytes a second, row by row, with what the memory gave in the same rounds, and at best."""
    for y, row in enumerate(rows):
        ours, theirs = (row[f"{program}_bytes_s"] / 1e9 for program in (OURS, THEIRS))
        axes.plot([ours, theirs], [y, y], color=INK, linewidth=1, alpha=0.5, zorder=1)
        axes.plot([theirs], [y], "o", color=_THEIRS, markersize=6, zorder=2)
        axes.plot([ours], [y], "o", color=_OURS, markersize=6, zorder=2)
        if f"{MEMORY}_median" in row:
            axes.plot([row[f"{MEMORY}_median"] / 1e9], [y], "|", color=INK, markersize=9, zorder=1)
    axes.axvline(bandwidth / 1e9, color=INK, linewidth=1.2)
    axes.annotate(
        f"{bandwidth / 1e9:.0f} GB/s", (bandwidth / 1e9, 0), xycoords=("data", "axes fraction"),
        xytext=(-4, 4), textcoords="offset points", ha="right", va="bottom", color=INK,
    )  # fmt: skip
    axes.plot([], [], "o", color=_OURS, label="pintpot")
    axes.plot([], [], "o", color=_THEIRS, label="llama.cpp")
    axes.plot([], [], "|", color=INK, markersize=9, label="plain reading meanwhile")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, labelcolor=INK)
    labels = [f"{work(row).removeprefix('decode').lstrip(', ')}, {row['type']}" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set(
        ylim=(len(rows) - 0.4, -0.6), xlim=(0, bandwidth / 1e9 * 1.05), xlabel="GB/s of weights and cache"
    )
    axes.grid(axis="x", color=INK, alpha=0.2)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, help="a results file")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/cpu_roofline.svg"))
    args = parser.parse_args()
    plot(last_table(args.result), args.output)
    print(args.output)


if __name__ == "__main__":
    main()
