"""Matrix products of every weight type: kernel levels of this CPU beside each other.

    python -m benchmarks.products --rounds 15

One thread, timed by its own CPU clock, so that other programs disturb little. Each round times every level
once (the order turns every round); reported is each level's median and the median of the per-round ratios to
the lowest level. Cases are the engine's: one or two tokens against weights out of cache (decode), a few
tokens an expert out of cache (decode of several sequences, prefill of a mixture of experts), many (prefill).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from pintpot import _native
from pintpot.gguf.types import TYPES, GGMLType
from pintpot.quants.random_blocks import random_blocks

ROWS, COLS = 512, 2048  # an expert's gate or up projection
OUT_OF_CACHE_BYTES = 96 << 20
CASES = {n: 0 if n == 256 else OUT_OF_CACHE_BYTES for n in (1, 2, 3, 4, 5, 8, 256)}  # by tokens


def main() -> None:
    """Entry point."""
    args = _arguments()
    levels = [level for level in _native.Isa if level.name in args.levels and level <= _native.detect_isa()]
    names = "  ".join(f"{level.name:>9}" for level in levels)
    print(f"{'type':8} {'tokens':>6}  {names}  G multiply-adds/s, then ratios to {levels[0].name}")
    for kind in (GGMLType[name] for name in args.types):
        for tokens, out_of_cache in CASES.items():
            seconds = _alternate(kind, tokens, out_of_cache, levels, args.rounds)
            _report(kind, tokens, seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runnable = [GGMLType(t).name for t, info in TYPES.items() if info.runnable]
    parser.add_argument("--types", nargs="+", default=runnable, choices=runnable, metavar="TYPE")
    parser.add_argument("--levels", nargs="+", default=["avx2", "avx512"], help="scalar, avx2, avx512")
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


def _alternate(
    kind: GGMLType, tokens: int, out_of_cache: int, levels: list[_native.Isa], rounds: int
) -> dict[_native.Isa, list[float]]:
    """Seconds of one product [tokens, COLS] x [COLS, ROWS] by level, a value a round."""
    info = TYPES[kind]
    row_bytes = COLS // info.block_values * info.block_bytes
    n_mats = max(1, out_of_cache // (ROWS * row_bytes))
    one = random_blocks(kind, ROWS * COLS // info.block_values, np.random.default_rng(0), std=1.0)
    raw = np.tile(one.reshape(-1), n_mats)
    w = _native.Matrix(raw, kind, n_mats, ROWS, COLS, row_bytes, ROWS * row_bytes, raw)
    x = np.random.default_rng(1).standard_normal((tokens, COLS), dtype=np.float32)
    out = np.empty((tokens, ROWS), np.float32)
    engine = _native.Engine(1)
    seconds: dict[_native.Isa, list[float]] = {level: [] for level in levels}
    before = _native.active_isa()
    for turn in range(rounds + 1):  # the first warms up
        for level in levels[turn % len(levels) :] + levels[: turn % len(levels)]:
            _native.set_isa(level)
            start = time.thread_time()
            for mat in range(n_mats):
                _native.matmul(engine, w, mat, x, out)
            if turn > 0:
                seconds[level].append((time.thread_time() - start) / n_mats)
    _native.set_isa(before)
    return seconds


def _report(kind: GGMLType, tokens: int, seconds: dict[_native.Isa, list[float]]) -> None:
    rates = [ROWS * COLS * tokens / statistics.median(s) / 1e9 for s in seconds.values()]
    base = next(iter(seconds.values()))
    ratios = [
        statistics.median(b / s for b, s in zip(base, other, strict=True)) for other in seconds.values()
    ]
    print(
        f"{kind.name:8} {tokens:6}  "
        + "  ".join(f"{rate:9.1f}" for rate in rates)
        + "  "
        + " ".join(f"{ratio:5.2f}" for ratio in ratios[1:]),
        flush=True,
    )


if __name__ == "__main__":
    main()
