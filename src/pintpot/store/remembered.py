"""What was learnt of machines and of the hub, in files of the cache folder: JSON of a stated format."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def read_remembered(path: Path, version: int, what: str = "machines") -> dict[str, Any]:
    """The `what` of a file, by name; none where it is absent, damaged or of another format."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict) or data.get("format") != version:
        return {}
    found = data.get(what)
    return found if isinstance(found, dict) else {}


def write_remembered(path: Path, version: int, found: dict[str, Any], what: str = "machines") -> None:
    """Writes all of them, or leaves the file as it was. Raises OSError where it cannot."""
    import tempfile  # slow to import, and rarely needed

    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": version, what: found}, indent=2)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
