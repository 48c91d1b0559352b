"""How right `pintpot plan` is: predicted memory and speed beside those of real runs.

    python -m benchmarks.plan_accuracy MODEL... -d 32,768 --rounds 3

Every model is run by `pintpot bench` in a process of its own, whose peak of resident memory (pages of the
mapped file count) is compared with the plan for the same context, batch and cache; decode speed at every
depth is the median over rounds that go through all models, so that drift of a shared machine hits each
alike. Speeds are predicted twice: with the profile as shipped, and for each model with constants fitted from
the runs of all *other* models (`pintpot.planner.calibration`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.record import default_path, store
from pintpot.gguf import GGUFFile
from pintpot.hardware.bandwidth import recall, with_measured
from pintpot.hardware.machine import Hardware
from pintpot.hardware.probe import probe
from pintpot.planner.calibration import Run, calibrate, describe_run
from pintpot.planner.limits import Limits
from pintpot.planner.memory import CacheSettings, weigh_file
from pintpot.planner.placement import Problem, Solution, solve
from pintpot.planner.profile import PINTPOT, EngineProfile
from pintpot.spec import ModelSpec
from pintpot.store.resolve import resolve_model

_N_GEN = 16
_N_PROMPT = 128
_N_BATCH = 512


def main() -> None:
    """Entry point."""
    args = _arguments()
    depths = [int(d) for d in args.n_depth.split(",")]
    samples: dict[str, list[dict[str, Any]]] = {model: [] for model in args.models}
    for _ in range(args.rounds):
        for model in args.models:
            samples[model].append(_bench(model, args.n_depth, max(depths), args.threads))
    here = probe()
    hardware = replace(with_measured(here, recall(here.cpu, here.memory)), gpus=())
    runs = {model: _runs(rows, model) for model, rows in samples.items()}
    results = []
    for model in args.models:
        others = [run for other, found in runs.items() if other != model for run in found]
        results += _compare(model, samples[model], depths, hardware, args.threads, others)
    for r in results:
        print(_line(r), flush=True)
    path = args.output or default_path()
    store(
        path,
        {"benchmark": "plan_accuracy", "threads": args.threads, "load": os.getloadavg(), "results": results},
    )
    print(f"stored in {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="GGUF files, or demo")
    parser.add_argument("-d", "--n-depth", default="32,768", help="context depths, comma-separated")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=None, help="where to store the JSON")
    return parser.parse_args()


def _bench(model: str, depths: str, deepest: int, threads: int) -> dict[str, Any]:
    """One run: its rows, and the most memory it had resident."""
    command = [
        sys.executable,
        "-m",
        "pintpot.cli",
        "bench",
        model,
        "-t",
        str(threads),
        "-r",
        "1",
        "-o",
        "json",
    ]
    command += ["-p", str(min(_N_PROMPT, deepest)), "-n", str(_N_GEN), "-d", depths]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit {process.returncode}")
        out.seek(0)
        return {"rows": json.load(out), "rss_bytes": usage.ru_maxrss * 1024}


def _runs(samples: list[dict[str, Any]], model: str) -> list[Run]:
    """Every decode and prefill of a model's rounds, as `pintpot bench` remembers them."""
    file = GGUFFile.open(resolve_model(model))
    today = datetime.now(UTC).date().isoformat()
    return [
        describe_run(
            file,
            CacheSettings(row["n_depth"] + row["n_gen"] + row["n_prompt"]),
            today,
            n_threads=row["threads"],
            depth_tokens=row["n_depth"] + (row["n_gen"] + row["n_prompt"]) // 2,
            **{"decode_s" if row["n_gen"] else "prefill_s": 1 / row["median_tokens_s"]},
        )
        for sample in samples
        for row in sample["rows"]
    ]


def _compare(
    model: str,
    samples: list[dict[str, Any]],
    depths: list[int],
    hardware: Hardware,
    threads: int,
    others: list[Run],
) -> list[dict[str, Any]]:
    """A row a depth: measured and planned."""
    calibrated = calibrate(PINTPOT, hardware, others)
    ctx = max(depths) + max(_N_GEN, min(_N_PROMPT, max(depths))) + 1
    n_batch = min(_N_BATCH, max(depths))  # no step of these runs is longer
    rss = statistics.median(sample["rss_bytes"] for sample in samples)
    found = []
    for depth in depths:
        speeds = [r["tokens_s"] for s in samples for r in s["rows"] if r["n_gen"] and r["n_depth"] == depth]
        shipped, fitted = (
            _plan(model, hardware, profile, ctx, n_batch, depth, threads) for profile in (PINTPOT, calibrated)
        )
        found.append(
            {
                "model": Path(model).name,
                "depth_tokens": depth,
                "rss_bytes": rss,
                "planned_rss_bytes": shipped.ram.total,
                "decode_tokens_s": statistics.median(speeds),
                "samples_tokens_s": speeds,
                "planned_tokens_s": shipped.token.tokens_s,
                "calibrated_tokens_s": fitted.token.tokens_s,
            }
        )
    return found


def _plan(
    model: str,
    hardware: Hardware,
    profile: EngineProfile,
    ctx: int,
    n_batch: int,
    depth: int,
    threads: int,
) -> Solution:
    file = GGUFFile.open(resolve_model(model))
    spec = ModelSpec.from_gguf(file)
    limits = Limits(ctx_tokens=ctx, n_batch=n_batch, depth_tokens=depth + _N_GEN // 2, n_threads=threads)
    return solve(Problem(spec, weigh_file(file, spec), hardware, limits, profile))


def _line(r: dict[str, Any]) -> str:
    mib, off = 1 << 20, r["planned_rss_bytes"] - r["rss_bytes"]
    real = r["decode_tokens_s"]
    shipped, fitted = r["planned_tokens_s"] / real - 1, r["calibrated_tokens_s"] / real - 1
    return (
        f"{r['model']:28} depth {r['depth_tokens']:5}  memory {r['rss_bytes'] / mib:7.0f} MiB, "
        f"planned {off / mib:+6.0f} MiB ({off / r['rss_bytes']:+.1%})  decode {real:7.1f} tok/s, "
        f"planned {shipped:+.0%}, calibrated {fitted:+.0%}"
    )


if __name__ == "__main__":
    main()
