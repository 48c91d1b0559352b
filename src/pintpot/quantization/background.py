"""A thread that writes tensor data while the caller computes what comes next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from types import TracebackType
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.gguf import GGUFWriter

U8: TypeAlias = npt.NDArray[np.uint8]

_PIECES_AHEAD: Final = 2


class BackgroundWriter:
    """Writes pieces in the order they are handed over, up to two of them behind the caller.

        with BackgroundWriter() as background:
            background.write(writer, name, data, done)

    When the block ends everything is written. An error while writing is raised by the next `write` or at the
    end of the block.
    """

    def __init__(self) -> None:
        self._pieces: Queue[tuple[GGUFWriter, str, U8, Callable[[], None]] | None] = Queue(_PIECES_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="pintpot-writer", daemon=True)

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def write(self, writer: GGUFWriter, name: str, data: U8, done: Callable[[], None]) -> None:
        """Append `data` to the tensor `name`; `done` is called, on the other thread, when it may change."""
        if self._error is not None:
            raise self._error
        self._pieces.put((writer, name, data, done))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._error is None:
            self._error = error  # what is still waiting need not be written
        self._pieces.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            writer, name, data, done = piece
            try:
                if self._error is None:
                    writer.write(name, data)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                self._error = error
            try:
                done()
            except BaseException as error:  # noqa: BLE001 - as above; a thread that ends here blocks `write`
                self._error = self._error or error
