"""Speed beside llama.cpp: the same file, the same threads, runs that alternate.

    python -m benchmarks.compare MODEL... --llama-bench PATH -p 256 -n 64 --rounds 5

Each round runs both programs once (the order swaps every round), so that drift of a shared machine hits both.
Reported is the median of the per-round ratios, with both medians. Results go to
benchmarks/results/<machine>/<commit>.json. llama-bench should be built for the machine (GGML_NATIVE).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import default_path, store


def main() -> None:
    """Entry point; exits with 2 when llama-bench cannot be found."""
    args = _arguments()
    llama_bench = shutil.which(args.llama_bench)
    if llama_bench is None:
        print(
            f"--llama-bench {args.llama_bench}: not found; build llama.cpp's tools and name it",
            file=sys.stderr,
        )
        sys.exit(2)
    rows = []
    for model in args.models:
        for test in _tests(args):
            row = _compare(model, test, llama_bench, args)
            rows.append(row)
            print(
                f"{Path(model).name:40} {row['test']:>14}  pintpot {row['pintpot_median']:8.2f}  "
                f"llama.cpp {row['llama_cpp_median']:8.2f} tok/s  ratio {row['ratio_median']:.2f} "
                f"({row['ratio_min']:.2f}-{row['ratio_max']:.2f})",
                flush=True,
            )
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
    parser.add_argument("models", nargs="+", metavar="MODEL", help="GGUF files")
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


def _tests(args: argparse.Namespace) -> list[tuple[int, int, int]]:
    """(n_prompt, n_gen, depth) of each test; one of the first two is 0."""
    return [(p, 0, d) for d in args.n_depth for p in args.n_prompt if p] + [
        (0, n, d) for d in args.n_depth for n in args.n_gen if n
    ]


def _compare(
    model: str, test: tuple[int, int, int], llama_bench: str, args: argparse.Namespace
) -> dict[str, Any]:
    n_prompt, n_gen, depth = test
    common = ["-p", str(n_prompt), "-n", str(n_gen), "-d", str(depth), "-t", str(args.threads), "-r", "1"]
    common += ["-ctk", args.cache_type_k, "-ctv", args.cache_type_v, "-o", "json"]
    commands = {
        "pintpot": [sys.executable, "-m", "pintpot.cli", "bench", model, *common],
        "llama_cpp": [llama_bench, "-m", model, *common],
    }
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(args.rounds):
        order = list(commands) if round_ % 2 == 0 else list(reversed(commands))
        for name in order:
            samples[name].append(_run(name, commands[name]))
    ratios = [a / b for a, b in zip(samples["pintpot"], samples["llama_cpp"], strict=True)]
    name = f"pp{n_prompt}" if n_prompt else f"tg{n_gen}"
    return {
        "model": Path(model).name,
        "size_bytes": Path(model).stat().st_size,
        "test": name + (f"@d{depth}" if depth else ""),
        "pintpot_tokens_s": samples["pintpot"],
        "llama_cpp_tokens_s": samples["llama_cpp"],
        "pintpot_median": statistics.median(samples["pintpot"]),
        "llama_cpp_median": statistics.median(samples["llama_cpp"]),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def _run(name: str, command: list[str]) -> float:
    """Tokens a second of one run."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr)
        sys.exit(1)
    rows = json.loads(done.stdout)
    return float(rows[0]["tokens_s" if name == "pintpot" else "avg_ts"])


if __name__ == "__main__":
    main()
