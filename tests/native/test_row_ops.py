"""Element-wise row ops against float64 NumPy, through the CPU backend's interface where it has one."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from ffn_reference import activate, random_weights
from gguf import GGMLQuantizationType as T

from pintpot import _native
from pintpot.errors import ModelFileError
from pintpot.kernels.api import Activation, FFNWeights, TensorView
from pintpot.kernels.cpu import CpuOps

# Shapes below and above the size at which the pool is used; widths that fill no vector among them.
SHAPES = [(1, 1), (1, 15), (3, 16), (2, 65), (7, 100), (1, 2048), (70, 1000), (600, 64)]


@pytest.fixture(scope="module")
def ops() -> CpuOps:
    ops = CpuOps(3)
    ops.engine.set_poison(True)
    return ops


def values(shape: tuple[int, ...], seed: int = 0, size: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(np.float32)


def norm(x: np.ndarray, eps: float) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm(isa: _native.Isa, ops: CpuOps, shape: tuple[int, int]) -> None:
    x, weight = values(shape), values(shape[1:], 1)
    np.testing.assert_allclose(ops.rms_norm(x, weight, 1e-5), norm(x, 1e-5) * weight, rtol=2e-6, atol=0)
    np.testing.assert_allclose(ops.rms_norm(x, None, 1e-5), norm(x, 1e-5), rtol=2e-6, atol=0)
    assert not ops.rms_norm(np.zeros(shape, np.float32), weight, 1e-5).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_add_rms_norm(isa: _native.Isa, ops: CpuOps, shape: tuple[int, int]) -> None:
    x, delta, weight = values(shape), values(shape, 1), values(shape[1:], 2)
    want = x + delta
    got = ops.add_rms_norm(x, delta, weight, 1e-6)
    np.testing.assert_array_equal(x, want)
    np.testing.assert_allclose(got, norm(want, 1e-6) * weight, rtol=2e-6, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_add_and_scale(isa: _native.Isa, ops: CpuOps, shape: tuple[int, int]) -> None:
    x, delta = values(shape), values(shape, 1)
    want = (x + delta) * np.float32(1.7)
    ops.add(x, delta)
    ops.scale(x, 1.7)
    np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize("shape", SHAPES)
def test_softcap(isa: _native.Isa, ops: CpuOps, shape: tuple[int, int]) -> None:
    x = values(shape, size=40)
    want = 30 * np.tanh(x.astype(np.float64) / 30)
    ops.softcap(x, 30.0)
    np.testing.assert_allclose(x, want, rtol=1e-6, atol=0)


def test_softcap_over_the_whole_range(isa: _native.Isa, ops: CpuOps) -> None:
    x = np.geomspace(1e-30, 1e30, 20_001).astype(np.float32)
    x = np.concatenate([-x, [0.0], x]).astype(np.float32)[None]
    want = np.tanh(x.astype(np.float64))
    ops.softcap(x, 1.0)
    np.testing.assert_allclose(x, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("shape", SHAPES)
def test_gated(isa: _native.Isa, ops: CpuOps, activation: Activation, shape: tuple[int, int]) -> None:
    gate, up = values(shape, size=3), values(shape, 1, size=5)
    want = activate(activation, gate.astype(np.float64), up.astype(np.float64))
    np.testing.assert_allclose(ops.gated(gate, up, activation), want, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("activation", list(Activation))
def test_activations_over_the_whole_range(isa: _native.Isa, ops: CpuOps, activation: Activation) -> None:
    """A few ulps; in the negative tail, where e^-k decides, as many ulps more as k's own rounding makes."""
    x = np.concatenate(
        [np.linspace(-80, 80, 40_001), np.geomspace(1e-20, 1e4, 999), -np.geomspace(1e-20, 1e4, 999)]
    )
    gate = x.astype(np.float32)[None]
    up = np.full_like(gate, 0.75)
    g = gate.astype(np.float64)
    want = activate(activation, g, up.astype(np.float64))
    got = ops.gated(gate, up, activation)
    k = {
        Activation.SILU: g,
        Activation.SWIGLU_OAI: 1.702 * g,
        Activation.GELU_TANH: 1.6 * g * (1 + 0.044715 * g * g),
    }[activation]
    ulps = 4 + 1.5 * np.clip(-k, 0, 90)
    cancelled = 1e-13 if activation == Activation.GELU_TANH else 0.0  # in the reference's 1 + tanh
    assert (np.abs(got - want) <= ulps * 2.0**-23 * np.abs(want) + 1e-34 + cancelled).all()


