"""Numbers and text as people read them in a terminal."""

from __future__ import annotations

import re
import sys

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def human_bytes(n: int) -> str:
    """Binary units with three significant digits: 5.94 GiB."""
    value = float(n)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return (
                f"{int(value)} B"
                if unit == "B"
                else f"{value:.3g} {unit}"
                if value < 1000
                else f"{value:.0f} {unit}"
            )
        value /= 1024
    return f"{value:.3g} TiB"


def human_count(n: int) -> str:
    """Decimal units: 34.7 B, 7.62 M."""
    value = float(n)
    for unit in ("", " K", " M", " B"):
        if abs(value) < 1000:
            return f"{n}" if not unit else f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} T"


def without_controls(text: str) -> str:
    """Text from a file or a model, safe to show: control characters but newline and tab are replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def write_answer(piece: str) -> None:
    """Writes model output at once. On a terminal, control characters a model may emit do not act."""
    if sys.stdout.isatty():
        piece = without_controls(piece)
    sys.stdout.write(piece)
    sys.stdout.flush()


def note(message: str) -> None:
    """A line for the person, kept out of stdout."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
