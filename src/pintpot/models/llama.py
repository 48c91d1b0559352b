"""Llama 1-3, Mistral and Mixtral (`llama`): interleaved RoPE, Llama 3's frequency factors."""

from __future__ import annotations

from pintpot.models.base import PreNormDecoder


class Llama(PreNormDecoder):
    """Dense or, with experts in the file, Mixtral's softmax-routed MoE."""
