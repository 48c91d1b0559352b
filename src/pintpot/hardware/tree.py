"""The text files in which Linux describes itself, under a root that tests replace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tree:
    """Reads below `root`; what is absent or unreadable is None, or an empty list."""

    root: Path = Path("/")

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """The file's text without surrounding blanks (and the zero bytes of a command line)."""
        try:
            text = self.path(name).read_bytes().decode("utf-8", "replace")
        except OSError:
            return None
        return text.strip(" \t\r\n\0")

    def has(self, name: str) -> bool:
        """Whether there is such a file; True where even that may not be known."""
        try:
            return self.path(name).exists()
        except OSError:
            return True

    def lines(self, name: str) -> list[str]:
        return (self.text(name) or "").splitlines()

    def number(self, name: str) -> int | None:
        """The file's whole number, if it holds just that."""
        text = self.text(name) or ""
        return int(text) if text.isdecimal() else None

    def names(self, folder: str, pattern: str = "*") -> list[str]:
        """Names in a folder that match, sorted."""
        try:
            return sorted(p.name for p in self.path(folder).glob(pattern))
        except OSError:
            return []

    def table(self, name: str) -> dict[str, str]:
        """Lines of `key: value`, as in /proc/meminfo and /proc/PID/status."""
        pairs = (line.partition(":") for line in self.lines(name))
        return {key.strip(): value.strip() for key, colon, value in pairs if colon}

    def kib(self, table: dict[str, str], key: str) -> int | None:
        """Bytes of a `123 kB` value of a table."""
        digits = table.get(key, "").split()
        return int(digits[0]) * 1024 if digits and digits[0].isdecimal() else None