def test_gated_may_not_differ_in_shape(ops: CpuOps) -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        ops.gated(values((2, 4)), values((2, 5)), Activation.SILU)


@pytest.mark.parametrize("kind", [T.F32, T.F16, T.Q8_0, T.Q4_K, T.MXFP4])
@pytest.mark.parametrize("n", [0, 1, 300])
def test_embed(ops: CpuOps, kind: T, n: int) -> None:
    rng = np.random.default_rng(n)
    w = random_weights(rng, kind, 1, 40, 256)
    tokens = rng.integers(0, 40, n).astype(np.int32)
    np.testing.assert_allclose(ops.embed(w.native, tokens), w.values[0][tokens].reshape(n, 256), rtol=1e-6)


@pytest.mark.parametrize("token", [-1, 40, 2**31 - 1, -(2**31)])
def test_embed_rejects_unknown_tokens(ops: CpuOps, token: int) -> None:
    w = random_weights(np.random.default_rng(0), T.F32, 1, 40, 32)
    with pytest.raises(ValueError, match=f"token id {token} "):
        ops.embed(w.native, np.array([3, token], np.int32))


def test_shapes_are_checked(ops: CpuOps) -> None:
    x = values((2, 8))
    with pytest.raises(ValueError, match="rms_norm"):
        ops.rms_norm(x, values((7,)), 1e-6)
    with pytest.raises(ValueError, match="add_rms_norm"):
        ops.add_rms_norm(x, values((2, 9)), values((8,)), 1e-6)
    with pytest.raises(ValueError, match="add:"):
        ops.add(x, values((1, 8)))
    with pytest.raises(ValueError, match="cap"):
        ops.softcap(x, 0.0)
    with pytest.raises(TypeError):
        ops.add(x, values((2, 16))[:, ::2])


def test_rows_columns_reshape(ops: CpuOps) -> None:
    x = values((6, 8))
    np.testing.assert_array_equal(ops.rows(x, np.array([5, 0], np.int32)), x[[5, 0]])
    np.testing.assert_array_equal(ops.columns(x, 2, 6), x[:, 2:6])
    assert ops.columns(x, 2, 6).flags.c_contiguous
    assert ops.reshape(x, 4).shape == (12, 4)
    assert np.shares_memory(ops.reshape(x, 4), x)


def test_linear_with_bias(isa: _native.Isa, ops: CpuOps) -> None:
    rng = np.random.default_rng(2)
    w, x, bias = random_weights(rng, T.F32, 1, 40, 64), values((5, 64)), values((40,), 1)
    want = x @ w.values[0].T
    np.testing.assert_allclose(ops.linear(x, w.native), want, atol=1e-5)
    np.testing.assert_allclose(ops.linear(x, w.native, ops.vector(bias, "bias")), want + bias, atol=1e-5)


def view(name: str, rows: int, cols: int, **changes: Any) -> TensorView:
    fields: dict[str, Any] = {
        "name": name,
        "ggml_type": int(gguf.GGMLQuantizationType.F32),
        "data": np.zeros(rows * cols * 4, np.uint8),
        "n_mats": 1,
        "rows": rows,
        "cols": cols,
        "row_bytes": cols * 4,
        "mat_stride": rows * cols * 4,
    }
    return TensorView(**(fields | changes))


def test_impossible_weights_name_the_tensor(ops: CpuOps) -> None:
    with pytest.raises(ModelFileError, match=r"tensor output\.weight: .*geometry"):
        ops.matrix(view("output.weight", 8, 32, data=np.zeros(100, np.uint8)))
    with pytest.raises(ModelFileError, match=r"tensor output\.weight: unsupported tensor type"):
        ops.matrix(view("output.weight", 8, 32, ggml_type=99))
    gate, up = view("blk.0.ffn_gate.weight", 48, 32), view("blk.0.ffn_up.weight", 48, 32)
    with pytest.raises(ModelFileError, match=r"tensor blk\.0\.ffn_gate\.weight: .*fit together"):
        ops.ffn_layer(FFNWeights(gate, up, view("blk.0.ffn_down.weight", 32, 40)))
