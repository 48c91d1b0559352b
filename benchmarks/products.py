"""Matrix products of every weight type: kernel levels of this CPU beside each other.

    python -m benchmarks.products --rounds 15

Each round times every level once (the order turns every round); reported are each level's median, as
multiply-adds and as bytes of weights a second, and the median of the per-round ratios to the lowest level.
One thread is timed by its own CPU clock, so that other programs disturb little; several by the wall clock.
Cases are the engine's: one or two tokens against weights out of cache (decode), a few tokens an expert out of
cache (decode of several sequences, prefill of a mixture of experts), many in cache (prefill); and one token
in cache, which is what the arithmetic alone would reach.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from benchmarks.levels import alternate_levels
from pintpot import _native
from pintpot.gguf.types import TYPES, GGMLType
from pintpot.quants.random_blocks import random_blocks

ROWS, COLS = 512, 2048  # an expert's gate or up projection
OUT_OF_CACHE_BYTES = 96 << 20
CACHED = (1, 256)  # tokens
OUT_OF_CACHE = (1, 2, 3, 4, 5, 8)


def main() -> None:
    """Entry point."""
    args = _arguments()
    levels = [level for level in _native.Isa if level.name in args.levels and level <= _native.detect_isa()]
    read = _plain_read_bytes_s(args.threads)
    print(f"{args.threads} thread(s); a plain read of memory: {read / 1e9:.1f} GB/s")
    names = "  ".join(f"{level.name:>15}" for level in levels)
    print(f"{'type':8} {'tokens':>6} {'':6}  {names}  G multiply-adds/s, GB/s; ratios to {levels[0].name}")
    cases = [(n, OUT_OF_CACHE_BYTES) for n in OUT_OF_CACHE] + [(n, 0) for n in CACHED]
    for kind in (GGMLType[name] for name in args.types):
        for tokens, out_of_cache in cases:
            if args.tokens is None or tokens in args.tokens:
                seconds = _alternate(kind, tokens, out_of_cache, levels, args)
                _report(kind, tokens, "" if out_of_cache else "cached", seconds)


def _plain_read_bytes_s(threads: int) -> float:
    """Median of five reads of OUT_OF_CACHE_BYTES that do nothing else."""
    words = np.ones(OUT_OF_CACHE_BYTES // 8, np.uint64)
    engine = _native.Engine(threads)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        _native.read_words(engine, words)
        seconds.append(time.perf_counter() - start)
    return words.nbytes / statistics.median(seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runnable = [GGMLType(t).name for t, info in TYPES.items() if info.runnable]
    parser.add_argument("--types", nargs="+", default=runnable, choices=runnable, metavar="TYPE")
    parser.add_argument("--levels", nargs="+", default=["avx2", "avx512"], help="scalar, avx2, avx512")
    parser.add_argument("--tokens", nargs="+", type=int, help="only these cases")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


def _alternate(
    kind: GGMLType,
    tokens: int,
    out_of_cache: int,
    levels: list[_native.Isa],
    args: argparse.Namespace,
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
    engine = _native.Engine(args.threads)

    def step() -> None:
        for mat in range(n_mats):
            _native.matmul(engine, w, mat, x, out)

    found = alternate_levels(step, levels, rounds=args.rounds, threads=args.threads)
    return {level: [s / n_mats for s in seconds] for level, seconds in found.items()}


def _report(kind: GGMLType, tokens: int, where: str, seconds: dict[_native.Isa, list[float]]) -> None:
    info = TYPES[kind]
    macs, weights_bytes = ROWS * COLS * tokens, ROWS * COLS // info.block_values * info.block_bytes
    medians = [statistics.median(s) for s in seconds.values()]
    rates = [f"{macs / s / 1e9:8.1f} {weights_bytes / s / 1e9:6.1f}" for s in medians]
    base = next(iter(seconds.values()))
    ratios = [
        statistics.median(b / s for b, s in zip(base, other, strict=True)) for other in seconds.values()
    ]
    print(
        f"{kind.name:8} {tokens:6} {where:6}  "
        + "  ".join(rates)
        + "  "
        + " ".join(f"{ratio:5.2f}" for ratio in ratios[1:]),
        flush=True,
    )


if __name__ == "__main__":
    main()
