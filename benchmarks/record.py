"""Where results of benchmarks go: benchmarks/results/<machine>/<commit>.json, a list of runs."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_RESULTS = Path(__file__).parent / "results"


def default_path() -> Path:
    """The file for this commit on this machine."""
    return _RESULTS / _machine_name() / f"{_commit()}.json"


def store(path: Path, run: dict[str, Any]) -> None:
    """Adds `run`, with the date, the commit and the machine, to the file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    runs.append(
        {
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
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


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


def _machine_name() -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{_cpu_name()} {len(os.sched_getaffinity(0))}cpu".lower()).strip("-")
