"""What a format costs in quality: in words, and as a share of a model's parameters.

Both rest on what llama.cpp's authors measured of Llama 3 8B on wikitext, against F16
(tools/perplexity/README.md). The demo model's divergences (docs/quantization.md) come close to these; larger
models lose less, at 2 bits much less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class _Loss:
    kl: float  # mean KL divergence, nats a token
    ppl_added: float


SOURCE: Final = (
    "KL divergence from F16 of Llama 3 8B, measured by llama.cpp's authors; larger models lose less"
)
_PPL: Final = 6.2316
# K-quants of less than 5 bits and IQ types: made with an importance matrix, as the files people download are.
_LOSS: Final = {
    "Q8_0": _Loss(0.00136, 0.0027),
    "Q6_K": _Loss(0.00545, 0.0217),
    "Q5_K_M": _Loss(0.01076, 0.0570),
    "Q5_K_S": _Loss(0.01660, 0.1050),
    "Q5_1": _Loss(0.01805, 0.1062),
    "Q5_0": _Loss(0.02224, 0.1316),
    "Q4_K_M": _Loss(0.02815, 0.1513),
    "Q4_K_S": _Loss(0.03195, 0.1781),
    "IQ4_NL": _Loss(0.03574, 0.2240),
    "IQ4_XS": _Loss(0.03633, 0.2281),
    "Q4_1": _Loss(0.07168, 0.4511),
    "Q4_0": _Loss(0.07194, 0.4685),
    "Q3_K_L": _Loss(0.07308, 0.4396),
    "Q3_K_M": _Loss(0.08436, 0.5026),
    "Q3_K_S": _Loss(0.19982, 1.3712),
    "Q2_K": _Loss(0.33222, 2.4162),
    "Q2_K_S": _Loss(0.40336, 3.0921),
}
# MXFP4 is the type gpt-oss is published in.
_LOSSLESS: Final = frozenset({"BF16", "F16", "F32", "MXFP4_MOE"})

# The largest divergence of each class.
_CLASSES: Final = (
    (0.006, "as good as F16"),
    (0.025, "close to F16"),
    (0.05, "good"),
    (0.15, "visible loss"),
)
_WORST: Final = "large loss"

# The law L = E + A / N^a (Hoffmann et al. 2022, arXiv 2203.15556), and the parameters N that were measured.
_A: Final = 406.4
_ALPHA: Final = 0.34
_MEASURED_PARAMS: Final = 8.03e9


def quality_class(quant: str) -> str:
    """A few words on what `quant`, a recipe's name, loses; "" where nothing was measured."""
    if quant in _LOSSLESS:
        return _CLASSES[0][1]
    loss = _LOSS.get(quant)
    if loss is None:
        return ""
    return next((words for most, words in _CLASSES if loss.kl <= most), _WORST)


def format_share(quant: str) -> float | None:
    """Share of a model's parameters that are left in a format, 0 to 1; None where nothing was measured.

    A perplexity becomes d = ln(ppl / ppl_f16) nats, and the law turns d into parameters:
    (1 + d N^a / A)^(-1/a).
    """
    if quant in _LOSSLESS:
        return 1.0
    loss = _LOSS.get(quant)
    if loss is None:
        return None
    nats = math.log1p(loss.ppl_added / _PPL)
    share: float = (1.0 + nats * _MEASURED_PARAMS**_ALPHA / _A) ** (-1.0 / _ALPHA)
    return share
