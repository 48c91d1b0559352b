"""Damaged and hostile files: one clear line, never another exception, never much memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from gguf_bytes import array, gguf, kv, string, tensor, u32, u64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_files import METADATA, write_toy

from pintpot.errors import ModelFileError
from pintpot.gguf import GGUFFile
from pintpot.spec import ModelSpec, measure, summarize_types

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
PLAIN = [kv("general.architecture", 8, string("llama")), kv("k", 4, u32(1))]


def read_everything(path: Path) -> None:
    """What every command does with a file before it touches a weight."""
    file = GGUFFile.open(path)
    for key in file.metadata:
        file.metadata[key]
    for name, info in file.tensors.items():
        assert file.data(name).nbytes == info.nbytes
    summarize_types(file)
    measure(file, ModelSpec.from_gguf(file))


def check(path: Path, data: bytes) -> str | None:
    """The error's line, or None for a file that is fine."""
    path.write_bytes(data)
    try:
        read_everything(path)
    except ModelFileError as error:
        line = str(error)
        assert line.startswith(str(path.parent))
        assert "\n" not in line
        assert len(line) < 500 + len(str(path))
        return line
    return None


HOSTILE = {
    "empty": (b"", "is empty, expected a GGUF model"),
    "magic": (gguf(magic=b"GGML"), r"is no GGUF file \(it starts with b'GGML'\)"),
    "short magic": (b"GG", r"is no GGUF file \(it starts with b'GG'\)"),
    "header cut": (gguf()[:20], "is cut off within its header"),
    "version 1": (gguf(version=1), "is GGUF version 1, versions 2 and 3"),
    "version 4": (gguf(version=4), "is GGUF version 4, versions 2 and 3"),
    "big-endian": (gguf(version=3 << 24), "is a big-endian GGUF file"),
    "many keys": (gguf(PLAIN, n_entries=1 << 60), f"claims {1 << 60} metadata keys, more than it can hold"),
    "many tensors": (gguf(PLAIN, n_tensors=1 << 60), f"claims {1 << 60} tensors, more than it can hold"),
    "a key too many": (gguf(PLAIN, n_entries=3), "a metadata key at byte"),
    "cut after a key": (gguf(PLAIN, n_entries=3)[:90], "is cut off in its metadata, at or after key k"),
    "empty key": (gguf([kv("", 4, u32(1))]), "a metadata key at byte 24 is 0 bytes long"),
    "long key": (
        gguf([u64(1 << 63) + u32(4)], data=bytes(64)),
        f"a metadata key at byte 24 is {1 << 63} bytes",
    ),
    "key past the end": (gguf([u64(60000)]), "is cut off within a metadata key"),
    "key not UTF-8": (gguf([kv(b"\xff\xfe", 4, u32(1))]), "the metadata key .* is not UTF-8"),
    "key twice": (gguf([*PLAIN, PLAIN[1]]), "metadata key k appears twice"),
    "value type": (gguf([kv("k", 13, u32(1))]), "metadata key k: its value has the unknown type 13"),
    "value cut": (gguf([kv("k", 10, b"")], data=b"")[:37], "metadata key k: the file is cut off"),
    "long string": (gguf([kv("k", 8, u64(1 << 63))]), "metadata key k: a string lies outside the file"),
    "array length": (
        gguf([kv("k", 9, array(4, 1 << 62, b""))]),
        f"metadata key k: its array claims {1 << 62} elements",
    ),
    "array of strings": (gguf([kv("k", 9, array(8, 1 << 40, b""))]), "its array claims"),
    "array string": (
        gguf([kv("k", 9, array(8, 2, u64(1 << 50) + bytes(64)))]),
        "a string lies outside the file",
    ),
    "array type": (gguf([kv("k", 9, array(99, 1, bytes(64)))]), "its value has the unknown type 99"),
    "array head cut": (gguf([kv("k", 9, u32(4))])[:40], "is cut off in its metadata, at or after key k"),
    "deep array": (
        gguf([kv("k", 9, array(9, 1, array(9, 1, array(9, 1, array(9, 1, array(4, 1, u32(1)))))))]),
        "metadata key k: arrays are nested deeper than 4",
    ),
    "alignment 0": (gguf([kv("general.alignment", 4, u32(0))]), "general.alignment is 0, expected a power"),
    "alignment 48": (
        gguf([kv("general.alignment", 4, u32(48))]),
        "general.alignment is 48, expected a power",
    ),
    "alignment huge": (gguf([kv("general.alignment", 10, u64(1 << 63))]), "expected a power of two"),
    "alignment string": (gguf([kv("general.alignment", 8, string("32"))]), "general.alignment is '?32"),
    "alignment bool": (gguf([kv("general.alignment", 7, b"\1")]), "general.alignment is True"),
    "dimensions": (gguf(PLAIN, [tensor("t", [1] * 5)]), "tensor t has 5 dimensions, at most 4"),
    "2^32 dimensions": (
        gguf(PLAIN, [string("t") + u32(0xFFFFFFFF) + bytes(64)]),
        "has 4294967295 dimensions",
    ),
    "zero dimension": (gguf(PLAIN, [tensor("t", [4, 0])]), r"tensor t has the impossible shape \[4, 0\]"),
    "huge shape": (gguf(PLAIN, [tensor("t", [1 << 40, 1 << 40])]), "tensor t has the impossible shape"),
    "wrapping shape": (gguf(PLAIN, [tensor("t", [1 << 32, 1 << 32])]), "tensor t has the impossible shape"),
    "tensor twice": (gguf(PLAIN, [tensor("t", [1])] * 2, bytes(4)), "tensor t appears twice"),
    "tensor name": (gguf(PLAIN, [tensor("", [1])]), "a tensor name at byte .* is 0 bytes long"),
    "tensor list cut": (
        gguf(PLAIN, [tensor("t", [1]), string("u") + u32(4) + u64(1)], n_tensors=2, alignment=1),
        "is cut off in the tensor list, after t: download",
    ),
    "block": (
        gguf(PLAIN, [tensor("t", [33], 8)], bytes(64)),
        "tensor t: rows of 33 values are no multiple of the Q8_0",
    ),
    "misaligned": (
        gguf(PLAIN, [tensor("t", [1], 0, 4)], bytes(64)),
        "tensor t: offset 4 is not aligned to 32",
    ),
    "out of range": (
        gguf(PLAIN, [tensor("t", [9])], bytes(35)),
        "tensor t ends at byte .* the file is incomplete",
    ),
    "offset far out": (gguf(PLAIN, [tensor("t", [1], 0, 1 << 62)], bytes(64)), "tensor t ends at byte"),
    "unknown far out": (gguf(PLAIN, [tensor("t", [1], 999, 1 << 62)], bytes(64)), "tensor t ends at byte"),
    "overlap": (
        gguf(PLAIN, [tensor("t", [16]), tensor("u", [1], 0, 32)], bytes(96)),
        "tensors t and u overlap",
    ),
    "same place": (gguf(PLAIN, [tensor("t", [1]), tensor("u", [1])], bytes(96)), "tensors t and u overlap"),
    "split count": (
        gguf([kv("split.count", 8, string("2"))]),
        "split.count is '?2'?, expected a number of parts",
    ),
    "split far": (
        gguf([kv("split.count", 10, u64(1 << 60))]),
        "split.count is .* expected a number of parts",
    ),
    "split negative": (gguf([kv("split.count", 5, u32(0xFFFFFFFF))]), "split.count is -1"),
    "escape codes": (gguf([kv("\x1b[31m\n", 13, b"")]), r"metadata key '\\x1b\[31m\\n': its value"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_end_in_one_clear_line(tmp_path, case):
    data, message = HOSTILE[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_everything(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    assert len(line) < 500 + len(str(path))


def test_overlap_with_a_tensor_of_unknown_size_is_told_by_the_next_offset(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(PLAIN, [tensor("t", [1], 999), tensor("u", [1], 999)], bytes(32)))
    file = GGUFFile.open(path)
    assert [t.nbytes for t in file.tensors.values()] == [0, 32]


def test_things_that_are_no_files(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be opened: No such file"):
        GGUFFile.open(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="cannot be opened: Is a directory"):
        GGUFFile.open(tmp_path)
    with pytest.raises(ModelFileError, match="is no regular file"):
        GGUFFile.open("/dev/null")
    with pytest.raises(ModelFileError, match="cannot be opened: embedded null byte"):
        GGUFFile.open("a\0b")
    with pytest.raises(ModelFileError, match="cannot be opened: File name too long"):
        GGUFFile.open("x" * 5000)


def test_a_pipe_does_not_hang(tmp_path):
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    with pytest.raises(ModelFileError, match="is no regular file"):
        GGUFFile.open(path)


@pytest.mark.parametrize("case", ["many keys", "array length", "array of strings", "long string", "long key"])
def test_claims_cost_no_memory(tmp_path, case):
    tracemalloc.start()
    try:
        check(tmp_path / "m.gguf", HOSTILE[case][0])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> bytes:
    return write_toy(tmp_path_factory.mktemp("toy") / "m.gguf", "qwen35moe").read_bytes()


def test_cut_off_anywhere(tmp_path, toy):
    path = tmp_path / "m.gguf"
    assert check(path, toy) is None
    for size in range(0, len(toy), 17):
        assert check(path, toy[:size]) is not None, size
    assert check(path, toy[:-32]) is not None  # all that is left out is padding and the last tensor's end


def test_bits_flipped_anywhere_in_the_header(tmp_path, toy):
    path = tmp_path / "m.gguf"
    path.write_bytes(toy)
    end = min(t.offset for t in GGUFFile.open(path).tensors.values())
    for byte in range(0, end, 4):
        damaged = bytearray(toy)
        damaged[byte] ^= 1 << (byte // 4 % 8)
        check(path, bytes(damaged))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_damage(tmp_path, data):
    kind = data.draw(st.sampled_from(sorted(METADATA)))
    source = tmp_path / f"{kind}.source"
    if not source.exists():
        write_toy(source, kind)
    raw = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        patch = data.draw(
            st.one_of(st.binary(min_size=1, max_size=9), st.just(b"\xff" * 8), st.just(bytes(8)))
        )
        raw[at : at + len(patch)] = patch
    check(tmp_path / "m.gguf", bytes(raw))


@pytest.mark.parametrize("case", CORPUS, ids=lambda p: p.stem)
def test_what_fuzzing_found(tmp_path, case):
    check(tmp_path / "model.gguf", case.read_bytes())
