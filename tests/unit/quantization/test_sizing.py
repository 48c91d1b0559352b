"""Quantizing to a size: what is measured, what fits, and what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_models import write_matrices, write_toy

import pintpot
from pintpot.errors import UsageError
from pintpot.gguf import GGMLType, GGUFFile
from pintpot.kernels.quantize import Quantizer
from pintpot.quantization.importance import Imatrix, TensorImportance, write_imatrix
from pintpot.quantization.run import prepare
from pintpot.quantization.sizing import (
    CANDIDATES,
    SENSITIVITY,
    measure_costs,
    relative_error,
    sensitivity,
    size_label,
)
from pintpot.quants.choice import Why
from pintpot.quants.recipes import Role
from pintpot.quants.reference import dequantize


@pytest.fixture
def quantizer() -> Quantizer:
    return Quantizer(1)


def matrices_file(tmp_path: Path, **values: np.ndarray) -> GGUFFile:
    named = {f"blk.0.{name}.weight": v for name, v in values.items()}
    return GGUFFile.open(write_matrices(tmp_path / "m.gguf", named))


def test_relative_error_is_what_the_written_blocks_lose(tmp_path: Path, quantizer: Quantizer) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(48, 512)).astype(np.float32)
    file = matrices_file(tmp_path, ffn_up=weights)
    tensor = file.tensors["blk.0.ffn_up.weight"]
    error = relative_error(file, tensor, quantizer, GGMLType.Q4_K)
    pintpot.quantize(file.path, tmp_path / "q.gguf", "Q4_K", pure=True)
    written = GGUFFile.open(tmp_path / "q.gguf")
    blocks = dequantize(GGMLType.Q4_K, written.data("blk.0.ffn_up.weight"), (48, 512))
    expected = np.sum((blocks.astype(np.float64) - weights) ** 2) / np.sum(weights.astype(np.float64) ** 2)
    assert error == pytest.approx(expected, rel=1e-4)


def test_experts_count_by_how_often_they_are_chosen(tmp_path: Path, quantizer: Quantizer) -> None:
    """One expert's weights cost nothing: the more it is used, the less the stack loses."""
    rng = np.random.default_rng(1)
    easy = np.where(rng.random((16, 256)) < 0.5, -1.0, 1.0)
    stack = np.stack([easy, rng.normal(size=(16, 256))]).astype(np.float32)
    file = matrices_file(tmp_path, ffn_down_exps=stack)
    tensor = file.tensors["blk.0.ffn_down_exps.weight"]

    def error(counts: list[int]) -> float:
        sums = np.ones((2, 256), np.float32) * np.array(counts, np.float32)[:, None]
        importance = TensorImportance(sums, np.array(counts, np.int64))
        return relative_error(file, tensor, quantizer, GGMLType.Q3_K, Imatrix({tensor.name: importance}))

    assert error([1000, 10]) < error([500, 500]) / 4 < error([10, 1000]) / 4


def test_options_grow_in_bytes_and_lose_less(tmp_path: Path, quantizer: Quantizer) -> None:
    file = GGUFFile.open(write_toy(tmp_path / "toy-f16.gguf", "qwen35moe"))
    plan = prepare(file.path, None, "Q4_K_M")
    tensors = [t.source for t in plan.tensors if t.changes]
    seen: list[tuple[int, int]] = []
    costs = measure_costs(file, tensors, quantizer, progress=lambda done, total: seen.append((done, total)))
    assert [c.name for c in costs] == [t.name for t in tensors]
    assert seen[-1][0] == seen[-1][1] == sum(t.nbytes for t in tensors)
    for cost, tensor in zip(costs, tensors, strict=True):
        if tensor.ne[0] % 256 == 0:
            assert {o.kind for o in cost.options} == set(CANDIDATES)
        worst, best = cost.options[0], cost.options[-1]
        assert best.nbytes > worst.nbytes
        assert best.cost < worst.cost


