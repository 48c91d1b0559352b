"""Qwen 3 MoE (`qwen3moe`): softmax over all experts, the top k renormalized."""

from __future__ import annotations

from typing import ClassVar

from pintpot.models.base import PreNormDecoder


class Qwen3Moe(PreNormDecoder):
    """Every layer's FFN is a mixture of experts."""

    qk_norm: ClassVar[bool] = True
