"""Weights are mapped ahead of use where memory holds them, and only those that a run reads."""

from __future__ import annotations

import mmap
import re
import weakref
from pathlib import Path

import pytest

from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl
from pintpot.hardware.machine import Memory
from pintpot.runtime import populate as populating
from pintpot.runtime.populate import HEADROOM_BYTES, populate, spans

MIB = 1 << 20
SIZES = {"a": MIB, "b": 3 * MIB, "c": 2 * MIB, "d": 4 * MIB}


def write(path: Path) -> GGUFFile:
    declared = [TensorDecl(name, GGMLType.F32, (nbytes // 4,)) for name, nbytes in SIZES.items()]
    with GGUFWriter(path, {"general.architecture": "llama"}, declared) as writer:
        for tensor in declared:
            writer.write(tensor.name, bytes(tensor.nbytes))
    return GGUFFile.open(path)


@pytest.fixture
def file(tmp_path: Path) -> GGUFFile:
    return write(tmp_path / "weights.gguf")


def resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    sizes = re.findall(rf"{re.escape(path.name)}\n(?:.*\n)*?Rss: +(\d+) kB", maps)
    return sum(int(kib) * 1024 for kib in sizes)


def test_spans_are_whole_pages_and_neighbours_are_one(file: GGUFFile) -> None:
    page = mmap.PAGESIZE
    both, last = spans(file, ["d", "b", "a"])
    for span, names in ((both, "ab"), (last, "d")):
        infos = [file.tensors[name] for name in names]
        assert span.start % page == 0
        assert infos[0].offset - page < span.start <= infos[0].offset
        end = infos[-1].offset + infos[-1].nbytes
        assert end <= span.stop < end + page
        assert span.stop % page == 0 or span.stop == file.nbytes


def test_what_is_read_gets_resident_and_the_rest_does_not(file: GGUFFile) -> None:
    before = resident(file.path)
    thread = populate(file, ["b", "d"], 0)
    if thread is None:
        pytest.skip("no madvise here")
    thread.join()
    grown = resident(file.path) - before
    if not grown:
        pytest.skip("this kernel has no MADV_POPULATE_READ")
    assert abs(grown - SIZES["b"] - SIZES["d"]) < MIB / 2  # the kernel maps some pages around a fault


@pytest.mark.parametrize(("missing", "begins"), [(1, False), (-mmap.PAGESIZE * 4, True)])
def test_memory_must_hold_them_and_what_else_is_needed(
    monkeypatch: pytest.MonkeyPatch, file: GGUFFile, missing: int, begins: bool
) -> None:
    room = SIZES["b"] + 100 * MIB + HEADROOM_BYTES - missing
    monkeypatch.setattr(populating, "read_memory", lambda tree, notes: Memory(room, room))
    thread = populate(file, ["b"], 100 * MIB)
    assert (thread is not None) is begins


def test_nothing_to_read(file: GGUFFile) -> None:
    assert populate(file, [], 0) is None


def test_it_ends_with_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file is let go of in the middle of the first chunk; no other follows."""
    held = [write(tmp_path / "weights.gguf")]
    wanted, file = spans(held[0], SIZES), weakref.ref(held[0])
    calls = []

    def madvise(address: int, size: int, advice: int) -> int:
        calls.append(size)
        held.clear()
        return 0

    monkeypatch.setattr(populating, "_CHUNK_BYTES", MIB)
    monkeypatch.setattr("os.setpriority", lambda *args: None)  # of the test itself
    populating._populate(madvise, file, wanted)
    assert calls == [MIB]
