"""Importance matrices as values and files: round trips, gguf's own reader, damage, the `.dat` format."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest

from pintpot.errors import ModelFileError, PintpotError, UsageError
from pintpot.gguf import GGMLType, GGUFWriter, TensorDecl, Typed, ValueType
from pintpot.quantization.importance import (
    Imatrix,
    LayerReach,
    TensorImportance,
    expert_reach,
    merge,
    read_imatrix,
    write_imatrix,
)

DENSE, STACK = "blk.0.attn_q.weight", "blk.1.ffn_down_exps.weight"


def tensor(sum2, counts):
    return TensorImportance(np.array(sum2, np.float32), np.array(counts, np.int64))


@pytest.fixture
def example():
    return Imatrix(
        {
            DENSE: tensor([[2, 4, 8, 0]], [4]),
            STACK: tensor([[1, 3], [0, 0], [10, 30]], [2, 0, 10]),
        },
        ("wiki.txt", "code é.txt"),
        chunk_count=3,
        chunk_tokens=256,
    )


def same(a, b):
    assert set(a.tensors) == set(b.tensors)
    for name, t in a.tensors.items():
        np.testing.assert_array_equal(t.sum2, b.tensors[name].sum2)
        np.testing.assert_array_equal(t.counts, b.tensors[name].counts)
    assert (a.datasets, a.chunk_count, a.chunk_tokens) == (b.datasets, b.chunk_count, b.chunk_tokens)


class TestValues:
    def test_weights_are_mean_squares(self, example):
        weights = example.weights(DENSE)
        assert weights.dtype == np.float32
        np.testing.assert_array_equal(weights, [[0.5, 1, 2, 0]])

    def test_an_expert_never_reached_counts_all_columns_alike(self, example):
        np.testing.assert_array_equal(example.weights(STACK, 3), [[0.5, 1.5], [1, 1], [1, 3]])

    def test_no_data_is_none(self, example):
        assert example.weights("blk.7.attn_q.weight") is None

    @pytest.mark.parametrize(("name", "n_mats"), [(STACK, 4), (DENSE, 3), (STACK, 1)])
    def test_another_number_of_matrices_is_another_model(self, example, name, n_mats):
        with pytest.raises(UsageError, match=f"{name}.* belongs to another model"):
            example.weights(name, n_mats)

    def test_reach(self, example):
        assert expert_reach(example) == [LayerReach(layer=1, n_expert=3, unreached=(1,))]

    def test_merge_adds(self, example):
        other = Imatrix({DENSE: tensor([[1, 1, 1, 1]], [6]), "blk.5.x": tensor([[1]], [1])}, ("b",), 2, 512)
        both = merge([example, other])
        np.testing.assert_array_equal(both.tensors[DENSE].sum2, [[3, 5, 9, 1]])
        assert both.tensors[DENSE].counts.tolist() == [10]
        assert set(both.tensors) == {DENSE, STACK, "blk.5.x"}
        assert (both.datasets, both.chunk_count) == (("wiki.txt", "code é.txt", "b"), 5)
        np.testing.assert_array_equal(example.tensors[DENSE].sum2, [[2, 4, 8, 0]])

    def test_merge_of_different_models(self, example):
        with pytest.raises(UsageError, match="different models"):
            merge([example, Imatrix({DENSE: tensor([[1, 1]], [6])})])


class TestGGUF:
    def test_round_trip(self, example, tmp_path):
        write_imatrix(tmp_path / "i.gguf", example)
        same(read_imatrix(tmp_path / "i.gguf"), example)

    def test_without_a_dataset(self, example, tmp_path):
        bare = Imatrix(example.tensors)
        write_imatrix(tmp_path / "i.gguf", bare)
        same(read_imatrix(tmp_path / "i.gguf"), bare)

    def test_layout_is_llama_cpps(self, example, tmp_path):
        """Keys, their types, tensor names and shapes, as llama.cpp's reader asks for them."""
        write_imatrix(tmp_path / "i.gguf", example)
        reader = gguf.GGUFReader(tmp_path / "i.gguf")
        assert reader.fields["general.type"].contents() == "imatrix"
        assert reader.fields["imatrix.datasets"].contents() == ["wiki.txt", "code é.txt"]
        for key, value in (("imatrix.chunk_count", 3), ("imatrix.chunk_size", 256)):
            assert reader.fields[key].types == [gguf.GGUFValueType.UINT32]
            assert reader.fields[key].contents() == value
        shapes = {t.name: (t.tensor_type, t.shape.tolist()) for t in reader.tensors}
        f32 = gguf.GGMLQuantizationType.F32
        assert shapes == {
            f"{DENSE}.in_sum2": (f32, [4, 1]),
            f"{DENSE}.counts": (f32, [1, 1]),
            f"{STACK}.in_sum2": (f32, [2, 3]),
            f"{STACK}.counts": (f32, [1, 3]),
        }

    def test_reads_what_gguf_py_writes(self, example, tmp_path):
        writer = gguf.GGUFWriter(tmp_path / "i.gguf", "")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", list(example.datasets))
        writer.add_uint32("imatrix.chunk_count", 3)
        writer.add_uint32("imatrix.chunk_size", 256)
        for name, t in example.tensors.items():
            writer.add_tensor(f"{name}.in_sum2", t.sum2)
            writer.add_tensor(f"{name}.counts", t.counts.astype(np.float32)[:, None])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        same(read_imatrix(tmp_path / "i.gguf"), example)

    def test_nothing_to_write(self, tmp_path):
        with pytest.raises(UsageError, match="no tensors"):
            write_imatrix(tmp_path / "i.gguf", Imatrix({}))
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_not_there(self, example, tmp_path):
        with pytest.raises(PintpotError, match="cannot be written"):
            write_imatrix(tmp_path / "no" / "i.gguf", example)


