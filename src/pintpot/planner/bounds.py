"""What a model takes at least and how fast it is at most, from a few of its numbers and in microseconds.

`recommend` rules models out by these before it counts a tensor; they never rule out what would have fitted.
"""

from __future__ import annotations

import math
from typing import Final

from pintpot.gguf.types import TYPES
from pintpot.planner.profile import EngineProfile
from pintpot.planner.speed import Rates
from pintpot.quants.recipes import find_recipe
from pintpot.spec.shape import Shape
from pintpot.store.catalog import Entry, parse_count

_COUNTED: Final = 0.99  # of the published parameters: the catalog's tests hold them to 1% of the tensors


def least_weights_bytes(entry: Entry, quant: str) -> float:
    """That memory must hold: tables of which a token needs a row stay in the file. A recipe gives no matrix
    fewer bits than its base type has."""
    return max(0.0, _least_params(entry) - _rows(entry.shape)) * _bits(quant) / 8


def least_read_bytes(entry: Entry, quant: str) -> tuple[float, float]:
    """What one token reads: (dense weights, the experts it is sent to); looked-up embeddings are not read."""
    values = _expert_values(entry.shape)
    used = entry.shape.experts.n_used / entry.shape.experts.n_expert if entry.shape.experts else 0.0
    dense = max(0.0, _least_params(entry) - _lookups(entry.shape) - values)
    # Published counts leave open how they round: what is sure of experts is what dense weights leave.
    return dense * _bits(quant) / 8, _COUNTED * values * used * _bits(quant) / 8


def most_tokens_s(entry: Entry, quant: str, vram_bytes: int, rate: Rates, profile: EngineProfile) -> float:
    """Decode speed, were the caches empty and VRAM full of nothing but weights that are read."""
    dense, routed = least_read_bytes(entry, quant)
    gpu = rate.gpu_bytes if vram_bytes else 0.0
    on_gpu = min(dense, vram_bytes) if gpu > rate.cpu_bytes else 0.0
    seconds = (dense - on_gpu) / rate.cpu_bytes + (on_gpu / gpu if on_gpu else 0.0)
    if routed and entry.shape.experts is not None:
        # The share of hits is concave in what is resident: no split over layers beats an even one.
        experts = _COUNTED * _expert_values(entry.shape) * _bits(quant) / 8
        resident = (vram_bytes - on_gpu) / experts
        hits = profile.hit_share(resident, entry.shape.experts.n_expert) if gpu else 0.0
        seconds += routed * (1.0 - hits) / rate.cpu_bytes
    layer_s = min(profile.cpu_layer_s, profile.gpu_layer_s if gpu else math.inf)
    return 1.0 / (seconds + profile.token_s + entry.shape.n_layer * layer_s)


def _expert_values(shape: Shape) -> float:
    """Of all routed experts, as the tensors have them."""
    e = shape.experts
    if e is None:
        return 0
    n_layer = shape.mixers.count("E") or shape.n_layer - e.n_dense_lead
    n_matrix = 2 if shape.arch == "nemotron_h_moe" else 3
    return n_layer * n_matrix * shape.n_embd * e.n_ff * e.n_expert


def _least_params(entry: Entry) -> float:
    params, uncertain = parse_count(entry.params)
    return min(params * _COUNTED, params - uncertain)


def _lookups(shape: Shape) -> int:
    """Values of embeddings that only rows are taken of; a tied one is also the head, and read whole."""
    return _rows(shape) + (0 if shape.tied else shape.n_embd * shape.n_vocab)


def _rows(shape: Shape) -> int:
    """Values of the per-layer embeddings."""
    return shape.per_layer.n_embd * shape.n_layer * shape.n_vocab if shape.per_layer is not None else 0


def _bits(quant: str) -> float:
    base = find_recipe(quant).base
    assert base is not None  # formats of the catalog are all of a type
    return TYPES[base].bits_per_weight
