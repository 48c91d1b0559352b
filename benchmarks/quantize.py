"""Quantizing beside llama-quantize: the same F16 file, the same threads, whole processes that alternate.

    python -m benchmarks.quantize --llama-quantize PATH --types Q8_0,Q6_K,Q4_K_M --rounds 3

Without --model a random model of some 1.6 B parameters is written first; --layers makes it smaller or larger.
The order swaps every round, so that drift of a shared machine hits both; reported is the median of the ratios
of each round. A run is a whole process: start, quantize, close; ours ends with the file synced to the disk,
which llama-quantize leaves to the system. Memory is the peak resident set, mapped pages of the source
included. Results go to benchmarks/results/<machine>/<commit>.json. llama-quantize should be built for the
machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import default_path, store
from pintpot.synth.synthesize import synthesize


@dataclass(frozen=True, slots=True)
class Run:
    """One process."""

    wall_s: float
    cpu_s: float  # user and system, all threads
    peak_bytes: int


def main() -> None:
    """Entry point; exits with 2 when llama-quantize cannot be found."""
    args = _arguments()
    llama_quantize = shutil.which(args.llama_quantize)
    if llama_quantize is None:
        print(f"--llama-quantize {args.llama_quantize}: not found; build llama.cpp's tools", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        model = args.model or Path(folder) / "model-F16.gguf"
        if args.model is None:
            synthesize(model, "qwen3", quant="F16", n_layer=args.layers)
        rows = [_compare(model, quant, llama_quantize, Path(folder), args) for quant in args.types.split(",")]
    path = args.output or default_path()
    store(path, {"benchmark": "quantize", "threads": args.threads, "rounds": args.rounds, "results": rows})
    print(f"stored in {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-quantize", default="llama-quantize", help="llama.cpp's llama-quantize")
    parser.add_argument("--model", type=Path, default=None, help="an F16 file (default: write one)")
    parser.add_argument("--layers", type=int, default=12, help="of the file that is written; 12 are 1.6 B")
    parser.add_argument("--types", default="Q8_0,Q6_K,Q4_K_M", help="types, comma-separated")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where files are written")
    parser.add_argument("-o", "--output", type=Path, default=None, help="where to store the JSON")
    return parser.parse_args()


def _compare(
    model: Path, quant: str, llama_quantize: str, folder: Path, args: argparse.Namespace
) -> dict[str, Any]:
    ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
    threads = str(args.threads)
    commands = {
        "pintpot": [
            sys.executable, "-m", "pintpot.cli", "quantize", str(model), str(ours), quant, "-t", threads,
            "--force",
        ],
        "llama_cpp": [llama_quantize, str(model), str(theirs), quant, threads],
    }  # fmt: skip
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for round_ in range(args.rounds):
        order = list(commands) if round_ % 2 == 0 else list(reversed(commands))
        for name in order:
            runs[name].append(_run(commands[name]))
    if ours.stat().st_size != theirs.stat().st_size:
        sys.exit(f"{quant}: {ours.stat().st_size} bytes, llama-quantize writes {theirs.stat().st_size}")
    pairs = list(zip(runs["llama_cpp"], runs["pintpot"], strict=True))
    row = {
        "model": model.name,
        "source_bytes": model.stat().st_size,
        "bytes": ours.stat().st_size,
        "type": quant,
        **{name: [asdict(run) for run in found] for name, found in runs.items()},
        "speedup_wall_median": statistics.median(a.wall_s / b.wall_s for a, b in pairs),
        "speedup_cpu_median": statistics.median(a.cpu_s / b.cpu_s for a, b in pairs),
    }
    print(f"{quant:10}", *(f"{name} {_median(found)}" for name, found in runs.items()), end=" ")
    print(f"faster {row['speedup_wall_median']:.2f}x, CPU time {row['speedup_cpu_median']:.2f}x", flush=True)
    return row


def _median(runs: list[Run]) -> str:
    wall, cpu = (statistics.median(getattr(run, key) for run in runs) for key in ("wall_s", "cpu_s"))
    peak = max(run.peak_bytes for run in runs)
    return f"{wall:.1f} s (CPU {cpu:.1f} s, {peak / 1e6:.0f} MB)"


def _run(command: list[str]) -> Run:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}\n{errors.decode(errors='replace')[-2000:]}")
    return Run(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    main()
