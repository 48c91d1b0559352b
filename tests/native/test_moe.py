"""The mixture-of-experts op against float64 NumPy.

Tolerances: float weights 2e-6 of the largest output. Quantized weights 2e-3: the reference quantizes
activations as the kernels do, but a value of the intermediate may round to the other side.
"""

from __future__ import annotations

import numpy as np
import pytest
from ffn_reference import MoECase, make_moe, relative_error
from gguf import GGMLQuantizationType as T

from pintpot import _native
from pintpot.kernels.api import Activation, Gating

FLOAT_TOLERANCE = 2e-6
QUANT_TOLERANCE = 2e-3


def inputs(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    return rng.standard_normal((n, width)).astype(np.float32)


def check(case: MoECase, engine: _native.Engine, x: np.ndarray, tolerance: float) -> None:
    ids, weights = case.route(x.astype(np.float64))
    out, routes = case.run(engine, x)
    np.testing.assert_array_equal(routes, ids)
    assert relative_error(out, case.experts(x.astype(np.float64), ids, weights)) <= tolerance


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("gating", list(Gating))
def test_gating(isa: _native.Isa, engine: _native.Engine, gating: Gating, normalize: bool) -> None:
    rng = np.random.default_rng(1)
    case = make_moe(rng, n_expert=24, n_expert_used=5, gating=gating, normalize=normalize, weight_scale=1.75)
    check(case, engine, inputs(rng, 9, 64), FLOAT_TOLERANCE)


@pytest.mark.parametrize("extras", [False, True], ids=["plain", "biases"])
@pytest.mark.parametrize("activation", list(Activation))
def test_activations(isa: _native.Isa, engine: _native.Engine, activation: Activation, extras: bool) -> None:
    rng = np.random.default_rng(2)
    case = make_moe(rng, activation=activation, n_ff=40, biases=extras, down_scale=extras)
    check(case, engine, inputs(rng, 7, 64) * 4, FLOAT_TOLERANCE)  # large enough to reach swiglu_oai's limits


@pytest.mark.parametrize("gated", [False, True])
def test_shared_expert(isa: _native.Isa, engine: _native.Engine, gated: bool) -> None:
    rng = np.random.default_rng(3)
    case = make_moe(rng, n_ff_shared=80, shared_gate=gated)
    check(case, engine, inputs(rng, 11, 64), FLOAT_TOLERANCE)


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 8, 31, 32, 33, 70])
@pytest.mark.parametrize(("n_expert", "n_used"), [(4, 4), (4, 1), (37, 6), (256, 8)])
def test_sizes(engine: _native.Engine, n_tokens: int, n_expert: int, n_used: int) -> None:
    rng = np.random.default_rng(n_tokens * 1000 + n_expert)
    case = make_moe(rng, n_expert=n_expert, n_expert_used=n_used, n_embd=48, n_ff=24, n_ff_shared=16)
    check(case, engine, inputs(rng, n_tokens, 48), FLOAT_TOLERANCE)


@pytest.mark.parametrize(
    ("kinds", "shared_kinds"),
    [
        ((T.F16, T.F16, T.F16), None),
        ((T.Q8_0, T.Q8_0, T.Q8_0), None),
        ((T.MXFP4, T.MXFP4, T.MXFP4), None),
        ((T.Q4_K, T.Q4_K, T.Q4_K), None),
        ((T.Q4_K, T.Q4_K, T.Q6_K), (T.Q8_0, T.Q8_0, T.Q8_0)),
        ((T.IQ4_XS, T.Q5_K, T.F16), (T.F16, T.Q4_K, T.Q4_K)),
    ],
    ids=lambda kinds: "same" if kinds is None else "-".join(k.name for k in kinds),
)
@pytest.mark.parametrize("n_tokens", [1, 5, 40])
def test_weight_types(
    isa: _native.Isa,
    engine: _native.Engine,
    n_tokens: int,
    kinds: tuple[T, T, T],
    shared_kinds: tuple[T, T, T] | None,
) -> None:
    rng = np.random.default_rng(5)
    case = make_moe(
        rng, n_embd=256, n_ff=256, n_ff_shared=512, kinds=kinds, shared_kinds=shared_kinds, shared_gate=True
    )
    tolerance = FLOAT_TOLERANCE if kinds == (T.F16, T.F16, T.F16) else QUANT_TOLERANCE
    check(case, engine, inputs(rng, n_tokens, 256), tolerance)


