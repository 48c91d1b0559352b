"""Qwen 2 and 2.5 (`qwen2`): biases on q, k and v, which `attention_weights` takes where it finds them."""

from __future__ import annotations

from pintpot.models.base import PreNormDecoder


class Qwen2(PreNormDecoder):
    """Dense."""
