"""CPU speed beside llama.cpp: the whole table, from one command.

    python -m benchmarks.cpu_table --llama-bin DIR [--only moe,depth] [--types Q4_K] [--rounds 5] [--quick]

Random-weight files of real shapes are written one at a time, measured and deleted. Both programs get the same
file and threads in runs that alternate; reported are medians and the ratios of each round. The read bandwidth
of the machine is measured before, between and after, and takes its turn in every round. Results are stored
after every file's part (benchmarks/results/<machine>/<commit>.json), so that --resume goes on with what is
missing. Nothing else may run: rows that others disturbed are marked, and --resume measures them again.

Load to first token compares whole processes: `pintpot run FILE hi -n 1` with llama-bench computing one prompt
token without warm-up, the least that a build of llama.cpp's benchmarks can do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.alternate import MEMORY, OURS, THEIRS, Samples, alternate, compared
from benchmarks.cpu_cases import BATCH_DEPTH, BATCH_GEN, GROUPS, Choice, Job, jobs
from benchmarks.cpu_judge import goal_fields, judge
from benchmarks.others import OthersWatch
from benchmarks.programs import (
    ProgramError,
    Settings,
    find_program,
    llama_batched_bench,
    llama_bench,
    pintpot,
    pintpot_bench,
    run,
    seconds,
    version,
)
from benchmarks.record import Log, default_path
from benchmarks.table_text import disturbed, row_line
from pintpot.gguf import GGUFFile
from pintpot.kernels.bandwidth import ram_read_bytes_s
from pintpot.planner.calibration import describe_run
from pintpot.planner.memory import CacheSettings, cache_read_bytes
from pintpot.spec import ModelSpec
from pintpot.spec.cache import KVType

_BANDWIDTH_BYTES = 1 << 30


class Table:
    """One run of the table: what it is given, and the log it fills."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._llama = {
            name: find_program(name, args.llama_bin) for name in ("llama-bench", "llama-batched-bench")
        }
        settings = {"benchmark": "cpu_table", "threads": args.threads, "quick": args.quick}
        self._log = Log(args.output or default_path(), settings, resume=args.resume)
        self.run = self._log.run
        self.run["llama_cpp"] = version(self._llama["llama-bench"])
        self.run.setdefault("bandwidth", [])
        self.run.setdefault("rows", [])

    def measure(self, wanted: list[Job], folder: Path) -> None:
        """Every job whose rows are not there yet; files are made in `folder`."""
        self._measure_bandwidth(range(1, self._args.threads + 1))
        for i, job in enumerate(wanted):
            if not self._missing(job):
                continue
            path = job.file.write(folder)
            self._measure_bandwidth([self._args.threads])
            self._measure_job(job, path)
            used_later = any(later.file.name == job.file.name for later in wanted[i + 1 :])
            if not (self._args.keep or used_later):
                path.unlink()
        self._measure_bandwidth(range(1, self._args.threads + 1))

    def _missing(self, job: Job) -> bool:
        done = {row["key"] for row in self.run["rows"] if "failed" not in row and not disturbed(row)}
        return any(job.key(test) not in done for test in job.tests)

    def _measure_bandwidth(self, threads: Sequence[int]) -> None:
        rates = ram_read_bytes_s(threads, _BANDWIDTH_BYTES)
        self.run["bandwidth"].append(
            {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "load": os.getloadavg()[0],
                "bytes_s": {str(n): rate for n, rate in rates.items()},
            }
        )
        self._save()
        found = ", ".join(f"{n} threads {rate / 1e9:.1f} GB/s" for n, rate in rates.items())
        print(f"read bandwidth: {found}", flush=True)

    def _read_memory(self, tests: Sequence[str]) -> Samples:
        """One reading, which counts for all of a round's tests."""
        rate = ram_read_bytes_s([self._args.threads], _BANDWIDTH_BYTES)[self._args.threads]
        return {test: [rate] for test in tests}

    def _measure_job(self, job: Job, path: Path) -> None:
        rounds = min(self._args.rounds, job.most_rounds)
        watch = OthersWatch()
        try:
            samples = alternate(self._programs(job, path), rounds)
            others = {"others_share": watch.share()}
            rows = [self._row(job, path, test, samples[test]) | others for test in job.tests]
        except ProgramError as error:
            rows = [{"key": job.key(test), "group": job.group, "failed": str(error)} for test in job.tests]
        keys = {row["key"] for row in rows}
        self.run["rows"] = [row for row in self.run["rows"] if row["key"] not in keys] + rows
        self._save()
        for row in rows:
            print(row_line(row), flush=True)

    def _save(self) -> None:
        judge(self.run)
        self._log.save()

    def _programs(self, job: Job, path: Path) -> dict[str, Any]:
        """What to call for one run of each program."""
        settings = Settings(
            self._args.threads, job.cache_type, job.cache_type, job.repetitions, self._args.limit
        )
        bench, batched = self._llama["llama-bench"], self._llama["llama-batched-bench"]
        match job.kind:
            case "speed":
                tests: dict[str, Any] = {"n_prompt": job.n_prompt, "n_gen": job.n_gen, "depths": job.depths}
                return {
                    OURS: lambda: pintpot_bench(path, settings, **tests),
                    MEMORY: lambda: self._read_memory(job.tests),
                    THEIRS: lambda: llama_bench(bench, path, settings, **tests),
                }
            case "batch":
                return {
                    OURS: lambda: pintpot_bench(
                        path, settings, n_gen=job.n_gen, depths=job.depths, parallel=job.parallel
                    ),
                    THEIRS: lambda: llama_batched_bench(
                        batched, path, settings, n_gen=BATCH_GEN, depth=BATCH_DEPTH, parallel=job.parallel
                    ),
                }
            case "load":
                return _load_programs(path, settings, bench)
        return {OURS: lambda: _python_share(path, settings)}

    def _row(self, job: Job, path: Path, test: str, samples: Samples) -> dict[str, Any]:
        row: dict[str, Any] = {
            "key": job.key(test),
            "group": job.group,
            "work": job.work,
            "type": job.file.quant,
            "test": test,
            "cache_type": job.cache_type,
            "file_bytes": path.stat().st_size,
            "unit": {"load": "s", "python": "share"}.get(job.kind, "tok/s"),
            "goal": goal_fields(job.goals.get(test)),
            "samples": samples,
        }
        if MEMORY in samples:
            row[f"{MEMORY}_median"] = statistics.median(samples[MEMORY])
        if THEIRS in samples:
            row |= compared(samples, lower_is_better=job.kind == "load")
        else:
            row[f"{OURS}_median"] = statistics.median(samples[OURS])
        if (
            job.kind == "speed" and test.startswith("tg") and job.group != "delta"
        ):  # its state is also written
            row |= _token_bytes(job, path, test, self._args.threads)
        return row


