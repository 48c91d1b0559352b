"""Reader and writer against each other and against the `gguf` package, both ways."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_bytes import array, kv, string, tensor, u32, u64
from gguf_bytes import gguf as raw_gguf

from pintpot.errors import ModelFileError, PintpotError
from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl, Typed, ValueType
from pintpot.gguf.writer import encode_value

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 3,
    "llama.negative": -3,
    "llama.big": 1 << 40,
    "llama.epsilon": 1e-5,
    "llama.flag": True,
    "llama.off": False,
    "llama.bytes": Typed(ValueType.UINT8, 7),
    "llama.short": Typed(ValueType.INT16, -7),
    "llama.double": Typed(ValueType.FLOAT64, 0.1),
    "llama.sections": [11, 11, 10, 0],
    "llama.pattern": [True, False, True],
    "llama.factors": [0.5, 2.0],
    "tokenizer.ggml.tokens": ["a", "Ġb", "", "日本", "x" * 300],
    "tokenizer.ggml.scores": np.array([0.5, -1.0], np.float32),
    "tokenizer.ggml.types": np.array([1, 3, 6], np.int32),
    "tokenizer.ggml.empty": Typed(ValueType.ARRAY, [], ValueType.STRING),
    "tokenizer.chat_template": "{{ 'ä' }}\n",
}


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def expected(key: str) -> Any:
    value = METADATA[key]
    value = plain(value.value if isinstance(value, Typed) else value)
    return np.float32(value) if isinstance(value, float) and key != "llama.double" else value


def write(path: Path, metadata: dict[str, Any], tensors: dict[str, np.ndarray], **options: Any) -> Path:
    decls = [TensorDecl(n, GGMLType.F32, a.shape[::-1]) for n, a in tensors.items()]
    with GGUFWriter(path, metadata, decls, **options) as writer:
        for name, values in tensors.items():
            writer.write(name, values)
        size = writer.nbytes
    assert path.stat().st_size == size
    return path


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "token_embd.weight": rng.random((5, 7), dtype=np.float32),
        "blk.0.attn_norm.weight": rng.random(7, dtype=np.float32),
        "blk.0.ffn_up_exps.weight": rng.random((2, 3, 7), dtype=np.float32),
    }


def test_our_file_reads_back_here_and_in_the_gguf_package(tmp_path, tensors):
    path = write(tmp_path / "m.gguf", METADATA, tensors)
    file = GGUFFile.open(path)
    assert list(file.metadata) == list(METADATA)
    for key in METADATA:
        assert plain(file.metadata[key]) == expected(key), key
    assert file.version == 3
    assert file.path == path
    assert file.nbytes == path.stat().st_size

    reader = gguf.GGUFReader(path)
    for key in METADATA:
        field = reader.get_field(key)
        assert field is not None
        if key == "tokenizer.ggml.empty":
            continue  # the package cannot say what an empty array holds
        assert field.contents() == expected(key), key
        assert int(field.types[0]) == file.metadata.type_of(key)
    assert [t.name for t in reader.tensors] == list(file.tensors) == list(tensors)
    for theirs in reader.tensors:
        info = file.tensors[theirs.name]
        values = file.data(theirs.name).view(np.float32).reshape(info.shape)
        assert info.ne == tuple(theirs.shape)
        assert info.offset == theirs.data_offset
        np.testing.assert_array_equal(values, tensors[theirs.name])
        np.testing.assert_array_equal(values, theirs.data)


def test_a_file_of_the_gguf_package_reads_here(tmp_path, tensors):
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_float64("llama.double", 0.1)
    writer.add_bool("llama.flag", True)
    writer.add_array("llama.sections", [11, 11, 10, 0])
    writer.add_array("tokenizer.ggml.tokens", ["a", "Ġb", ""])
    writer.add_array("llama.pattern", [True, False])
    quantized = gguf.quants.quantize(np.ones((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("q", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    file = GGUFFile.open(path)
    assert {k: plain(v) for k, v in file.metadata.items()} == {
        "general.architecture": "llama",
        "llama.block_count": 3,
        "llama.double": 0.1,
        "llama.flag": True,
        "llama.sections": [11, 11, 10, 0],
        "tokenizer.ggml.tokens": ["a", "Ġb", ""],
        "llama.pattern": [True, False],
    }
    assert file.tensors["q"].ne == (64, 4)
    assert file.tensors["q"].type_name == "Q8_0"
    np.testing.assert_array_equal(file.data("q").reshape(quantized.shape), quantized)
    for name, values in tensors.items():
        np.testing.assert_array_equal(file.data(name).view(np.float32), values.ravel())


def test_data_is_a_read_only_view_of_the_file(tmp_path, tensors):
    file = GGUFFile.open(write(tmp_path / "m.gguf", {}, tensors))
    view = file.data("token_embd.weight")
    assert not view.flags.writeable
    assert not view.flags.owndata
    assert np.shares_memory(view, file.parts[0].bytes)
    with pytest.raises(ModelFileError, match="tensor nothing is missing"):
        file.data("nothing")
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_metadata_arrays_cannot_be_written(tmp_path):
    file = GGUFFile.open(write(tmp_path / "m.gguf", METADATA, {}))
    for key in ("tokenizer.ggml.scores", "llama.pattern"):
        with pytest.raises(ValueError, match="read-only"):
            file.metadata[key][0] = 0
    assert file.metadata.array_info("tokenizer.ggml.tokens") == (ValueType.STRING, 5)
    assert file.metadata.array_info("llama.block_count") is None
    assert "nope" not in file.metadata
    with pytest.raises(KeyError):
        file.metadata["nope"]


def test_raw_values_copy_unchanged_even_where_they_are_not_utf8(tmp_path):
    entries = [
        kv("bad", 8, string(b"\xff\xfe")),
        kv("tokens", 9, array(8, 2, string(b"ok") + string(b"\xc3"))),
        kv("nested", 9, array(9, 2, array(4, 1, u32(5)) + array(8, 1, string("s")))),
    ]
    source = tmp_path / "a.gguf"
    source.write_bytes(raw_gguf(entries))
    file = GGUFFile.open(source)
    assert file.metadata["bad"] == "\ufffd\ufffd"
    assert file.metadata["tokens"] == ["ok", "\ufffd"]
    nested = file.metadata["nested"]
    assert isinstance(nested, list)
    assert [plain(v) for v in nested] == [[5], ["s"]]

    write(tmp_path / "b.gguf", {k: file.metadata.raw(k) for k in file.metadata}, {})
    assert (tmp_path / "b.gguf").read_bytes() == b"".join([raw_gguf()[:16], u64(3), *entries])


def test_version_2_reads_like_version_3(tmp_path):
    path = tmp_path / "v2.gguf"
    path.write_bytes(raw_gguf([kv("k", 4, u32(9))], [tensor("t", [2])], bytes(8), version=2))
    file = GGUFFile.open(path)
    assert file.version == 2
    assert file.metadata["k"] == 9
    assert file.data("t").nbytes == 8


def test_other_alignments(tmp_path, tensors):
    file = GGUFFile.open(write(tmp_path / "m.gguf", METADATA, tensors, alignment=4096))
    assert file.alignment == 4096
    assert all(t.offset % 4096 == 0 for t in file.tensors.values())
    np.testing.assert_array_equal(
        file.data("blk.0.attn_norm.weight").view(np.float32), tensors["blk.0.attn_norm.weight"]
    )


def test_unknown_and_unrunnable_types_are_listed(tmp_path):
    path = tmp_path / "m.gguf"
    tensors = [
        tensor("new", [64, 2], 4711, 0),
        tensor("iq1", [256], 19, 64),
        tensor("newer", [3], 4712, 128),
        tensor("scalar", [], 0, 160),
    ]
    path.write_bytes(raw_gguf([], tensors, bytes(164)))
    file = GGUFFile.open(path)
    new = file.tensors["new"]
    assert new.type is None
    assert (new.type_name, new.nbytes, new.n_values) == ("type 4711", 64, 128)
    assert (file.tensors["iq1"].type_name, file.tensors["iq1"].nbytes) == ("IQ1_S", 50)
    assert file.tensors["newer"].nbytes == 32
    assert file.tensors["scalar"].ne == (1,)


def split(folder: Path, count: int = 3, **changes: Any) -> list[Path]:
    """A model in `count` parts of one tensor each."""
    paths = []
    for i in range(count):
        meta = {
            "split.no": Typed(ValueType.UINT16, changes.get(f"no{i}", i)),
            "split.count": Typed(ValueType.UINT16, changes.get(f"count{i}", count)),
            "split.tensors.count": Typed(ValueType.INT32, changes.get("total", count)),
        }
        if i == 0:
            meta["general.architecture"] = "llama"
        path = folder / f"big-{i + 1:05}-of-{count:05}.gguf"
        name = changes.get(f"name{i}", f"t{i}")
        paths.append(write(path, meta, {name: np.full(4, i, np.float32)}))
    return paths


@pytest.mark.parametrize("opened", [0, 2])
def test_any_part_opens_the_whole_split(tmp_path, opened):
    paths = split(tmp_path)
    file = GGUFFile.open(paths[opened])
    assert [p.path for p in file.parts] == paths
    assert file.path == paths[0]
    assert file.metadata["general.architecture"] == "llama"
    assert [file.data(f"t{i}").view(np.float32)[0] for i in range(3)] == [0, 1, 2]
    assert [t.part for t in file.tensors.values()] == [0, 1, 2]
    assert file.nbytes == sum(p.stat().st_size for p in paths)


def test_broken_splits_say_which_part(tmp_path):
    paths = split(tmp_path)
    paths[1].unlink()
    with pytest.raises(ModelFileError, match=r"big-00002-of-00003.gguf: part 2 of 3 of the model is missing"):
        GGUFFile.open(paths[0])
    renamed = paths[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelFileError, match=r"renamed.gguf: is one of the 3 parts .*give the parts"):
        GGUFFile.open(renamed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no1": 2}, r"00002-of-00003.gguf: says it is part 2 \(from 0\) of 3, expected 1 of 3"),
        ({"count2": 5}, r"00003-of-00003.gguf: says it is part 2 \(from 0\) of 5"),
        ({"name2": "t0"}, "00003-of-00003.gguf: tensor t0 is in an earlier part already"),
        ({"total": 7}, "hold 3 tensors, split.tensors.count says 7"),
    ],
)
def test_contradictory_splits(tmp_path, changes, message):
    with pytest.raises(ModelFileError, match=message):
        GGUFFile.open(split(tmp_path, **changes)[0])


def test_writer_takes_chunks_and_keeps_order(tmp_path):
    decls = [TensorDecl("a", GGMLType.Q8_0, (64, 3)), TensorDecl("b", GGMLType.F32, (1,))]
    data = np.random.default_rng(0).integers(0, 256, 204, dtype=np.uint8)
    with GGUFWriter(tmp_path / "m.gguf", {}, decls) as writer:
        for start in range(0, 204, 50):
            writer.write("a", data[start : start + 50].tobytes())
        writer.write("b", np.float32([5]))
    file = GGUFFile.open(tmp_path / "m.gguf")
    np.testing.assert_array_equal(file.data("a"), data)
    assert file.data("b").view(np.float32) == 5


@pytest.mark.parametrize(
    ("writes", "message"),
    [
        ([("b", 4)], "tensor b: it is the turn of a"),
        ([("a", 20)], "tensor a: 20 bytes, 16 are declared"),
        ([("a", 16), ("b", 4), ("c", 1)], "tensor c: every declared tensor is written already"),
        ([("a", 16)], "tensor b: 0 of 4 bytes were written"),
        ([("a", 15)], "tensor a: 15 of 16 bytes were written"),
    ],
)
def test_misuse_leaves_nothing_behind(tmp_path, writes, message):
    def run() -> None:
        decls = [TensorDecl("a", GGMLType.F32, (4,)), TensorDecl("b", GGMLType.F32, (1,))]
        with GGUFWriter(tmp_path / "m.gguf", {}, decls) as writer:
            for name, size in writes:
                writer.write(name, bytes(size))

    with pytest.raises(ValueError, match=message):
        run()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_file_and_removes_the_new(tmp_path, monkeypatch):
    path = write(tmp_path / "m.gguf", {}, {"a": np.ones(4, np.float32)})
    old = path.read_bytes()

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PintpotError, match=r"m.gguf: cannot be written: No space left on device"):
        write(path, {}, {"a": np.zeros(4, np.float32)})
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == old


def test_writing_into_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(PintpotError, match=r"none/m.gguf: cannot be written: No such file"):
        write(tmp_path / "none" / "m.gguf", {}, {})


def test_writer_outside_its_block(tmp_path):
    writer = GGUFWriter(tmp_path / "m.gguf", {}, [TensorDecl("a", GGMLType.F32, (1,))])
    with pytest.raises(ValueError, match="outside its `with` block"):
        writer.write("a", bytes(4))


@pytest.mark.parametrize(
    ("decls", "message"),
    [
        ([TensorDecl("a", GGMLType.F32, (1,))] * 2, "tensor a is declared twice"),
        ([TensorDecl("a", GGMLType.F32, ())], "is no shape"),
        ([TensorDecl("a", GGMLType.F32, (4, 0))], "is no shape"),
        ([TensorDecl("a", GGMLType.Q4_K, (100,))], r"tensor a \(Q4_K\): 100 columns are no multiple"),
        ([TensorDecl("a", 4711, (1,))], r"tensor a \(type 4711\): tensor type 4711 is unknown"),
    ],
)
def test_impossible_declarations(tmp_path, decls, message):
    with pytest.raises(ValueError, match=message):
        GGUFWriter(tmp_path / "m.gguf", {}, decls)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, ValueType.UINT32),
        ((1 << 32) - 1, ValueType.UINT32),
        (1 << 32, ValueType.UINT64),
        (-1, ValueType.INT32),
        (-(1 << 40), ValueType.INT64),
        (1.0, ValueType.FLOAT32),
        (True, ValueType.BOOL),
        ("s", ValueType.STRING),
        (np.int16(3), ValueType.INT16),
        ([1, 2], ValueType.ARRAY),
        ([[1], [2, 3]], ValueType.ARRAY),
    ],
)
def test_value_types(value, kind):
    assert encode_value(value).type is kind


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1, "a"],
        None,
        {"a": 1},
        1 << 70,
        np.ones((2, 2)),
        np.complex64(1),
        np.ones(2, np.complex64),
        Typed(ValueType.UINT8, 256),
        Typed(ValueType.STRING, 3),
        Typed(ValueType.ARRAY, "text", ValueType.STRING),
        Typed(ValueType.ARRAY, np.ones(2, np.float32), ValueType.FLOAT64),
    ],
)
def test_values_that_metadata_cannot_hold(value):
    with pytest.raises(ValueError, match="metadata"):
        encode_value(value)
