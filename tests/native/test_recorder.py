"""What weights are multiplied with, as the native module records it, against NumPy.

The inputs of a product are the float activations themselves: their sums of squares agree with NumPy's to
the order of additions (1e-12). What another product made first carries its error, 1e-5 of the largest sum for
float weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ffn_reference import activate
from gguf import GGMLQuantizationType as T

from pintpot import _native
from pintpot.kernels.api import Activation, FFNWeights, Gating, InputSums, MoEWeights, TensorView
from pintpot.kernels.cpu import CpuOps

EXACT = 1e-12
AFTER_A_PRODUCT = 1e-5


def weight(rng: np.random.Generator, name: str, *shape: int, kind: T = T.F32) -> TensorView:
    """Random weights [rows, cols] or [n_mats, rows, cols], F32, F16 or valid blocks of Q8_0."""
    n_mats, rows, cols = shape if len(shape) == 3 else (1, *shape)
    if kind == T.Q8_0:
        blocks = rng.integers(-127, 128, (n_mats * rows, cols // 32, 34), dtype=np.int8).view(np.uint8)
        scales = np.full(blocks.shape[:2], 1e-3, np.float16)
        blocks[..., :2] = scales[..., None].view(np.uint8)
        data = blocks.reshape(-1)
    else:
        dtype = np.float32 if kind == T.F32 else np.float16
        data = (rng.standard_normal((n_mats, rows, cols)) / 8).astype(dtype).reshape(-1).view(np.uint8)
    row_bytes = data.size // (n_mats * rows)
    return TensorView(name, int(kind), data, n_mats, rows, cols, row_bytes, rows * row_bytes)


def floats(view: TensorView) -> np.ndarray:
    return view.data.view(np.float32).reshape(view.n_mats, view.rows, view.cols).astype(np.float64)


def inputs(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    return rng.standard_normal((n, width)).astype(np.float32)


def squares(x: np.ndarray) -> np.ndarray:
    return np.square(x.astype(np.float64)).sum(0)


def check(sums: InputSums, rows: Any, want: np.ndarray, tolerance: float = EXACT) -> None:
    np.testing.assert_array_equal(sums.rows, rows)
    atol = tolerance * want.max() if tolerance == AFTER_A_PRODUCT else 0
    np.testing.assert_allclose(sums.squares, want.reshape(sums.squares.shape), rtol=tolerance, atol=atol)


def ffn_weights(rng: np.random.Generator, p: str, n_embd: int, n_ff: int, *n_mats: int) -> FFNWeights:
    return FFNWeights(
        weight(rng, f"{p}gate", *n_mats, n_ff, n_embd),
        weight(rng, f"{p}up", *n_mats, n_ff, n_embd),
        weight(rng, f"{p}down", *n_mats, n_embd, n_ff),
    )


def moe_weights(rng: np.random.Generator, n_expert: int, n_used: int, n_embd: int, n_ff: int) -> MoEWeights:
    experts = ffn_weights(rng, "exps.", n_embd, n_ff, n_expert)
    return MoEWeights(
        n_expert=n_expert,
        n_expert_used=n_used,
        gating=Gating.SOFTMAX,
        normalize=True,
        router=weight(rng, "router", n_expert, n_embd),
        gate=experts.gate,
        up=experts.up,
        down=experts.down,
        shared=ffn_weights(rng, "shexp.", n_embd, n_ff // 2),
        shared_gate=inputs(rng, 1, n_embd)[0],
    )


@pytest.mark.parametrize("kind", [T.F32, T.F16, T.Q8_0])
@pytest.mark.parametrize("n", [1, 7, 300])
def test_products_add_up(isa: _native.Isa, kind: T, n: int) -> None:
    """Whatever the weights' type, what counts are the activations before they are rounded for the product."""
    rng = np.random.default_rng(n)
    ops = CpuOps(3)
    matrix = ops.matrix(weight(rng, "w", 24, 288, kind=kind))
    first, second = inputs(rng, n, 288), inputs(rng, 5, 288)
    ops.linear(first, matrix)  # not yet
    ops.start_recording()
    ops.linear(first, matrix)
    ops.linear(second, matrix)
    check(ops.recorded()["w"], [n + 5], squares(first) + squares(second))


def test_starting_again_forgets_and_stopping_ends() -> None:
    rng = np.random.default_rng(0)
    ops = CpuOps(1)
    matrix = ops.matrix(weight(rng, "w", 8, 32))
    x = inputs(rng, 3, 32)
    ops.start_recording()
    ops.linear(x, matrix)
    before = ops.recorded()
    ops.start_recording()
    assert ops.recorded() == {}
    ops.linear(x, matrix)
    ops.linear(x, matrix)
    check(before["w"], [3], squares(x))  # a copy: later products leave it alone
    check(ops.recorded()["w"], [6], 2 * squares(x))
    ops.stop_recording()
    ops.linear(x, matrix)
    assert ops.recorded() == {}


