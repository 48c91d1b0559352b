"""What a format costs in quality, in words, from measured KL divergence."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pintpot.quants.recipes import FLOATS, RECIPES, find_recipe

SOURCE: Final = (
    "KL divergence from F16 of the demo model, all matrices in the format's base type "
    "(docs/quantization.md); larger models lose less"
)
# Nats a token, without an importance matrix. Q8_0 is not in the table: its error is below Q6_K's.
KL_DIVERGENCE: Final[Mapping[str, float]] = MappingProxyType(
    {
        "Q2_K": 0.20194,
        "Q3_K": 0.06480,
        "Q4_K": 0.01684,
        "Q5_K": 0.00588,
        "Q6_K": 0.00244,
        "IQ4_XS": 0.01784,
        "IQ4_NL": 0.01924,
        "Q4_0": 0.02412,
        "Q4_1": 0.01670,
        "Q5_0": 0.00700,
    }
)
# The largest divergence of each class. Another rounding of Q6_K's quality moves its figure by 3%: what is
# below 0.003 is not told apart from F16 by any of our tests.
_CLASSES: Final = (
    (0.003, "as good as F16"),
    (0.01, "close to F16"),
    (0.03, "good"),
    (0.1, "visible loss"),
)
_WORST: Final = "large loss"


def quality_class(quant: str) -> str:
    """A few words on what `quant`, a recipe's name, loses; "" where nothing was measured.

    A mix such as Q4_K_M counts as its base type: its better tensors only make it better.
    """
    if quant not in RECIPES:
        return ""
    base = find_recipe(quant).base
    if base is None:
        return ""
    if base in FLOATS or base.name == "Q8_0":
        return _CLASSES[0][1]
    divergence = KL_DIVERGENCE.get(base.name)
    if divergence is None:
        return ""
    return next((words for most, words in _CLASSES if divergence <= most), _WORST)
