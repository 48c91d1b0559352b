"""RoPE frequencies against the published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pintpot.models.rope import make_rope
from pintpot.spec import RopeScaling, RopeSpec, RopeStyle

PLAIN = RopeSpec(theta=10_000.0, n_rot=64, style=RopeStyle.NEOX)


def with_scaling(spec: RopeSpec, **changes) -> RopeSpec:
    return RopeSpec(spec.theta, spec.n_rot, spec.style, RopeScaling(**changes))


def test_plain_frequencies():
    rope = make_rope(PLAIN)
    assert rope.inv_freq.dtype == np.float32
    assert not rope.interleaved
    assert rope.mscale == 1.0
    np.testing.assert_allclose(rope.inv_freq, [10_000.0 ** (-i / 32) for i in range(32)], rtol=1e-6)


def test_style_is_kept():
    assert make_rope(RopeSpec(1e4, 8, RopeStyle.INTERLEAVED)).interleaved


def test_frequency_factors_divide():
    factors = np.array([1.0, 2.0, 8.0, 1e30], np.float32)
    rope = make_rope(RopeSpec(100.0, 8, RopeStyle.NEOX, use_freq_factors=True), factors)
    np.testing.assert_allclose(rope.inv_freq[:3], [1, 100**-0.25 / 2, 100**-0.5 / 8], rtol=1e-6)
    assert rope.inv_freq[3] < 1e-30


def test_linear_interpolates_everything():
    rope = make_rope(with_scaling(PLAIN, kind="linear", factor=4.0, original_ctx=1024))
    np.testing.assert_allclose(rope.inv_freq, make_rope(PLAIN).inv_freq / 4, rtol=1e-6)
    assert rope.mscale == 1.0


def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones():
    rope = make_rope(with_scaling(PLAIN, kind="yarn", factor=8.0, original_ctx=4096))
    plain = make_rope(PLAIN).inv_freq.astype(np.float64)
    turns = 4096 * plain / (2 * math.pi)
    ratio = rope.inv_freq / plain
    np.testing.assert_allclose(ratio[turns > 40], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratio[turns < 0.7], 1 / 8, rtol=1e-6)
    assert np.all(np.diff(ratio) <= 1e-7)
    assert rope.mscale == pytest.approx(1 + 0.1 * math.log(8))


def test_yarn_ramp_between_whole_pairs():
    spec = RopeSpec(150_000.0, 64, RopeStyle.NEOX)
    rope = make_rope(with_scaling(spec, kind="yarn", factor=32.0, original_ctx=4096))
    # pairs turning 32 times and once: 8.09 -> 8 and 17.40 -> 18
    ratio = rope.inv_freq / make_rope(spec).inv_freq
    kept = 1 - np.clip((np.arange(32) - 8) / 10, 0, 1)
    np.testing.assert_allclose(ratio, kept + (1 - kept) / 32, rtol=1e-5)


def test_yarn_matches_transformers():
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.Qwen3Config(
        head_dim=48,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 50_000.0,
            "factor": 6.0,
            "original_max_position_embeddings": 2048,
        },
        max_position_embeddings=12_288,
    )
    expected, mscale = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    rope = make_rope(
        with_scaling(RopeSpec(50_000.0, 48, RopeStyle.NEOX), kind="yarn", factor=6.0, original_ctx=2048)
    )
    np.testing.assert_allclose(rope.inv_freq, expected.numpy(), rtol=1e-5)
    assert rope.mscale == pytest.approx(mscale)


def test_attention_factor_scales_the_rotation():
    rope = make_rope(with_scaling(PLAIN, kind="linear", factor=2.0, original_ctx=64, attn_factor=1.5))
    assert rope.mscale == 1.5


def test_mrope_sections_of_qwen_leave_text_alone():
    spec = RopeSpec(1e7, 64, RopeStyle.NEOX, sections=(11, 11, 10, 0))
    np.testing.assert_array_equal(
        make_rope(spec).inv_freq, make_rope(RopeSpec(1e7, 64, RopeStyle.NEOX)).inv_freq
    )


def test_mrope_pairs_of_the_fourth_position_do_not_turn():
    spec = RopeSpec(1e4, 16, RopeStyle.NEOX, sections=(2, 2, 1, 3))
    assert np.nonzero(make_rope(spec).inv_freq)[0].tolist() == [0, 1, 2, 3, 4]
