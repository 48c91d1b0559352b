"""Synthetic model files: random weights in real shapes, for measuring and testing without a download."""

from __future__ import annotations

from pintpot.spec.shape import Shape
from pintpot.synth.presets import DEFAULT_PRESET, PRESETS, TOYS, find_shape
from pintpot.synth.synthesize import Progress, Synthesized, synthesize, write_model
from pintpot.synth.weights import text_like_tokens

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "TOYS",
    "Progress",
    "Shape",
    "Synthesized",
    "find_shape",
    "synthesize",
    "text_like_tokens",
    "write_model",
]
