"""A proxy of quality, for ranking models of which no benchmark scores are shipped. It knows size, format and
age, and nothing of what a model was trained on or for.

`worth` is a number of parameters: those of a dense model of today, in full precision, that published laws
put at the same loss; what a format leaves of it says `planner.quality`.

1. A mixture of experts counts as sqrt(total * active) parameters: a rule of thumb of practice, no law.
2. A model m months older than the newest counts 2^(-m/16): the compute for the same loss halves every 8
   months (Ho et al. 2024, arXiv 2403.05812), and half of that (in logarithms) is counted as parameters.
"""

from __future__ import annotations

import math
from typing import Final

from pintpot.store.catalog import Entry, parse_count

_HALVING_MONTHS: Final = 16


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
