from __future__ import annotations

import gguf
import pytest

from pintpot.gguf import RUNNABLE_TYPES, TYPES, GGMLType, row_bytes, type_by_name, type_name


def test_table_agrees_with_the_gguf_package():
    for kind, (values, size) in gguf.GGML_QUANT_SIZES.items():
        info = TYPES[int(kind)]
        assert (info.name, info.block_values, info.block_bytes) == (kind.name, values, size)
    assert {int(kind) for kind in gguf.GGMLQuantizationType} <= set(TYPES)


def test_runnable_types_are_those_promised():
    promised = "F32 F16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS BF16 MXFP4"
    assert sorted(t.name for t in RUNNABLE_TYPES) == sorted(promised.split())
    assert all(TYPES[t].name == t.name for t in GGMLType)


def test_row_bytes():
    assert row_bytes(GGMLType.Q4_K, 512) == 288
    assert row_bytes(GGMLType.F16, 3) == 6
    with pytest.raises(ValueError, match="300 columns are no multiple of the Q4_K block of 256"):
        row_bytes(GGMLType.Q4_K, 300)
    with pytest.raises(ValueError, match="type 4711 is unknown"):
        row_bytes(4711, 32)


def test_names():
    assert type_name(12) == "Q4_K"
    assert type_name(4711) == "type 4711"
    assert type_by_name("q4_k").id == 12
    with pytest.raises(KeyError):
        type_by_name("Q4_X")
