"""Advice about pages of a mapped tensor changes memory, never bytes."""

from pathlib import Path

import numpy as np

from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl


def _resident_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("RssFile:")[1].split()[0])


def test_released_pages_leave_memory_and_come_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(64, 1 << 16)).astype(np.float32)
    decls = [TensorDecl("a", GGMLType.F32, (64,)), TensorDecl("b", GGMLType.F32, values.shape[::-1])]
    with GGUFWriter(tmp_path / "m.gguf", {}, decls) as writer:
        assert writer.header.startswith(b"GGUF")
        writer.write("a", values[0, :64])
        writer.write("b", values)
    file = GGUFFile.open(tmp_path / "m.gguf")
    file.prefetch("b", 1000, values.nbytes)
    data = file.data("b")
    assert np.array_equal(data.view(np.float32), values.reshape(-1))
    touched = _resident_kib()
    file.release("b", 0, values.nbytes)
    assert touched - _resident_kib() > 0.9 * values.nbytes / 1024
    assert np.array_equal(data.view(np.float32), values.reshape(-1))
