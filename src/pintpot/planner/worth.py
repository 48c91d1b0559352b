"""A proxy of quality, for ranking models of which no benchmark scores are shipped. It knows size, format and
age, and nothing of what a model was trained on or for.

`worth` is a number of parameters: those of a dense model of today, in full precision, that published laws
put at the same loss.

1. A mixture of experts counts as sqrt(total * active) parameters: a rule of thumb of practice, no law.
2. A model m months older than the newest counts 2^(-m/16): the compute for the same loss halves every 8
   months (Ho et al. 2024, arXiv 2403.05812), and half of that (in logarithms) is counted as parameters.
3. A format costs what it adds to the loss. Llama 3 8B's perplexity on wikitext in each format (llama.cpp,
   tools/perplexity/README.md) gives d = ln(ppl / ppl_f16) nats, and the law L = E + A / N^a (Hoffmann et al.
   2022, arXiv 2203.15556: A = 406.4, a = 0.34) turns d into parameters: the share (1 + d N^a / A)^(-1/a) at
   N = 8.03e9 is left. Larger models lose less than this says, at 2 bits much less.
"""

from __future__ import annotations

import math
from typing import Final

from pintpot.store.catalog import Entry, parse_count

_A: Final = 406.4
_ALPHA: Final = 0.34
_MEASURED_PARAMS: Final = 8.03e9
_HALVING_MONTHS: Final = 16

# Perplexity less that of the model in full precision, 6.2316; with an importance matrix below 5 bits.
_PPL: Final = 6.2316
_PPL_ADDED: Final = {
    "Q8_0": 0.0027, "Q6_K": 0.0217, "Q5_K_M": 0.0570, "Q5_K_S": 0.1050, "Q4_K_M": 0.1513, "Q4_K_S": 0.1781,
    "IQ4_XS": 0.2281, "Q3_K_L": 0.4396, "Q3_K_M": 0.5026, "Q3_K_S": 1.3712, "Q2_K": 2.4162,
}  # fmt: skip
# MXFP4 is the type gpt-oss is published in.
_LOSSLESS: Final = frozenset({"BF16", "F16", "F32", "MXFP4_MOE"})


def format_share(quant: str) -> float | None:
    """Share of a model's parameters that are left in a format, 0 to 1; None where nothing was measured."""
    if quant in _LOSSLESS:
        return 1.0
    added = _PPL_ADDED.get(quant)
    if added is None:
        return None
    nats = math.log1p(added / _PPL)
    share: float = (1.0 + nats * _MEASURED_PARAMS**_ALPHA / _A) ** (-1.0 / _ALPHA)
    return share


def months(entry: Entry) -> int:
    """When a model was released, in months; without a date, when it was known."""
    year, month = (entry.released or entry.as_of).split("-")[:2]
    return 12 * int(year) + int(month)


def dense_params(entry: Entry) -> float:
    """The dense model that a model counts as: without per-layer embeddings, which are only looked up."""
    shape = entry.shape
    total = entry.n_params_published
    if shape.per_layer is not None:
        total -= shape.per_layer.n_embd * shape.n_layer * shape.n_vocab
    if shape.experts is None:
        return total
    active = parse_count(entry.params_active)[0] if entry.params_active else entry.n_params_active
    return math.sqrt(total * active)


def model_worth(entry: Entry, newest: int) -> float:
    """Parameters of today, in full precision; `newest`: `months` of the newest model."""
    age = max(0, newest - months(entry))
    return dense_params(entry) * float(2.0 ** (-age / _HALVING_MONTHS))
