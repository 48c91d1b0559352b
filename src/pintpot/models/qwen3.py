"""Qwen 3 (`qwen3`): q and k heads are normed before RoPE."""

from __future__ import annotations

from typing import ClassVar

from pintpot.models.base import PreNormDecoder


class Qwen3(PreNormDecoder):
    """Dense."""

    qk_norm: ClassVar[bool] = True
