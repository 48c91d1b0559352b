"""The dense feed-forward against float64 NumPy; tolerances as in test_moe.py."""

from __future__ import annotations

import numpy as np
import pytest
from ffn_reference import Weights, feed_forward, random_weights, relative_error
from gguf import GGMLQuantizationType as T

from pintpot import _native
from pintpot.kernels.api import Activation

FLOAT_TOLERANCE = 2e-6
QUANT_TOLERANCE = 2e-3


def make(
    rng: np.random.Generator, kinds: tuple[T, T, T], n_embd: int, n_ff: int
) -> tuple[Weights, Weights, Weights]:
    gate, up, down = kinds
    return (
        random_weights(rng, gate, 1, n_ff, n_embd),
        random_weights(rng, up, 1, n_ff, n_embd),
        random_weights(rng, down, 1, n_embd, n_ff),
    )


def run(
    engine: _native.Engine, w: tuple[Weights, Weights, Weights], activation: Activation, x: np.ndarray
) -> np.ndarray:
    out = np.full(x.shape, np.nan, np.float32)
    _native.ffn(engine, _native.FFNLayer(*(m.native for m in w), activation), x, out)
    return out


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("n_tokens", [1, 2, 9, 70])
def test_activations(isa: _native.Isa, engine: _native.Engine, activation: Activation, n_tokens: int) -> None:
    rng = np.random.default_rng(n_tokens)
    w = make(rng, (T.F32, T.F32, T.F32), 72, 136)  # multiples of no vector width
    x = rng.standard_normal((n_tokens, 72)).astype(np.float32) * 4
    assert relative_error(run(engine, w, activation, x), feed_forward(x, *w, activation)) <= FLOAT_TOLERANCE


@pytest.mark.parametrize(
    "kinds",
    [
        (T.F16, T.F16, T.F16),
        (T.Q8_0, T.Q8_0, T.Q8_0),
        (T.Q4_K, T.Q4_K, T.Q6_K),
        (T.MXFP4, T.MXFP4, T.MXFP4),
        (T.Q4_0, T.Q5_K, T.F32),  # one input in two preparations
    ],
    ids=lambda kinds: "-".join(k.name for k in kinds),
)
@pytest.mark.parametrize("n_tokens", [1, 6, 150])
def test_weight_types(isa: _native.Isa, engine: _native.Engine, kinds: tuple[T, T, T], n_tokens: int) -> None:
    rng = np.random.default_rng(n_tokens)
    w = make(rng, kinds, 256, 512)
    x = rng.standard_normal((n_tokens, 256)).astype(np.float32)
    tolerance = FLOAT_TOLERANCE if kinds[0] == T.F16 else QUANT_TOLERANCE
    assert (
        relative_error(run(engine, w, Activation.SILU, x), feed_forward(x, *w, Activation.SILU)) <= tolerance
    )


@pytest.mark.parametrize("kind", [T.F32, T.Q4_K])
@pytest.mark.parametrize("n_tokens", [1, 45])
def test_thread_counts_agree_bit_for_bit(make_engine, kind: T, n_tokens: int) -> None:
    rng = np.random.default_rng(3)
    w = make(rng, (kind,) * 3, 256, 768)
    x = rng.standard_normal((n_tokens, 256)).astype(np.float32)
    one = run(make_engine(1), w, Activation.SILU, x)
    for n_threads in (2, 3, 4):
        np.testing.assert_array_equal(run(make_engine(n_threads), w, Activation.SILU, x), one)


def test_shapes_are_checked(engine: _native.Engine) -> None:
    rng = np.random.default_rng(4)
    gate, up, down = (m.native for m in make(rng, (T.F32, T.F32, T.F32), 32, 48))
    stack = random_weights(rng, T.F32, 2, 48, 32).native
    with pytest.raises(ValueError, match="fit together"):
        _native.FFNLayer(gate, down, up, "silu")
    with pytest.raises(ValueError, match="number of matrices"):
        _native.FFNLayer(stack, up, down, "silu")
    with pytest.raises(ValueError, match="unknown activation"):
        _native.FFNLayer(gate, up, down, "relu")
    layer = _native.FFNLayer(gate, up, down, "silu")
    with pytest.raises(ValueError, match="width"):
        _native.ffn(engine, layer, np.zeros((1, 48), np.float32), np.zeros((1, 32), np.float32))
    with pytest.raises(ValueError, match="width"):
        _native.ffn(engine, layer, np.zeros((1, 32), np.float32), np.zeros((2, 32), np.float32))
    with pytest.raises(TypeError):
        _native.ffn(engine, layer, np.zeros((1, 32), np.float64), np.zeros((1, 32), np.float32))


def test_layers_keep_their_weights_alive(engine: _native.Engine) -> None:
    rng = np.random.default_rng(5)
    w = make(rng, (T.F32, T.F32, T.F32), 32, 48)
    x = rng.standard_normal((3, 32)).astype(np.float32)
    want = feed_forward(x, *w, Activation.SILU)
    layer = _native.FFNLayer(*(m.native for m in w), "silu")
    del w
    rng.standard_normal(100_000)  # reuses the memory if it was given back
    out = np.empty_like(x)
    _native.ffn(engine, layer, x, out)
    assert relative_error(out, want) <= FLOAT_TOLERANCE