def test_slices_of_a_fused_tensor_count_once_under_its_name() -> None:
    rng = np.random.default_rng(1)
    ops = CpuOps(2)
    fused = weight(rng, "fused", 96, 64)
    layer = FFNWeights(fused.row_slice(0, 48), fused.row_slice(48, 96), weight(rng, "down", 64, 48))
    x = inputs(rng, 9, 64)
    prepared = ops.ffn_layer(layer)
    ops.start_recording()
    ops.ffn(x, prepared)
    assert set(ops.recorded()) == {"fused", "down"}
    check(ops.recorded()["fused"], [9], squares(x))


def test_slices_of_slices_know_where_they_begin() -> None:
    view = weight(np.random.default_rng(2), "w", 32, 64)
    assert view.row_slice(8, 32).row_slice(4, 8).first_row == 12
    assert view.row_slice(0, 16).row_slice(0, 8).first_row == 0


def test_lookups_are_no_products() -> None:
    rng = np.random.default_rng(3)
    ops = CpuOps(1)
    matrix = ops.matrix(weight(rng, "embedding", 16, 32))
    ops.start_recording()
    ops.embed(matrix, np.array([1, 2], np.int32))
    assert ops.recorded() == {}


def test_feed_forward(isa: _native.Isa) -> None:
    rng = np.random.default_rng(4)
    ops = CpuOps(3)
    w = ffn_weights(rng, "", 96, 320)
    x = inputs(rng, 11, 96)
    prepared = ops.ffn_layer(w)
    ops.start_recording()
    ops.ffn(x, prepared)
    got = ops.recorded()
    for name in ("gate", "up"):
        check(got[name], [11], squares(x))
    h = activate(Activation.SILU, x @ floats(w.gate)[0].T, x @ floats(w.up)[0].T)
    check(got["down"], [11], squares(h), AFTER_A_PRODUCT)


@pytest.mark.parametrize("n", [1, 6, 90])
def test_experts_separately(isa: _native.Isa, n: int) -> None:
    """Each expert sums what it is sent; one that gets nothing has zeros; the shared one sees everything."""
    rng = np.random.default_rng(n)
    ops = CpuOps(3)
    w = moe_weights(rng, n_expert=40, n_used=3, n_embd=64, n_ff=32)
    x = inputs(rng, n, 64)
    routes = np.empty((n, 3), np.int32)
    prepared = ops.moe_layer(w)
    ops.start_recording()
    ops.moe(x, prepared, None, routes)
    got = ops.recorded()
    rows = np.bincount(routes.reshape(-1), minlength=40)
    assert (rows == 0).any() == (n < 90)
    sent = [x[(routes == e).any(1)] for e in range(40)]
    gate, up = floats(w.gate), floats(w.up)
    h = [activate(Activation.SILU, s @ gate[e].T, s @ up[e].T) for e, s in enumerate(sent)]
    for name in ("exps.gate", "exps.up"):
        check(got[name], rows, np.stack([squares(s) for s in sent]))
    check(got["exps.down"], rows, np.stack([squares(v) for v in h]), AFTER_A_PRODUCT)
    for name in ("router", "shexp.gate", "shexp.up"):
        check(got[name], [n], squares(x))
    assert got["shexp.down"].rows.tolist() == [n]
    assert set(got) == {"router"} | {f"{s}.{m}" for s in ("exps", "shexp") for m in ("gate", "up", "down")}


def test_the_router_may_see_something_else() -> None:
    rng = np.random.default_rng(5)
    ops = CpuOps(2)
    x, router_x = inputs(rng, 4, 64), inputs(rng, 4, 64)
    prepared = ops.moe_layer(moe_weights(rng, n_expert=6, n_used=2, n_embd=64, n_ff=32))
    ops.start_recording()
    ops.moe(x, prepared, router_x)
    check(ops.recorded()["router"], [4], squares(router_x))
    check(ops.recorded()["shexp.gate"], [4], squares(x))


def test_threads_make_no_difference() -> None:
    x = inputs(np.random.default_rng(6), 70, 544)
    results = []
    for n_threads in (1, 2, 5):
        rng = np.random.default_rng(7)
        ops = CpuOps(n_threads)
        prepared = ops.moe_layer(moe_weights(rng, n_expert=12, n_used=2, n_embd=544, n_ff=96))
        ops.start_recording()
        ops.moe(x, prepared)
        results.append(ops.recorded())
    for other in results[1:]:
        for name, sums in results[0].items():
            np.testing.assert_array_equal(sums.squares, other[name].squares)
            np.testing.assert_array_equal(sums.rows, other[name].rows)


def test_recording_changes_no_result() -> None:
    rng = np.random.default_rng(8)
    ops = CpuOps(2)
    prepared = ops.moe_layer(moe_weights(rng, n_expert=12, n_used=2, n_embd=64, n_ff=32))
    x = inputs(rng, 20, 64)
    plain = ops.moe(x, prepared)
    ops.start_recording()
    np.testing.assert_array_equal(ops.moe(x, prepared), plain)
