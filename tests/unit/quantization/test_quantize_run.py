"""Quantizing whole files: what is written, what is refused, and what a failure leaves behind."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from small_models import split, write_matrices, write_toy

import pintpot
from pintpot.errors import ModelFileError, PintpotError, UsageError
from pintpot.gguf import TYPES, GGMLType, GGUFFile, GGUFWriter
from pintpot.kernels.api import TensorView
from pintpot.kernels.quantize import Quantizer
from pintpot.quantization import run as run_module
from pintpot.quantization.importance import Imatrix, TensorImportance, write_imatrix
from pintpot.quantization.run import prepare, quantize
from pintpot.quants.recipes import RECIPES
from pintpot.quants.reference import dequantize
from pintpot.spec import measure

WITHOUT_IMPORTANCE = [name for name in RECIPES if name != "Q2_K_S"]


def values_of(path: Path, name: str) -> np.ndarray:
    file = GGUFFile.open(path)
    info = file.tensors[name]
    return dequantize(info.ggml_type, file.data(name)).reshape(info.shape)


@pytest.mark.parametrize(
    ("name", "quant"),
    [("llama", quant) for quant in WITHOUT_IMPORTANCE]
    + [(name, quant) for name in ("qwen35moe", "gemma4-e") for quant in ("Q4_K_M", "MXFP4_MOE", "F32")],
)
def test_every_type_is_written_as_planned(name: str, quant: str, tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy-f16.gguf", name)
    plan = prepare(source, None, quant)
    seen: list[tuple[int, int]] = []
    result = pintpot.quantize(source, None, quant, progress=lambda done, total: seen.append((done, total)))
    (path,) = result.paths
    assert path == tmp_path / f"toy-{quant}.gguf"
    assert path.stat().st_size == plan.nbytes == result.nbytes
    assert seen[-1][0] == seen[-1][1] == sum(t.source.nbytes for t in plan.tensors)
    before, after = GGUFFile.open(source), GGUFFile.open(path)
    assert list(after.tensors) == list(before.tensors)
    assert {n: t.ggml_type for n, t in after.tensors.items()} == {
        t.name: t.decl.ggml_type for t in plan.tensors
    }
    assert after.metadata["general.quantization_version"] == 2
    assert after.metadata["general.file_type"] == (RECIPES[quant].file_type if quant != "COPY" else 1)
    changed = {"general.file_type", "general.quantization_version"}
    for key in set(before.metadata) - changed:
        assert after.metadata.raw(key) == before.metadata.raw(key)
    for tensor in before.tensors.values():
        kind = TYPES[after.tensors[tensor.name].ggml_type]
        if kind.id == tensor.ggml_type:
            assert np.array_equal(after.data(tensor.name), before.data(tensor.name))
            continue
        x, y = values_of(source, tensor.name), values_of(path, tensor.name)
        error = np.linalg.norm(x - y) / np.linalg.norm(x)
        assert error <= 2.5 * 2.0**-kind.bits_per_weight + 3e-3, tensor.name


def test_bytes_do_not_depend_on_chunks_or_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_toy(tmp_path / "toy.gguf", "qwen3moe")
    outputs = []
    for i, (values, threads) in enumerate([(1 << 22, 1), (1000, 3), (1 << 14, 2)]):
        monkeypatch.setattr(run_module, "_CHUNK_VALUES", values)
        monkeypatch.setattr(run_module, "_COPY_BYTES", values)
        (path,) = quantize(source, tmp_path / f"{i}.gguf", "Q4_K_M", threads=threads).paths
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


def test_importance_reaches_the_kernels_matrix_by_matrix(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    name = "blk.0.ffn_up_exps.weight"
    weights = rng.normal(size=(3, 8, 256)).astype(np.float32)
    source = write_matrices(tmp_path / "a.gguf", {name: weights, "blk.0.attn_q.weight": weights[0]})
    squares = rng.uniform(0.1, 100, (3, 256)).astype(np.float32)
    imatrix = Imatrix({name: TensorImportance(squares * 4, np.full(3, 4))}, ("text",), 7)
    write_imatrix(tmp_path / "imatrix.gguf", imatrix)
    result = quantize(source, tmp_path / "b.gguf", "Q4_K", imatrix=tmp_path / "imatrix.gguf", pure=True)
    assert result.unweighted == ("blk.0.attn_q.weight",)
    written = GGUFFile.open(tmp_path / "b.gguf")
    raw = weights.view(np.uint8).reshape(-1)
    view = TensorView("x", GGMLType.F32, raw, 3, 8, 256, 1024, 8192)
    expected = np.empty((24, 144), np.uint8)
    for mat in range(3):
        Quantizer(1).quantize(view, mat, 0, GGMLType.Q4_K, expected[8 * mat :][:8], squares[mat])
    assert np.array_equal(written.data(name), expected.reshape(-1))
    found = {k: written.metadata[k] for k in written.metadata if k.startswith("quantize.")}
    assert found == {
        "quantize.imatrix.file": str(tmp_path / "imatrix.gguf"),
        "quantize.imatrix.dataset": "text",
        "quantize.imatrix.entries_count": 1,
        "quantize.imatrix.chunks_count": 7,
    }


def test_an_importance_matrix_of_another_model_is_refused(tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    source = write_matrices(tmp_path / "a.gguf", {name: np.ones((8, 256), np.float32)})
    other = Imatrix({name: TensorImportance(np.ones((1, 128), np.float32), np.ones(1, np.int64))})
    write_imatrix(tmp_path / "imatrix.gguf", other)
    with pytest.raises(UsageError, match=r"attn_q.weight has 1 x 128 columns there and 1 x 256 in the model"):
        quantize(source, tmp_path / "b.gguf", "Q4_K", imatrix=tmp_path / "imatrix.gguf")
    assert not (tmp_path / "b.gguf").exists()


def test_a_split_model_becomes_one_file_or_keeps_its_split(tmp_path: Path) -> None:
    whole = write_toy(tmp_path / "toy.gguf", "qwen3")
    first = split(whole, 3)
    (one,) = quantize(first, None, "Q6_K").paths
    assert one == tmp_path / "toy-Q6_K.gguf"
    (direct,) = quantize(whole, tmp_path / "direct.gguf", "Q6_K").paths
    assert one.read_bytes() == direct.read_bytes()
    result = quantize(first, None, "Q6_K", keep_split=True)
    assert [p.name for p in result.paths] == [f"toy-Q6_K-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert sum(p.stat().st_size for p in result.paths) == result.nbytes
    parts, single = GGUFFile.open(result.paths[2]), GGUFFile.open(one)
    assert list(parts.tensors) == list(single.tensors)
    assert all(np.array_equal(parts.data(n), single.data(n)) for n in single.tensors)
    source = GGUFFile.open(first)
    assert {n: t.part for n, t in parts.tensors.items()} == {n: t.part for n, t in source.tensors.items()}


def test_flags_choose_types(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy.gguf")
    plan = prepare(
        source, None, "Q4_K_M", tensor_types=[r"blk\.[01]\.attn_q=q8_0"], output_tensor_type="f32",
        token_embedding_type="q5_k",
    )  # fmt: skip
    kinds = {t.name: GGMLType(t.decl.ggml_type).name for t in plan.tensors}
    assert kinds["output.weight"] == "F32"
    assert kinds["token_embd.weight"] == "Q5_K"
    assert (kinds["blk.1.attn_q.weight"], kinds["blk.2.attn_q.weight"]) == ("Q8_0", "Q4_K")
    assert prepare(source, None, "Q4_K_M", leave_output_tensor=True).tensors[-1].changes is False


def test_quantizing_twice_needs_leave(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy-Q8_0.gguf", quant="Q8_0")
    with pytest.raises(UsageError, match=r"is quantized already \(Q8_0\).*--allow-requantize"):
        quantize(source, None, "Q4_K_M")
    (path,) = quantize(source, None, "Q4_K_M", allow_requantize=True).paths
    assert GGUFFile.open(path).tensors["blk.0.attn_k.weight"].type_name == "Q4_K"
    copied = quantize(source, tmp_path / "copy.gguf", "COPY")
    assert copied.bytes_by_type == measure(GGUFFile.open(source)).bytes_by_type


def test_q2_k_s_needs_importance(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy.gguf")
    with pytest.raises(UsageError, match=r"Q2_K_S has no use without importance data.*--imatrix"):
        quantize(source, None, "Q2_K_S")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["blk.0.ffn_up_exps.weight", "blk.0.attn_norm.weight"])
def test_weights_that_are_not_finite_stop_or_become_zeros(name: str, bad: float, tmp_path: Path) -> None:
    shape = (3, 8, 256) if "exps" in name else (256,)
    values = np.random.default_rng(1).normal(size=shape).astype(np.float16)
    values = values if "exps" in name else values.astype(np.float32)
    values.reshape(-1)[-300 if "exps" in name else 7] = bad
    source = write_matrices(tmp_path / "a.gguf", {name: values})
    where = "row 6 of matrix 2" if "exps" in name else "row 0"
    with pytest.raises(
        ModelFileError, match=f"tensor {re.escape(name)}: {where} holds NaN or inf.*--allow-nan"
    ):
        quantize(source, tmp_path / "b.gguf", "Q8_0")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf"]
    result = quantize(source, tmp_path / "b.gguf", "Q8_0", allow_nan=True)
    got = values_of(tmp_path / "b.gguf", name)
    if "exps" in name:
        assert result.n_replaced == 1
        assert got.reshape(-1)[-300] == 0
        assert np.abs(got - np.where(np.isfinite(values), values, 0)).max() < 0.02
    else:  # what is not quantized is copied as it is
        assert np.array_equal(got, values, equal_nan=True)


def test_names_that_exist_are_safe(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy-Q8_0.gguf")
    before = source.read_bytes()
    for out in (None, source):
        with pytest.raises(UsageError, match="is the file to be quantized"):
            quantize(source, out, "Q8_0", force=True)
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists already; choose another name or give --force"):
        quantize(source, out, "Q8_0")
    assert (out.read_bytes(), source.read_bytes()) == (b"old", before)
    quantize(source, out, "Q8_0", force=True)
    assert GGUFFile.open(out).metadata["general.file_type"] == 7


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_toy(tmp_path / "toy.gguf")
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    put, calls = GGUFWriter._put, []

    def fail(self: GGUFWriter, data: bytes) -> None:
        calls.append(1)
        if len(calls) == 20:
            if isinstance(error, OSError):
                raise PintpotError(f"{self.path}: cannot be written: {error.strerror}")
            raise error
        put(self, data)

    monkeypatch.setattr(GGUFWriter, "_put", fail)
    with pytest.raises((PintpotError, KeyboardInterrupt)):
        quantize(source, out, "Q4_K_M", force=True)
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gguf", "toy.gguf"]


def test_no_room_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_toy(tmp_path / "toy.gguf")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(PintpotError, match=r"needs \d\.\d MB and the disk has 0\.0 MB free: make room"):
        quantize(source, None, "Q4_K_M")
    assert [p.name for p in tmp_path.iterdir()] == ["toy.gguf"]


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy.gguf")
    names = ("dead", "running", "young")
    left = {name: tmp_path / f".pintpot-{name}.part" for name in names}
    for name, path in left.items():
        path.write_bytes(b"x" * 100)
        if name != "young":
            os.utime(path, (time.time() - 3600,) * 2)
    with left["running"].open("rb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        result = quantize(source, None, "Q8_0")
    assert result.removed == ((left["dead"], 100),)
    assert [name for name in names if left[name].exists()] == ["running", "young"]


def test_a_cut_source_is_refused(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy.gguf")
    os.truncate(source, source.stat().st_size - 1000)
    with pytest.raises(ModelFileError, match="the file is incomplete"):
        quantize(source, None, "Q8_0")
    assert [p.name for p in tmp_path.iterdir()] == ["toy.gguf"]


def test_no_folder_no_threads(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy.gguf")
    with pytest.raises(PintpotError, match="nowhere: no such folder"):
        quantize(source, tmp_path / "nowhere" / "x.gguf", "Q8_0")
    with pytest.raises(UsageError, match="threads is 0"):
        quantize(source, None, "Q8_0", threads=0)