def test_quantized_router(isa: _native.Isa, engine: _native.Engine) -> None:
    rng = np.random.default_rng(6)
    case = make_moe(rng, n_expert=16, router_kind=T.Q8_0)
    check(case, engine, inputs(rng, 6, 64), FLOAT_TOLERANCE)


def test_all_tokens_to_the_same_experts(engine: _native.Engine) -> None:
    rng = np.random.default_rng(7)
    case = make_moe(rng, n_expert=32, n_expert_used=3, biases=True)
    assert case.router_bias is not None
    case.router_bias[[4, 11, 30]] += 100
    x = inputs(rng, 300, 64)  # more than one block of tokens
    check(case, engine, x, FLOAT_TOLERANCE)
    _, routes = case.run(engine, x)
    assert set(routes.reshape(-1)) == {4, 11, 30}


def test_equal_logits_choose_the_lowest_ids(isa: _native.Isa, engine: _native.Engine) -> None:
    rng = np.random.default_rng(8)
    for gating in Gating:
        case = make_moe(rng, n_expert=20, n_expert_used=4, gating=gating)
        x = np.zeros((3, 64), np.float32)
        _, routes = case.run(engine, x)
        np.testing.assert_array_equal(routes, np.tile(np.arange(4), (3, 1)))


@pytest.mark.parametrize("gating", list(Gating))
def test_damaged_router_still_routes(engine: _native.Engine, gating: Gating) -> None:
    """NaN and infinite logits choose distinct, valid experts; the NaN reaches the output."""
    rng = np.random.default_rng(9)
    case = make_moe(rng, n_expert=8, n_expert_used=7, gating=gating, biases=True)
    assert case.router_bias is not None
    case.router_bias[[1, 2]] = np.nan
    case.router_bias[3] = -np.inf
    out, routes = case.run(engine, inputs(rng, 4, 64))
    for chosen in routes:
        assert len(set(chosen)) == 7
        assert min(chosen) >= 0
        assert max(chosen) < 8
    assert np.isnan(out).any(axis=1).all()


def test_tiny_weight_sums_are_clamped(engine: _native.Engine) -> None:
    rng = np.random.default_rng(10)
    case = make_moe(rng, gating=Gating.SIGMOID, biases=True)
    assert case.router_bias is not None
    case.router_bias -= 20
    check(case, engine, inputs(rng, 5, 64), FLOAT_TOLERANCE)


def test_router_sees_another_input(engine: _native.Engine) -> None:
    rng = np.random.default_rng(11)
    case = make_moe(rng)
    x, router_x = inputs(rng, 9, 64), inputs(rng, 9, 64)
    ids, weights = case.route(router_x.astype(np.float64))
    out, routes = case.run(engine, x, router_x)
    np.testing.assert_array_equal(routes, ids)
    assert relative_error(out, case.experts(x.astype(np.float64), ids, weights)) <= FLOAT_TOLERANCE


@pytest.mark.parametrize("kind", [T.F32, T.Q4_K, T.MXFP4])
@pytest.mark.parametrize("n_tokens", [1, 3, 67])
def test_thread_counts_agree_bit_for_bit(make_engine, kind: T, n_tokens: int) -> None:
    rng = np.random.default_rng(12)
    case = make_moe(
        rng, n_expert=12, n_expert_used=3, n_embd=256, n_ff=256, n_ff_shared=256, kinds=(kind,) * 3
    )
    x = inputs(rng, n_tokens, 256)
    one = case.run(make_engine(1), x)
    for n_threads in (2, 3, 4):
        other = case.run(make_engine(n_threads), x)
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("kinds", [(T.F32,) * 3, (T.F16,) * 3, (T.Q4_K, T.Q4_K, T.Q6_K), (T.MXFP4,) * 3])
def test_tokens_do_not_influence_each_other(
    isa: _native.Isa, engine: _native.Engine, kinds: tuple[T, T, T]
) -> None:
    """A prompt in one piece and token by token: the same bits."""
    rng = np.random.default_rng(13)
    case = make_moe(rng, n_embd=256, n_ff=256, n_ff_shared=256, kinds=kinds, shared_gate=True)
    x = inputs(rng, 137, 256)
    together, routes = case.run(engine, x)
    for i in range(len(x)):
        alone, route = case.run(engine, x[i : i + 1])
        np.testing.assert_array_equal(route[0], routes[i])
        np.testing.assert_array_equal(alone[0], together[i])


