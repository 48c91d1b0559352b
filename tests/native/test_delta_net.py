"""The gated delta net at every kernel level against a float64 token-by-token NumPy loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mixer_reference import DeltaNet, batch, relative_error

from pintpot import _native

TOLERANCE = 2e-5

pytestmark = pytest.mark.usefixtures("isa")


def tokens(n: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def run_steps(d: DeltaNet, x: np.ndarray, steps: tuple[int, ...], threads: int = 2) -> np.ndarray:
    layer, state, engine = d.layer(), d.state(3), _native.Engine(threads)
    outs, past = [], 0
    for n in steps:
        outs.append(d.run(x[past : past + n], layer, state, batch((2, past, n)), engine=engine))
        past += n
    return np.concatenate(outs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_head_k": 3, "n_head_v": 3},
        {"n_head_k": 1, "n_head_v": 6, "head_dim_k": 128, "head_dim_v": 128},
        {"head_dim_k": 20, "head_dim_v": 24},
        {"head_dim_k": 64, "head_dim_v": 16, "conv_kernel": 2},
        {"conv_kernel": 8},
        {"conv_kernel": 1},
        {"decay": 40.0},  # forgets within a token: e^G underflows inside a block
        {"decay": 1e-3},  # forgets nothing
    ],
    ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()) or "plain",
)
def test_every_way_of_cutting_a_sequence_agrees_with_the_recurrence(options: dict[str, Any]) -> None:
    d = DeltaNet(**options)
    x = tokens(150, d.n_embd)
    want = d.reference(x.astype(np.float64))
    for steps in ((150,), (1,) * 150, (1, 2, 3, 15, 16, 17, 32, 64), (70, 1, 1, 78)):
        assert relative_error(run_steps(d, x, steps), want) < TOLERANCE, steps


def test_repeated_keys_do_not_blow_up() -> None:
    """Identical tokens make the corrections within a block as large as they get."""
    d = DeltaNet(decay=1e-3)
    x = np.repeat(tokens(1, d.n_embd), 64, 0)
    want = d.reference(x.astype(np.float64))
    assert relative_error(run_steps(d, x, (64,)), want) < TOLERANCE


def test_segments_in_one_batch_equal_segments_alone() -> None:
    d = DeltaNet()
    layer, together, alone = d.layer(), d.state(4), d.state(4)
    segments = ((3, 0, 20), (0, 0, 1), (1, 0, 3))
    for round_ in range(3):
        x = tokens(24, d.n_embd, round_)
        got = d.run(x, layer, together, batch(*segments))
        want, first = [], 0
        for segment in segments:
            want.append(d.run(x[first : first + segment[2]], layer, alone, batch(segment)))
            first += segment[2]
        np.testing.assert_array_equal(got, np.concatenate(want))


def test_threads_do_not_change_a_bit() -> None:
    d = DeltaNet(n_head_k=2, n_head_v=6)
    x = tokens(100, d.n_embd)
    one = run_steps(d, x, (77, 1, 22), threads=1)
    for threads in (2, 3, 4):
        np.testing.assert_array_equal(run_steps(d, x, (77, 1, 22), threads), one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": (2, 4, 32, 64, 256, 4)}, "another shape than the layer"),
        ({"state": (2, 4, 32, 32, 256, 3)}, "another shape than the layer"),
        ({"segment": (2, 0, 4)}, "slot 2 is beyond the state's 2"),
        ({"segment": (0, 0, 5)}, "tokens of the batch"),
        ({"width": 41}, "n_embd"),
    ],
)
def test_misfits_are_refused(change: dict[str, Any], message: str) -> None:
    d = DeltaNet()
    state = _native.DeltaState(*change.get("state", (2, 4, 32, 32, 256, 4)))
    x = np.zeros((4, change.get("width", d.n_embd)), np.float32)
    with pytest.raises(ValueError, match=message):
        d.run(x, d.layer(), state, batch(change.get("segment", (0, 0, 4))))


@pytest.mark.parametrize(
    ("options", "weights", "message"),
    [
        ({"n_head_k": 3}, {}, "n_head_v 4 is no positive multiple of n_head_k 3"),
        ({}, {"wz": np.zeros((127, 40))}, "wz is 127 x 40, expected 128 x 40"),
        ({}, {"a": np.zeros(3)}, "a has 3 values, expected 4"),
        ({}, {"conv": np.zeros((256, 3))}, "conv_kernel columns"),
        ({}, {"conv": np.zeros((255, 4))}, "conv has 1020 values, expected 1024"),
    ],
)
def test_impossible_layers_are_refused(
    options: dict[str, Any], weights: dict[str, Any], message: str
) -> None:
    d = DeltaNet(**options)
    d.w |= {k: v.astype(np.float32) for k, v in weights.items()}
    with pytest.raises(ValueError, match=message):
        d.layer()
