import numpy as np
import pytest

from pintpot.gguf import GGMLType
from pintpot.quants.reference import dequantize
from pintpot.synth.encode import encode

# Half the widest gap between neighbouring levels, over the largest level.
STEP = {"Q4_0": 0.13, "Q2_K": 0.34, "Q3_K": 0.34, "IQ4_NL": 0.12, "IQ4_XS": 0.12, "MXFP4": 0.34}


@pytest.mark.parametrize("kind", list(GGMLType))
def test_encoded_values_come_back(kind: GGMLType) -> None:
    values = np.random.default_rng(0).uniform(-0.3, 0.3, (5, 512)).astype(np.float32)
    back = dequantize(kind, encode(kind, values, 0.3)).reshape(values.shape)
    assert np.abs(back - values).max() <= 0.3 * STEP.get(kind.name, 0.09)
    assert np.corrcoef(back.ravel(), values.ravel())[0, 1] > 0.94
