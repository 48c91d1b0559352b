"""Attention and the gated delta net by themselves: kernel levels of this CPU beside each other.

    python -m benchmarks.attention --rounds 7                 # attention, every cache type
    python -m benchmarks.attention --delta                    # the gated delta net
    python -m benchmarks.attention --types f16 --depths 16384 --threads 2

A layer is the shape of Qwen3.5-35B-A3B's (16 heads, 2 KV heads of 256; 32 heads of 128 x 128) with
projections so narrow that their share vanishes. The cache is filled by a layer with a window of one token, so
that depth costs no time. One thread is timed by its own CPU clock, more by the wall clock. Each round times
every level once; reported are medians: milliseconds, GB/s of keys and values (read once a query tile),
GFLOP/s (two a multiply-add), and these as a share of what NumPy's float32 product reaches on as many threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.levels import alternate_levels
from pintpot import _native
from pintpot.gguf.types import GGMLType

N_EMBD = 32
N_HEAD, N_HEAD_KV, HEAD_DIM = 16, 2, 256
DELTA_HEADS_K, DELTA_HEADS_V, DELTA_DIM, DELTA_TAPS = 16, 32, 128, 4
FILL_TOKENS = 4096


@dataclass(frozen=True)
class Case:
    """`n_seq` sequences with `depth` tokens behind them take `rows` tokens each."""

    depth: int
    n_seq: int
    rows: int

    @property
    def name(self) -> str:
        """As printed."""
        return f"{self.n_seq} x {self.rows}"


CASES = ((1, 1), (4, 1), (8, 1), (1, 4), (1, 64), (1, 512))  # sequences, rows


def main() -> None:
    """Entry point."""
    args = _arguments()
    levels = [level for level in _native.Isa if level.name in args.levels and level <= _native.detect_isa()]
    peak = args.threads * _peak_gflops()
    print(f"{args.threads} threads; NumPy's float32 product: {peak:.0f} GFLOP/s")
    if args.delta:
        _delta_cases(levels, args, peak)
    else:
        _attention_cases(levels, args, peak)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delta", action="store_true", help="the gated delta net instead of attention")
    parser.add_argument("--types", nargs="+", default=["f32", "f16", "q8_0"], metavar="TYPE")
    parser.add_argument("--depths", nargs="+", type=int, default=[1024, 16384], metavar="TOKENS")
    parser.add_argument("--cases", nargs="+", default=[f"{s}x{r}" for s, r in CASES], metavar="SEQxROWS")
    parser.add_argument("--levels", nargs="+", default=["avx2", "avx512"], help="scalar, avx2, avx512")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def _peak_gflops() -> float:
    """Of one thread: NumPy's float32 product, timed by the CPU time of all threads."""
    a, b = (np.ones((1024, 1024), np.float32) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        a @ b
        best = min(best, time.process_time() - start)
    return 2 * 1024**3 / best / 1e9


def _matrix(rows: int, cols: int) -> _native.Matrix:
    w = np.random.default_rng(rows).standard_normal((rows, cols), dtype=np.float32) * cols**-0.5
    raw = w.reshape(-1).view(np.uint8)
    return _native.Matrix(raw, GGMLType.F32, 1, rows, cols, cols * 4, rows * cols * 4, raw)


def _attention_layer(window: int | None) -> _native.AttentionLayer:
    return _native.AttentionLayer(
        n_head=N_HEAD,
        n_head_kv=N_HEAD_KV,
        head_dim_k=HEAD_DIM,
        head_dim_v=HEAD_DIM,
        scale=HEAD_DIM**-0.5,
        wq=_matrix(N_HEAD * HEAD_DIM, N_EMBD),
        wk=_matrix(N_HEAD_KV * HEAD_DIM, N_EMBD),
        wv=_matrix(N_HEAD_KV * HEAD_DIM, N_EMBD),
        wo=_matrix(N_EMBD, N_HEAD * HEAD_DIM),
        window=window,
    )


def _batch(case: Case) -> _native.Batch:
    slots = np.arange(case.n_seq, dtype=np.int32)
    return _native.Batch(slots, np.full_like(slots, case.depth), np.full_like(slots, case.rows))


def _filled_cache(kind: str, case: Case, engine: _native.Engine) -> _native.KVCache:
    capacity = case.depth + case.rows
    cache = _native.KVCache(case.n_seq, capacity, N_HEAD_KV, HEAD_DIM, HEAD_DIM, kind, kind)
    layer = _attention_layer(window=1)
    x = np.random.default_rng(0).standard_normal((FILL_TOKENS, N_EMBD), dtype=np.float32)
    out = np.empty_like(x)
    for slot in range(case.n_seq):
        for past in range(0, case.depth, FILL_TOKENS):
            n = min(FILL_TOKENS, case.depth - past)
            _native.attention(engine, layer, x[:n], cache, _native.Batch([slot], [past], [n]), out[:n])
    return cache


def _attention_cases(levels: list[_native.Isa], args: argparse.Namespace, peak: float) -> None:
    engine, layer = _native.Engine(args.threads), _attention_layer(window=None)
    print(f"{'KV':5} {'depth':>7} {'seq x rows':>10}  level        ms   KV GB/s   GFLOP/s   of peak")
    for kind in args.types:
        for depth in args.depths:
            for n_seq, rows in (map(int, case.split("x")) for case in args.cases):
                case = Case(depth, n_seq, rows)
                cache, batch = _filled_cache(kind, case, engine), _batch(case)
                x = np.random.default_rng(1).standard_normal((n_seq * rows, N_EMBD), dtype=np.float32)
                out = np.empty_like(x)

                step = partial(_native.attention, engine, layer, x, cache, batch, out)

                flops = 4.0 * n_seq * rows * (depth + rows / 2) * N_HEAD * HEAD_DIM
                tiles = max(1, rows * N_HEAD // N_HEAD_KV // 64)
                read = cache.nbytes * tiles
                for level, s in _medians(step, levels, args).items():
                    rates = f"{read / s / 1e9:9.1f} {flops / s / 1e9:9.1f} {flops / s / 1e9 / peak:9.2f}"
                    print(
                        f"{kind:5} {depth:7} {case.name:>10}  {level.name:6} {s * 1e3:8.2f} {rates}",
                        flush=True,
                    )


def _delta_layer() -> _native.DeltaNetLayer:
    rng = np.random.default_rng(0)
    values = DELTA_HEADS_V * DELTA_DIM
    conv_dim = 2 * DELTA_HEADS_K * DELTA_DIM + values
    return _native.DeltaNetLayer(
        n_head_k=DELTA_HEADS_K,
        n_head_v=DELTA_HEADS_V,
        head_dim_k=DELTA_DIM,
        head_dim_v=DELTA_DIM,
        conv_kernel=DELTA_TAPS,
        norm_eps=1e-6,
        wqkv=_matrix(conv_dim, N_EMBD),
        wz=_matrix(values, N_EMBD),
        wbeta=_matrix(DELTA_HEADS_V, N_EMBD),
        walpha=_matrix(DELTA_HEADS_V, N_EMBD),
        wo=_matrix(N_EMBD, values),
        conv=rng.standard_normal((conv_dim, DELTA_TAPS), dtype=np.float32),
        dt_bias=rng.standard_normal(DELTA_HEADS_V, dtype=np.float32),
        a=-np.exp(rng.standard_normal(DELTA_HEADS_V, dtype=np.float32)),
        norm=np.ones(DELTA_DIM, np.float32),
    )


def _delta_cases(levels: list[_native.Isa], args: argparse.Namespace, peak: float) -> None:
    engine, layer = _native.Engine(args.threads), _delta_layer()
    conv_dim = (2 * DELTA_HEADS_K + DELTA_HEADS_V) * DELTA_DIM
    print(f"{'seq x rows':>10}  level        ms  state GB/s   GFLOP/s   of peak")
    for n_seq, rows in (map(int, case.split("x")) for case in args.cases):
        state = _native.DeltaState(n_seq, DELTA_HEADS_V, DELTA_DIM, DELTA_DIM, conv_dim, DELTA_TAPS)
        batch = _batch(Case(0, n_seq, rows))
        x = np.random.default_rng(1).standard_normal((n_seq * rows, N_EMBD), dtype=np.float32)
        out = np.empty_like(x)

        step = partial(_native.delta_net, engine, layer, x, state, batch, out)

        # the recurrence's own count: S^T k, S^T q and the update
        flops = 6.0 * n_seq * rows * DELTA_HEADS_V * DELTA_DIM**2
        for level, s in _medians(step, levels, args).items():
            rates = f"{2 * state.nbytes / s / 1e9:9.1f} {flops / s / 1e9:9.1f} {flops / s / 1e9 / peak:9.2f}"
            print(f"{f'{n_seq} x {rows}':>10}  {level.name:6} {s * 1e3:8.3f}   {rates}", flush=True)


def _medians(
    step: Callable[[], None], levels: list[_native.Isa], args: argparse.Namespace
) -> dict[_native.Isa, float]:
    found = alternate_levels(step, levels, rounds=args.rounds, threads=args.threads)
    return {level: statistics.median(seconds) for level, seconds in found.items()}


if __name__ == "__main__":
    main()
