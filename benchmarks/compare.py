"""Speed beside llama.cpp: the same file, the same threads, runs that alternate.

    python -m benchmarks.compare MODEL... --llama-bench PATH -p 256 -n 64 --rounds 5

Each round runs both programs once (the order swaps every round), so that drift of a shared machine hits both.
Reported is the median of the per-round ratios, with both medians. Results go to
benchmarks/results/<machine>/<commit>.json. llama-bench should be built for the machine (GGML_NATIVE).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.alternate import OURS, THEIRS, alternate, compared
from benchmarks.programs import ProgramError, Settings, find_program, llama_bench, pintpot_bench
from benchmarks.record import default_path, store


def main() -> None:
    """Entry point; exits with 2 when llama-bench cannot be found, 1 when a program fails."""
    args = _arguments()
    try:
        program = find_program(args.llama_bench)
    except ProgramError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    rows = []
    try:
        for model in args.models:
            for row in _compare(model, program, args):
                rows.append(row)
                print(
                    f"{row['model']:40} {row['test']:>14}  pintpot {row['pintpot_median']:8.2f}  "
                    f"llama.cpp {row['llama_cpp_median']:8.2f} tok/s  ratio {row['ratio_median']:.2f} "
                    f"({row['ratio_min']:.2f}-{row['ratio_max']:.2f})",
                    flush=True,
                )
    except ProgramError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    path = args.output or default_path()
    cache_types = [args.cache_type_k, args.cache_type_v]
    store(
        path,
        {"threads": args.threads, "cache_types": cache_types, "rounds": args.rounds, "results": rows},
    )
    print(f"stored in {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="GGUF files")
    parser.add_argument("--llama-bench", default="llama-bench", help="llama.cpp's llama-bench")
    parser.add_argument(
        "-p", "--n-prompt", type=_numbers, default=[256], help="prefill tests, comma-separated"
    )
    parser.add_argument("-n", "--n-gen", type=_numbers, default=[64], help="decode tests, comma-separated")
    parser.add_argument("-d", "--n-depth", type=_numbers, default=[0], help="context depths, comma-separated")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-ctk", "--cache-type-k", default="f16")
    parser.add_argument("-ctv", "--cache-type-v", default="f16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=None, help="where to store the JSON")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if int(part) > 0 or part == "0"]


def _compare(model: Path, program: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a test; all tests of a model run in one process of each program a round."""
    settings = Settings(args.threads, args.cache_type_k, args.cache_type_v)
    tests = {"n_prompt": args.n_prompt, "n_gen": args.n_gen, "depths": args.n_depth}
    samples = alternate(
        {
            OURS: lambda: pintpot_bench(model, settings, **tests),
            THEIRS: lambda: llama_bench(program, model, settings, **tests),
        },
        args.rounds,
    )
    return [
        {
            "model": model.name,
            "size_bytes": model.stat().st_size,
            "test": test,
            "pintpot_tokens_s": found[OURS],
            "llama_cpp_tokens_s": found[THEIRS],
            **compared(found),
        }
        for test, found in samples.items()
    ]


if __name__ == "__main__":
    main()
