"""The bar that commands which read or write a whole model show."""

from __future__ import annotations

from types import TracebackType

from pintpot.cli.text import note


class ByteBar:
    """A bar of bytes with rate and the time left, on the terminal's stderr; elsewhere nothing.

    Whoever interrupts the work is told that no file has changed: outputs appear only when they are whole.
    """

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        console = Console(stderr=True)
        self._what = what
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> ByteBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            note(f"interrupted while {self._what}: nothing was written, existing files are as they were")

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