def test_the_file_fits_and_says_what_it_is(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy-f16.gguf", "qwen35moe")
    smallest, largest = (prepare(source, None, quant).nbytes for quant in ("Q4_0", "Q8_0"))
    target = (smallest + largest) // 2
    result = pintpot.quantize(source, tmp_path / "out.gguf", target_bytes=target)
    assert result.nbytes == (tmp_path / "out.gguf").stat().st_size
    assert 0.97 * target < result.nbytes <= target
    assert len([k for k in result.bytes_by_type if k not in ("F32", "F16")]) > 1
    written = GGUFFile.open(tmp_path / "out.gguf")
    kinds = {t.type_name for t in written.tensors.values()}
    assert written.metadata["general.file_type"] not in (0, 1)
    assert kinds <= {k.name for k in GGMLType}


def test_flags_and_kept_tensors_are_constraints(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy-f16.gguf", "llama")
    flags = {"tensor_types": ["attn_q=F16"], "leave_output_tensor": True}
    target = prepare(source, None, "Q5_0", **flags).nbytes
    plan = prepare(source, None, target_bytes=target, **flags)
    assert plan.nbytes <= target
    for tensor in plan.tensors:
        if "attn_q" in tensor.name:
            assert (tensor.decl.ggml_type, tensor.why) == (GGMLType.F16, Why.FLAG)
        if "norm" in tensor.name or tensor.name == "output.weight":
            assert tensor.why is Why.KEPT
    assert any(t.why in (Why.BUDGET, Why.FALLBACK) for t in plan.tensors)


def test_importance_moves_the_choice(tmp_path: Path) -> None:
    """Of two equal matrices the one whose excited columns are easy to quantize gets fewer bits."""
    rng = np.random.default_rng(2)
    easy, hard = np.where(rng.random((64, 256)) < 0.5, -1.0, 1.0), rng.normal(size=(64, 256))
    matrix = np.concatenate([easy, hard], axis=1).astype(np.float16)
    q, k = "blk.0.attn_q.weight", "blk.0.attn_k.weight"
    source = write_matrices(tmp_path / "m-f16.gguf", {q: matrix, k: matrix})
    first_half = np.where(np.arange(512) < 256, 1.0, 1e-3).astype(np.float32)[None]
    counts = np.array([1], np.int64)
    importance = Imatrix(
        {k: TensorImportance(first_half, counts), q: TensorImportance(first_half[:, ::-1].copy(), counts)}
    )
    write_imatrix(tmp_path / "im.gguf", importance)
    target = prepare(source, None, "Q4_K", pure=True).nbytes
    plan = prepare(source, None, target_bytes=target, imatrix=tmp_path / "im.gguf")
    size = {t.name: t.decl.nbytes for t in plan.tensors}
    assert size[k] < size[q]


def test_an_expert_never_reached_counts_little(tmp_path: Path, quantizer: Quantizer) -> None:
    """However small activations are: its importance is taken from the others, not one."""
    rng = np.random.default_rng(3)
    easy = np.where(rng.random((16, 256)) < 0.5, -1.0, 1.0)
    stack = np.stack([easy, easy, rng.normal(size=(16, 256))]).astype(np.float32)
    file = matrices_file(tmp_path, ffn_down_exps=stack)
    tensor = file.tensors["blk.0.ffn_down_exps.weight"]

    def error(scale: float) -> float:
        counts = np.array([500, 500, 0], np.int64)
        sums = np.full((3, 256), scale, np.float32) * counts[:, None].astype(np.float32)
        imatrix = Imatrix({tensor.name: TensorImportance(sums, counts)})
        return relative_error(file, tensor, quantizer, GGMLType.Q3_K, imatrix)

    assert error(1e-6) == pytest.approx(error(1.0), rel=1e-3)


def test_all_matrices_of_four_dimensions_count(tmp_path: Path, quantizer: Quantizer) -> None:
    rng = np.random.default_rng(4)
    easy = np.where(rng.random((1, 2, 16, 256)) < 0.5, -1.0, 1.0)
    stack = np.concatenate([easy, rng.normal(size=easy.shape)]).astype(np.float32)
    file = matrices_file(tmp_path, x=stack)
    assert relative_error(file, file.tensors["blk.0.x.weight"], quantizer, GGMLType.Q3_K) > 0.005


def test_a_flag_that_falls_back_is_obeyed_within_the_size(tmp_path: Path) -> None:
    """Rows of 288 are no whole blocks of Q6_K: the flag's stand-in, not the budget's choice."""
    rng = np.random.default_rng(5)
    values = {
        f"blk.0.{n}.weight": rng.normal(size=(64, 288)).astype(np.float16) for n in ("attn_q", "attn_k")
    }
    source = write_matrices(tmp_path / "m-f16.gguf", values)
    flags = {"tensor_types": ["attn_q=Q6_K"]}
    target = prepare(source, None, "Q5_0", **flags).nbytes
    plan = prepare(source, None, target_bytes=target, **flags)
    assert plan.nbytes <= target
    assert {t.name: t.decl.ggml_type for t in plan.tensors}["blk.0.attn_q.weight"] == GGMLType.Q8_0


def test_a_tied_output_follows_its_flag(tmp_path: Path) -> None:
    embedding = np.random.default_rng(6).normal(size=(64, 288)).astype(np.float16)
    values = {"token_embd.weight": embedding, "blk.0.attn_q.weight": embedding}
    source = write_matrices(tmp_path / "m-f16.gguf", values)
    plan = prepare(source, None, target_bytes=1 << 20, output_tensor_type="Q4_K")
    kinds = {t.name: t.decl.ggml_type for t in plan.tensors}
    assert kinds == {"token_embd.weight": GGMLType.Q5_0, "blk.0.attn_q.weight": GGMLType.Q8_0}


def test_what_is_quantized_already_may_stay(tmp_path: Path) -> None:
    """More bits make nothing of it more exact."""
    matrix = np.random.default_rng(8).normal(size=(64, 512)).astype(np.float16)
    source = write_matrices(tmp_path / "m-f16.gguf", {"blk.0.attn_q.weight": matrix})
    pintpot.quantize(source, tmp_path / "small.gguf", "Q4_0")
    plan = prepare(tmp_path / "small.gguf", None, target_bytes=1 << 30, allow_requantize=True)
    assert [t.changes for t in plan.tensors] == [False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_do_not_spoil_the_choice(
    bad: float, tmp_path: Path, quantizer: Quantizer
) -> None:
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(48, 512)).astype(np.float32)
    fine = matrices_file(tmp_path, ffn_up=np.where(weights == weights[3, 5], 0, weights))
    tensor = fine.tensors["blk.0.ffn_up.weight"]
    expected = relative_error(fine, tensor, quantizer, GGMLType.Q4_K)
    weights[3, 5] = bad
    file = matrices_file(tmp_path, ffn_up=weights)
    assert relative_error(file, tensor, quantizer, GGMLType.Q4_K) == pytest.approx(expected)


def test_embeddings_by_what_they_do() -> None:
    head, lookup = SENSITIVITY[Role.HEAD], SENSITIVITY[Role.TOKEN_EMBD]
    assert sensitivity("output.weight", 40, tied=False) == head
    assert sensitivity("token_embd.weight", 40, tied=False) == lookup
    assert sensitivity("token_embd.weight", 40, tied=True) == head + lookup
    assert sensitivity("per_layer_token_embd.weight", 40, tied=True) == lookup
    assert sensitivity("blk.3.ffn_down.weight", 40, tied=True) == SENSITIVITY[Role.FFN_DOWN] / 40


def test_an_importance_matrix_of_another_model(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy-f16.gguf", "llama")
    name = "blk.1.ffn_up.weight"
    other = TensorImportance(np.ones((1, 96), np.float32), np.array([1], np.int64))
    write_imatrix(tmp_path / "im.gguf", Imatrix({name: other}))
    for kind in ({"quant": "Q4_K_M"}, {"target_bytes": 1 << 30}):
        with pytest.raises(UsageError, match=rf"{name} has 1 x 96 columns .* belongs to another model"):
            prepare(source, None, imatrix=tmp_path / "im.gguf", **kind)


def test_what_cannot_be(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "toy-f16.gguf", "llama")
    with pytest.raises(UsageError, match=r"--target-size is 1,000 bytes and the least .* allow \d+KiB"):
        prepare(source, None, target_bytes=1000)
    with pytest.raises(UsageError, match="one of the two"):
        prepare(source, None)
    with pytest.raises(UsageError, match="one of the two"):
        prepare(source, None, "Q4_K_M", target_bytes=1 << 30)


@pytest.mark.parametrize(
    ("nbytes", "label"),
    [(12 << 30, "12GiB"), (3 << 29, "1.5GiB"), (7 << 20, "7MiB"), (7_500_000, "7.153MiB")],
)
def test_size_label(nbytes: int, label: str) -> None:
    assert size_label(nbytes) == label
