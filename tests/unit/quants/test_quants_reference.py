from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pintpot.gguf import RUNNABLE_TYPES, TYPES, GGMLType
from pintpot.quants.blocks import BLOCKS
from pintpot.quants.random_blocks import random_blocks
from pintpot.quants.reference import dequantize

ALL = pytest.mark.parametrize("info", RUNNABLE_TYPES, ids=lambda t: t.name)
QUANTIZED = [t for t in RUNNABLE_TYPES if t.id in BLOCKS]


def oracle(ggml_type: int, raw: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(raw.reshape(1, -1), gguf.GGMLQuantizationType(ggml_type)).ravel()


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit; any NaN equals any other, whose bits no one promises."""
    equal = a.view(np.uint32) == b.view(np.uint32)
    return bool(np.all(equal | (np.isnan(a) & np.isnan(b))))


@ALL
def test_bit_exact_on_valid_blocks(info):
    raw = random_blocks(info.id, 512, np.random.default_rng(info.id))
    values = dequantize(info.id, raw)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert same_bits(values, oracle(info.id, raw))


@ALL
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_bit_exact_on_any_bytes(info, data):
    n_blocks = data.draw(st.integers(1, 3))
    size = n_blocks * info.block_bytes
    raw = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    assert same_bits(dequantize(info.id, raw), oracle(info.id, raw))


@pytest.mark.parametrize("info", QUANTIZED, ids=lambda t: t.name)
def test_block_layout_has_the_size_of_the_type(info):
    assert BLOCKS[GGMLType(info.id)].itemsize == info.block_bytes


def test_more_values_than_a_chunk_holds():
    raw = random_blocks(GGMLType.Q4_K, 5000, np.random.default_rng(0))
    whole = dequantize(GGMLType.Q4_K, raw)
    tail = dequantize(GGMLType.Q4_K, raw[-144:])
    np.testing.assert_array_equal(whole[-256:], tail)


def test_shapes():
    raw = random_blocks(GGMLType.Q8_0, 6, np.random.default_rng(0))
    flat = dequantize(GGMLType.Q8_0, raw)
    assert flat.shape == (192,)
    assert dequantize(GGMLType.Q8_0, raw, 192).shape == (192,)
    np.testing.assert_array_equal(dequantize(GGMLType.Q8_0, raw.reshape(2, -1), (3, 64)), flat.reshape(3, 64))
    assert dequantize(GGMLType.F32, np.ones(4, np.float32), (2, 2)).sum() == 4
    assert dequantize(GGMLType.Q8_0, raw[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("ggml_type", "size", "shape", "message"),
    [
        (19, 50, None, "tensor type IQ1_S cannot be computed with"),
        (4711, 50, None, "tensor type 4711 cannot be computed with"),
        (GGMLType.Q4_K, 143, None, "143 bytes are no multiple of the Q4_K block of 144"),
        (GGMLType.Q4_K, 144, (2, 64), r"144 bytes of Q4_K are 256 values, not \(2, 64\)"),
    ],
)
def test_what_does_not_fit(ggml_type, size, shape, message):
    with pytest.raises(ValueError, match=message):
        dequantize(ggml_type, np.zeros(size, np.uint8), shape)


@ALL
@pytest.mark.parametrize("std", [0.02, 1.0])
def test_random_blocks_have_the_asked_spread(info, std):
    n_blocks = 200_000 // info.block_values
    values = dequantize(info.id, random_blocks(info.id, n_blocks, np.random.default_rng(7), std))
    assert values.std() == pytest.approx(std, rel=0.05)
    assert abs(values.mean()) < 0.03 * std


@ALL
def test_random_blocks_follow_the_seed_and_use_every_byte(info):
    raw = random_blocks(info.id, 300, np.random.default_rng(1))
    assert raw.dtype == np.uint8
    assert raw.shape == (300 * info.block_bytes,)
    np.testing.assert_array_equal(raw, random_blocks(info.id, 300, np.random.default_rng(1)))
    per_byte = raw.reshape(300, -1)
    assert (per_byte.min(axis=0) < per_byte.max(axis=0)).all()


def test_random_q8_0_stays_within_what_quantizers_write():
    raw = random_blocks(GGMLType.Q8_0, 1000, np.random.default_rng(2))
    assert raw.view(BLOCKS[GGMLType.Q8_0])["qs"].min() == -127


def test_random_blocks_of_other_types_are_refused():
    with pytest.raises(ValueError, match="IQ2_XXS cannot be computed with"):
        random_blocks(16, 1, np.random.default_rng(0))
    assert TYPES[16].name == "IQ2_XXS"
