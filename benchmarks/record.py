"""Where results of benchmarks go: benchmarks/results/<machine>/<commit>.json, a list of runs."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

RESULTS = Path(__file__).parent / "results"

Run: TypeAlias = dict[str, Any]  # as JSON has it


def default_path() -> Path:
    """The file for this commit on this machine."""
    return RESULTS / machine_name() / f"{_commit()}.json"


def store(path: Path, run: Run) -> None:
    """Adds `run`, with the date, the commit and the machine, to the file at `path`."""
    Log(path, run)


class Log:
    """A run in the file at `path` that grows: what is in `run` when `save` is called is on the disk after."""

    def __init__(self, path: Path, run: Run, *, resume: bool = False) -> None:
        """Begins the run. `resume`: goes on with the last one there that equals `run` in all its fields."""
        self._path = path
        self._runs = read_runs(path)
        same = [old for old in self._runs if all(old.get(key) == value for key, value in run.items())]
        if resume and same:
            self.run = same[-1]
        else:
            self.run = {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "commit": _commit(),
                "machine": {
                    "cpu": _cpu_name(),
                    "cpus": len(os.sched_getaffinity(0)),
                    "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                    "system": platform.platform(),
                },
                **run,
            }
            self._runs.append(self.run)
        self.save()

    def save(self) -> None:
        """Writes the file anew, atomically."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._runs, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._path)


def read_runs(path: Path) -> list[Run]:
    """The runs of a results file; none where there is no file."""
    runs: list[Run] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return runs


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def machine_name() -> str:
    """This machine, as a folder is called."""
    return re.sub(r"[^a-z0-9]+", "-", f"{_cpu_name()} {len(os.sched_getaffinity(0))}cpu".lower()).strip("-")