def test_a_subset_of_experts(isa: _native.Isa, engine: _native.Engine) -> None:
    """Routing and experts as separate steps; two disjoint subsets add up to the whole."""
    rng = np.random.default_rng(14)
    case = make_moe(
        rng, n_expert=16, n_expert_used=4, n_ff_shared=32, shared_gate=True, biases=True, down_scale=True
    )
    x = inputs(rng, 21, 64)
    whole, routes = case.run(engine, x)
    ids, weights = np.empty((21, 4), np.int32), np.empty((21, 4), np.float32)
    _native.moe_route(engine, case.layer, x, ids, weights)
    np.testing.assert_array_equal(ids, routes)

    here = ids % 3 == 0
    parts = []
    for mine, shared in ((here, True), (~here, False)):
        out = np.full(x.shape, np.nan, np.float32)
        chosen = np.where(mine, ids, -1).astype(np.int32)
        _native.moe_experts(engine, case.layer, x, chosen, weights, shared, out)
        want = case.experts(x.astype(np.float64), chosen, weights.astype(np.float64), shared)
        assert relative_error(out, want) <= FLOAT_TOLERANCE
        parts.append(out)
    assert relative_error(parts[0] + parts[1], whole) <= FLOAT_TOLERANCE

    out = np.full(x.shape, np.nan, np.float32)
    _native.moe_experts(engine, case.layer, x, np.full_like(ids, -1), weights, False, out)
    assert not out.any()


def test_no_tokens(engine: _native.Engine) -> None:
    case = make_moe(np.random.default_rng(15))
    out, routes = case.run(engine, np.empty((0, 64), np.float32))
    assert out.shape == (0, 64)
    assert routes.shape == (0, 2)


def test_shapes_are_checked(engine: _native.Engine) -> None:
    rng = np.random.default_rng(16)
    case, other = make_moe(rng), make_moe(rng, n_expert=4, n_embd=32)
    x, out = inputs(rng, 2, 64), np.empty((2, 64), np.float32)
    layer = case.layer

    with pytest.raises(ValueError, match="width"):
        _native.moe(engine, layer, np.empty((2, 32), np.float32), out)
    with pytest.raises(ValueError, match="width"):
        _native.moe(engine, layer, x, np.empty((3, 64), np.float32))
    with pytest.raises(ValueError, match="router_x"):
        _native.moe(engine, layer, x, out, np.empty((1, 64), np.float32))
    with pytest.raises(ValueError, match="routes"):
        _native.moe(engine, layer, x, out, None, np.empty((2, 3), np.int32))
    with pytest.raises(ValueError, match="below n_expert"):
        _native.moe_experts(
            engine, layer, x, np.full((2, 2), 8, np.int32), np.ones((2, 2), np.float32), True, out
        )

    for field, value, message in [
        ("n_expert_used", 9, "n_expert_used"),
        ("n_expert_used", 0, "n_expert_used"),
        ("router", other.router, "router"),
        ("gate", other.gate, "router"),
        ("up", other.up, "differ"),
        ("down", other.down, "differ"),
        ("router_bias", np.zeros(7, np.float32), "router_bias"),
        ("gate_bias", np.zeros((8, 47), np.float32), "gate_bias"),
        ("up_bias", np.zeros((7, 48), np.float32), "up_bias"),
        ("down_bias", np.zeros((8, 48), np.float32), "down_bias"),
        ("down_scale", np.zeros(9, np.float32), "down_scale"),
        ("shared_gate", np.zeros(64, np.float32), "shared_gate"),
        ("gating", "median", "gating"),
        ("activation", "relu", "activation"),
    ]:
        broken = make_moe(rng)
        setattr(broken, field, value)
        with pytest.raises(ValueError, match=message):
            _ = broken.layer
