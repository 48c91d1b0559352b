import numpy as np
import pytest

from pintpot.gguf import GGMLType
from pintpot.quants.reference import dequantize
from pintpot.synth.blocks import centred_blocks


@pytest.mark.parametrize("kind", list(GGMLType))
def test_deviation_and_centre(kind: GGMLType) -> None:
    """The deviation asked for, and 32 neighbours average out as independent values do."""
    values = dequantize(kind, centred_blocks(kind, 8192, np.random.default_rng(0), 0.05)).reshape(-1, 32)
    assert values.std() == pytest.approx(0.05, rel=0.04)
    assert values.mean(axis=1).std() < 2.0 * 0.05 / np.sqrt(32)