def _token_bytes(job: Job, path: Path, test: str, n_threads: int) -> dict[str, Any]:
    """Bytes that a token of the test reads: weights, keys, values and state; for depths also those that the
    depth adds, and the key of the row without it."""
    depth = int(test.partition("@d")[2] or 0)
    n_gen = job.n_gen[0]
    settings = CacheSettings(depth + n_gen, KVType(job.cache_type), KVType(job.cache_type))
    middle = depth + n_gen // 2
    file = GGUFFile.open(path)
    found = {"token_bytes": describe_run(file, settings, "", n_threads=n_threads, depth_tokens=middle).nbytes}
    if not depth:
        return found
    spec = ModelSpec.from_gguf(file)
    here, there = (sum(cache_read_bytes(spec, settings, d)) for d in (middle, n_gen // 2))
    return found | {"depth_bytes": here - there, "base": job.key(test.partition("@d")[0])}


def _load_programs(path: Path, settings: Settings, bench: str) -> dict[str, Any]:
    """Whole processes until the first token, with the file in the page cache: each runs once before."""
    threads = str(settings.threads)
    ours = [*pintpot(), "run", str(path), "hi", "--raw", "-n", "1", "-t", threads, "--temp", "0", "-q"]
    theirs = [bench, "-m", str(path), "-t", threads, "-p", "1", "-n", "0", "-r", "1", "--no-warmup"]
    for command in (ours, theirs):
        run(command, settings.limit_s)
    return {
        OURS: lambda: {"load": [seconds(ours, settings.limit_s)]},
        THEIRS: lambda: {"load": [seconds(theirs, settings.limit_s)]},
    }


def _python_share(path: Path, settings: Settings) -> Samples:
    command = [sys.executable, "-m", "benchmarks.python_share", str(path), "-t", str(settings.threads)]
    return {"python": [json.loads(run(command, settings.limit_s))["share"]]}


def main() -> None:
    """Entry point; exits with 2 when llama.cpp's programs cannot be found."""
    args = _arguments()
    wanted = jobs(Choice(args.only, args.types, args.quick))
    if args.list:
        for job in wanted:
            print(f"{job.group:12} {job.file.name:28} {job.cache_type:6} {' '.join(job.tests)}")
        return
    try:
        table = Table(args)
    except ProgramError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    # Gigabytes of models are not to stay behind when a time limit ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    if args.keep:
        table.measure(wanted, args.folder)
    else:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            table.measure(wanted, Path(folder))
    print(f"stored in {args.output or default_path()}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's programs (default: PATH)")
    parser.add_argument("--only", type=_names, default=(), help=f"of these groups: {', '.join(GROUPS)}")
    parser.add_argument(
        "--types", type=_names, default=(), help="only files of these types, such as Q4_K,Q6_K"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few small files, one round: does it all work?")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=3600, help="seconds a process may take")
    parser.add_argument("--folder", type=Path, default=None, help="where model files are made")
    parser.add_argument("--keep", action="store_true", help="keep them in --folder, and use those there")
    parser.add_argument("--resume", action="store_true", help="go on with the last run in the results file")
    parser.add_argument("--list", action="store_true", help="only say what would be measured")
    parser.add_argument("-o", "--output", type=Path, default=None, help="where to store the JSON")
    args = parser.parse_args()
    unknown = set(args.only) - set(GROUPS)
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: expected {', '.join(GROUPS)}")
    if args.keep and args.folder is None:
        parser.error("--keep needs --folder")
    if args.quick:
        args.rounds = 1
    return args


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


if __name__ == "__main__":
    main()
