"""gpt-oss (`gpt-oss`): attention sinks, every other layer windowed, biased clamped-SwiGLU experts."""

from __future__ import annotations

from typing import ClassVar

from pintpot.kernels.api import Activation, Gating
from pintpot.models.base import PreNormDecoder
from pintpot.models.parts import MoEStyle


class GptOss(PreNormDecoder):
    """Sinks and windows come from the spec; expert weights are a softmax over the chosen logits alone."""

    ffn_norm_name: ClassVar[str] = "post_attention_norm"
    moe_style: ClassVar[MoEStyle] = MoEStyle(
        gating=Gating.SOFTMAX_TOPK, normalize=False, activation=Activation.SWIGLU_OAI, biases=True
    )
