"""What a run reads of a file: everything, a row at a time, or not at all."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from pintpot.spec.layers import AttentionLayer
from pintpot.spec.model import ModelSpec

# Vision and audio towers that some publishers leave in the language model's file.
_OTHER_MODALITY: Final = re.compile(r"(v|a|mm|mmproj)\.")
_LAYER: Final = re.compile(r"blk\.(\d+)\.")
_PER_LAYER_ROWS: Final = "per_layer_token_embd."


class Reading(Enum):
    """How a run reads a tensor."""

    WHOLE = auto()
    ROWS = auto()  # one row a token, of a table as large as the rest of the model
    NEVER = auto()  # MTP layers, projections of layers that read another's cache, other modalities


def reading_of(name: str, spec: ModelSpec) -> Reading:
    """How a run of `spec` reads the tensor called `name`."""
    if _OTHER_MODALITY.match(name):
        return Reading.NEVER
    if name.startswith(_PER_LAYER_ROWS):
        return Reading.ROWS
    layer = _LAYER.match(name)
    if layer is None:
        return Reading.WHOLE
    i = int(layer[1])
    if i >= spec.n_layer:
        return Reading.NEVER if i < spec.n_layer + spec.n_layer_mtp else Reading.WHOLE
    mixer = spec.layers[i].mixer
    reads_other_cache = isinstance(mixer, AttentionLayer) and mixer.kv_layer != i
    if reads_other_cache and name[layer.end() :].startswith(("attn_k", "attn_v")):
        return Reading.NEVER
    return Reading.WHOLE
