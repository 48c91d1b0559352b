"""Files in which Linux describes itself."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str | None:
    """The file's text without surrounding blanks; None where it is absent or unreadable."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
