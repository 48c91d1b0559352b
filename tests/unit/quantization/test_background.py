"""The thread that writes: what happens when something on it fails."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from pintpot.gguf import GGMLType, GGUFWriter, TensorDecl
from pintpot.quantization.background import BackgroundWriter


def test_an_error_while_letting_go_is_raised_and_blocks_nobody(tmp_path: Path) -> None:
    """On a thread of its own: a caller that waits for ever would not fail."""
    raised: list[OSError] = []

    def done() -> None:
        raise OSError("cannot let go")

    def write() -> None:
        decls = [TensorDecl("x", GGMLType.F32, (100,))]
        try:
            with GGUFWriter(tmp_path / "x.gguf", {}, decls) as writer, BackgroundWriter() as background:
                for _ in range(100):
                    background.write(writer, "x", np.zeros(4, np.uint8), done)
        except OSError as error:
            raised.append(error)

    caller = threading.Thread(target=write, daemon=True)
    caller.start()
    caller.join(timeout=30)
    assert [str(error) for error in raised] == ["cannot let go"]
    assert list(tmp_path.iterdir()) == []
