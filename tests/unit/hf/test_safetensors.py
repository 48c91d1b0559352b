"""Files that are no safetensors, or lie: one line each, nothing read outside the file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hf_folders import entry, llama_tensors, pack, safetensors, write_folder

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.hf.checkpoint import Checkpoint
from pintpot.hf.safetensors import SafetensorsFile

WHOLE = safetensors({"a": ("F32", np.arange(6.0).reshape(2, 3)), "b": ("BF16", np.array([0x3F80, 0x7FC1]))})
NAN_NAME = '{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'

DAMAGED = {
    "is empty": (b"", "too few"),
    "has no header": (WHOLE[:4], "too few"),
    "header cut": (WHOLE[:40], "header has"),
    "data cut": (WHOLE[:-1], "describes 28"),
    "data too long": (WHOLE + b"\0", "describes 28"),
    "huge header": (b"\xff" * 8 + b"{}", "header has"),
    "not JSON": (pack(b"{]"), "no JSON"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "no JSON"),
    "deep JSON": (pack(b"[" * 100_000), "no JSON"),
    "list": (pack([1, 2]), "no JSON object"),
    "name twice": (pack((NAN_NAME + "," + NAN_NAME[1:] + "}").encode(), b"\0"), "no JSON"),
    "overlap": (pack({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, bytes(6)), "overlaps"),
    "same place": (pack({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 0, 4)}, bytes(4)), "overlaps"),
    "hole": (pack({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 4, 6)}, bytes(6)), "hole"),
    "outside": (pack({"a": entry("U8", [9], 0, 9)}, bytes(4)), "describes 9"),
    "size and shape": (pack({"a": entry("F32", [2], 0, 4)}, bytes(4)), r"4 bytes of data.* needs 8"),
    "backwards": (pack({"a": entry("U8", [2], 2, 0)}, bytes(2)), "needs 2"),
    "negative size": (pack({"a": entry("U8", [-2], 0, 2)}, bytes(2)), "impossible shape"),
    "shape no list": (pack({"a": entry("U8", "2", 0, 2)}, bytes(2)), "impossible shape"),  # type: ignore[arg-type]
    "too many dimensions": (pack({"a": entry("U8", [1] * 9, 0, 1)}, bytes(1)), "impossible shape"),
    "no offsets": (pack({"a": {"dtype": "U8", "shape": [1]}}, bytes(1)), "data_offsets"),
    "no object": (pack({"a": 3}), "no JSON object"),
    "no name": (pack({"": entry("U8", [1], 0, 1)}, bytes(1)), "name"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage(name, tmp_path):
    raw, message = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(ModelFileError, match=f"model.safetensors: .*{message}"):
        SafetensorsFile(path)


def test_every_truncation_is_an_error(tmp_path):
    path = tmp_path / "model.safetensors"
    for size in range(len(WHOLE)):
        path.write_bytes(WHOLE[:size])
        with pytest.raises(ModelFileError):
            SafetensorsFile(path)


def test_unknown_dtype(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack({"a": entry("F4_E9", [2], 0, 1)}, bytes(1)))
    with pytest.raises(UnsupportedError, match="tensor a has the unknown dtype 'F4_E9'"):
        SafetensorsFile(path)


def test_values_are_views_of_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE)
    file = SafetensorsFile(path)
    np.testing.assert_array_equal(file.tensors["a"].array(), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(file.tensors["b"].array(), np.array([0x3F80, 0x7FC1], np.uint16))
    assert not file.tensors["a"].array().flags.writeable
    file.release()
    np.testing.assert_array_equal(file.tensors["a"].array()[1], [3, 4, 5])


def split(folder, weight_map=None, names=("model-00001-of-00002", "model-00002-of-00002")):
    """The tiny Llama in two shards."""
    tensors = llama_tensors()
    write_folder(folder, tensors)
    (folder / "model.safetensors").unlink()
    halves = list(tensors.items())[:9], list(tensors.items())[9:]
    placed = {}
    for name, half in zip(names, halves, strict=True):
        (folder / f"{name}.safetensors").write_bytes(safetensors(dict(half)))
        placed |= {tensor: f"{name}.safetensors" for tensor, _ in half}
    index = {"weight_map": placed | (weight_map or {})}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards(tmp_path):
    assert set(Checkpoint(split(tmp_path)).tensors) == set(llama_tensors())


def test_shards_without_an_index(tmp_path):
    (split(tmp_path) / "model.safetensors.index.json").unlink()
    assert set(Checkpoint(tmp_path).tensors) == set(llama_tensors())
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model-00001-of-00002\.safetensors: is missing"):
        Checkpoint(tmp_path)


def test_missing_shard(tmp_path):
    (split(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model-00002-of-00002\.safetensors: is missing"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"model.extra.weight": "model-00001-of-00002.safetensors"}, "model.extra.weight is missing"),
        ({"model.norm.weight": "model-00002-of-00002.safetensors"}, "model.norm.weight is not where"),
        ({"model.norm.weight": "../model.safetensors"}, r"no .safetensors file"),
        ({"model.norm.weight": "/etc/passwd"}, r"no .safetensors file"),
        ({"model.norm.weight": 3}, r"no .safetensors file"),
    ],
)
def test_index_that_lies(tmp_path, weight_map, message):
    with pytest.raises(ModelFileError, match=message):
        Checkpoint(split(tmp_path, weight_map))


def test_only_other_weights(tmp_path):
    (write_folder(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelFileError, match=r"neither model.safetensors nor .* only safetensors"):
        Checkpoint(tmp_path)