def write(path, tensors, **metadata):
    """Any GGUF file; tensors are name to float array of 32 or 16 bits."""
    declared = [
        TensorDecl(n, GGMLType.F32 if a.dtype == np.float32 else GGMLType.F16, a.shape[::-1])
        for n, a in tensors.items()
    ]
    keys = {"general.type": "imatrix"} | {k.replace("__", "."): v for k, v in metadata.items()}
    with GGUFWriter(path, {k: v for k, v in keys.items() if v is not None}, declared) as writer:
        for name, values in tensors.items():
            writer.write(name, values)
    return path


def f32(*values):
    return np.array(values, np.float32)


class TestDamagedGGUF:
    @pytest.mark.parametrize(
        ("tensors", "metadata", "message"),
        [
            ({"a.in_sum2": f32(1)}, {}, r"a\.counts is missing"),
            ({"a.counts": f32(1)}, {}, r"a\.in_sum2 is missing"),
            ({"a\nb.counts": f32(1)}, {}, r"a\\nb\.in_sum2' is missing"),
            ({"a.in_sum2": f32(1, 2, 3), "a.counts": f32(1, 1)}, {}, "multiple of its 2 counts"),
            ({"a.in_sum2": f32(1, np.nan), "a.counts": f32(1)}, {}, "NaN"),
            ({"a.in_sum2": f32(1, np.inf), "a.counts": f32(1)}, {}, "infinite"),
            ({"a.in_sum2": f32(1, -1), "a.counts": f32(1)}, {}, "negative"),
            ({"a.in_sum2": f32(1), "a.counts": f32(-1)}, {}, "negative"),
            ({"a.in_sum2": f32(1), "a.counts": f32(1e30)}, {}, "huge"),
            ({"a.in_sum2": np.array([1], np.float16), "a.counts": f32(1)}, {}, "type F16, expected F32"),
            ({"blk.0.attn_q.weight": f32(1)}, {}, "no importance matrix"),
            ({"a.in_sum2": f32(1), "a.counts": f32(1)}, {"general__type": "model"}, "no importance matrix"),
            ({"a.in_sum2": f32(1), "a.counts": f32(1)}, {"imatrix__datasets": "x"}, "no list of names"),
            ({"a.in_sum2": f32(1), "a.counts": f32(1)}, {"imatrix__chunk_count": "x"}, "no whole number"),
            (
                {"a.in_sum2": f32(1), "a.counts": f32(1)},
                {"imatrix__chunk_size": Typed(ValueType.INT32, -4)},
                "no whole number",
            ),
        ],
    )
    def test_is_refused_in_one_line(self, tmp_path, tensors, metadata, message):
        path = write(tmp_path / "bad.gguf", tensors, **metadata)
        with pytest.raises(ModelFileError, match=message) as error:
            read_imatrix(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    def test_every_cut_is_noticed(self, example, tmp_path):
        write_imatrix(tmp_path / "i.gguf", example)
        whole = (tmp_path / "i.gguf").read_bytes()
        cut = tmp_path / "cut.gguf"
        # The padding behind the last tensor may go.
        for size in range(0, len(whole) - 32, 7):
            cut.write_bytes(whole[:size])
            with pytest.raises(ModelFileError):
                read_imatrix(cut)

    @pytest.mark.parametrize("name", [".", "missing.gguf"])
    def test_no_file(self, tmp_path, name):
        with pytest.raises(ModelFileError, match="cannot be read"):
            read_imatrix(tmp_path / name)

    def test_older_files_lack_keys(self, tmp_path):
        tensors = {"a.in_sum2": f32(6), "a.counts": f32(3)}
        read = read_imatrix(write(tmp_path / "old.gguf", tensors, general__type=None))
        np.testing.assert_array_equal(read.weights("a"), [[2]])
        assert (read.datasets, read.chunk_count, read.chunk_tokens) == ((), 0, 512)


def dat(*entries, trailer=(3, b"wiki.txt")):
    """A `.dat` file; an entry is a name, ncall and values."""
    out = [struct.pack("<i", len(entries))]
    for name, n_calls, values in entries:
        out += [struct.pack("<i", len(name)), name, struct.pack("<ii", n_calls, len(values))]
        out.append(np.array(values, "<f4").tobytes())
    if trailer:
        out.append(struct.pack("<ii", trailer[0], len(trailer[1])) + trailer[1])
    return b"".join(out)


class TestLegacy:
    def read(self, tmp_path, raw, **options):
        (tmp_path / "i.dat").write_bytes(raw)
        return read_imatrix(tmp_path / "i.dat", **options)

    def test_means_are_those_of_the_file(self, tmp_path):
        """Values are mean squares times the number of calls."""
        read = self.read(
            tmp_path, dat((DENSE.encode(), 4, [2, 4, 8, 0]), (STACK.encode(), 2, [2, 4, 2, 2, 6, 2]))
        )
        np.testing.assert_array_equal(read.weights(DENSE, 1), [[0.5, 1, 2, 0]])
        np.testing.assert_array_equal(read.weights(STACK, 3), [[1, 2], [1, 1], [3, 1]])
        assert (read.datasets, read.chunk_count) == (("wiki.txt",), 3)

    def test_without_a_trailer(self, tmp_path):
        read = self.read(tmp_path, dat((b"a", 4, [2.0]), (b"b", 6, [2.0]), trailer=None))
        assert (read.datasets, read.chunk_count) == ((), 6)

    def test_no_calls_count_as_one(self, tmp_path):
        np.testing.assert_array_equal(self.read(tmp_path, dat((b"a", 0, [2, 4]))).weights("a"), [[2, 4]])

    def test_merges_with_the_other_format(self, example, tmp_path):
        """A stack lies in one row in a `.dat` file; a chunk is `legacy_chunk_tokens` tokens."""
        read = self.read(tmp_path, dat((STACK.encode(), 1, [1, 2, 3, 4, 5, 6])), legacy_chunk_tokens=10)
        for parts in ([example, read], [read, example]):
            both = merge(parts).tensors[STACK]
            assert both.counts.tolist() == [12, 10, 20]
            np.testing.assert_allclose(both.sum2, [[11, 23], [30, 40], [60, 90]])

    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (b"", "cut off"),
            (b"plain text that is no importance matrix", "neither GGUF nor"),
            (struct.pack("<i", 0) * 8, "neither GGUF nor"),
            (struct.pack("<i", -1) * 8, "neither GGUF nor"),
            (struct.pack("<ii", 1, -1) + bytes(64), "name is -1 bytes"),
            (struct.pack("<ii", 1, 2**31 - 1) + bytes(64), "name is 2147483647 bytes"),
            (struct.pack("<ii", 1, 60_000) + bytes(64), "cut off"),
            (dat((b"a", -1, [1.0])), "count -1"),
            (dat((b"a", 1, [])) + bytes(8), "0 values"),
            (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 2**31 - 1) + bytes(8), "cut off"),
            (dat((b"a", 1, [1.0]), (b"a", 1, [1.0])), "there twice"),
            (dat((b"", 1, [1.0])) + bytes(8), "is empty"),
            (dat((b"a", 1, [np.nan])), "NaN"),
            (dat((b"a", 1, [-1.0])), "negative"),
            (dat((b"a", 1, [3e38])), "huge"),
            (dat((b"a", 1, [1.0]))[:-3], "cut off"),
        ],
    )
    def test_damage_is_refused_in_one_line(self, tmp_path, raw, message):
        with pytest.raises(ModelFileError, match=message) as error:
            self.read(tmp_path, raw)
        assert "\n" not in str(error.value)
