"""pintpot and llama.cpp as programs: their commands, and what they say of speed, under common names of tests.

A test is `pp512` (prefill), `tg64` (decode) or `tg64x4` (four sequences together), with `@d16384` behind it
when that many tokens were there before.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.alternate import Samples


class ProgramError(Exception):
    """A program could not be run, failed or took too long; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What both programs are given. `limit_s`: the longest a process may take; `placement`: flags that
    say what lies on a GPU."""

    threads: int
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    repetitions: int = 1
    limit_s: float | None = None
    placement: tuple[str, ...] = ()

    @property
    def flags(self) -> list[str]:
        """Spelled alike by both."""
        cache = ["-ctk", self.cache_type_k, "-ctv", self.cache_type_v]
        return ["-t", str(self.threads), *cache, "-r", str(self.repetitions), "-o", "json", *self.placement]


def find_program(name: str, folder: Path | None = None) -> str:
    """The path of a program in `folder`, or of PATH. Raises ProgramError."""
    found = shutil.which(name, path=None if folder is None else str(folder))
    if found is None:
        where = f"in {folder}" if folder is not None else "on PATH"
        raise ProgramError(f"{name}: not found {where}; build llama.cpp's tools and name their folder")
    return found


def name_test(n_prompt: int, n_gen: int, depth: int = 0, parallel: int = 1) -> str:
    """What a test is called; one of the first two is 0."""
    name = f"pp{n_prompt}" if n_prompt else f"tg{n_gen}" + (f"x{parallel}" if parallel > 1 else "")
    return name + (f"@d{depth}" if depth else "")


def pintpot_bench(
    model: Path,
    settings: Settings,
    *,
    n_prompt: Sequence[int] = (),
    n_gen: Sequence[int] = (),
    depths: Sequence[int] = (0,),
    parallel: Sequence[int] = (1,),
) -> Samples:
    """Tokens a second of `pintpot bench`."""
    command = [*pintpot(), "bench", str(model), *settings.flags]
    command += [*_tests(n_prompt, n_gen, depths), "-npl", _numbers(parallel)]
    return {
        name_test(row["n_prompt"], row["n_gen"], row["n_depth"], row["n_parallel"]): row["samples_tokens_s"]
        for row in json.loads(run(command, settings.limit_s))
    }


def llama_bench(
    program: str,
    model: Path,
    settings: Settings,
    *,
    n_prompt: Sequence[int] = (),
    n_gen: Sequence[int] = (),
    depths: Sequence[int] = (0,),
) -> Samples:
    """Tokens a second of llama-bench."""
    command = [program, "-m", str(model), *settings.flags, *_tests(n_prompt, n_gen, depths)]
    return {
        name_test(row["n_prompt"], row["n_gen"], row["n_depth"]): row["samples_ts"]
        for row in json.loads(run(command, settings.limit_s))
    }


def llama_batched_bench(
    program: str, model: Path, settings: Settings, *, n_gen: int, depth: int, parallel: Sequence[int]
) -> Samples:
    """Tokens a second of llama-batched-bench, which has no repetitions."""
    # A sequence gets an equal share of the context, rounded down to 256 tokens.
    ctx = max(parallel) * (-(-(depth + n_gen) // 256) * 256)
    command = [program, "-m", str(model), "-t", str(settings.threads), "-c", str(ctx), "-npp", str(depth)]
    command += ["-ctk", settings.cache_type_k, "-ctv", settings.cache_type_v]
    command += ["-ntg", str(n_gen), "-npl", _numbers(parallel), "--output-format", "jsonl"]
    rows = [json.loads(line) for line in run(command, settings.limit_s).splitlines() if line.startswith("{")]
    return {name_test(0, row["tg"], row["pp"], row["pl"]): [row["speed_tg"]] for row in rows}


def version(program: str) -> str:
    """What a llama.cpp program calls its version; it says so on standard error."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"^version: (.+)$", done.stdout + done.stderr, re.MULTILINE)
    return match[1] if match else "unknown"


def seconds(command: Sequence[str], limit_s: float | None = None) -> float:
    """How long a whole process takes, start and end included."""
    start = time.perf_counter()
    run(command, limit_s)
    return time.perf_counter() - start


def pintpot() -> list[str]:
    """The command of the pintpot that this interpreter imports."""
    return [sys.executable, "-m", "pintpot.cli"]


def run(command: Sequence[str], limit_s: float | None = None) -> str:
    """What a command prints. Raises ProgramError with the end of what it says when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{' '.join(command)}: took longer than {limit_s:.0f} s") from None
    if done.returncode != 0:
        raise ProgramError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def _tests(n_prompt: Sequence[int], n_gen: Sequence[int], depths: Sequence[int]) -> list[str]:
    return ["-p", _numbers(n_prompt or (0,)), "-n", _numbers(n_gen or (0,)), "-d", _numbers(depths)]


def _numbers(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values)
