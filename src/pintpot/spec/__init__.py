"""ModelSpec: what a model is, read from GGUF metadata and the tensor index alone (no weights, no torch).

Everything later stages need to know about an architecture's shape is here, per layer: the models build
their composition from it, `synth` writes files from it, the planner counts bytes from it.
"""

from __future__ import annotations

from pintpot.spec.architectures import SUPPORTED_ARCHITECTURES
from pintpot.spec.layers import (
    AttentionLayer,
    DeltaNetLayer,
    DenseFFN,
    LayerSpec,
    MoEFFN,
    RopeScaling,
    RopeSpec,
    RopeStyle,
)
from pintpot.spec.model import ModelSpec
from pintpot.spec.size import ModelSize, measure, summarize_types

__all__ = [
    "SUPPORTED_ARCHITECTURES",
    "AttentionLayer",
    "DeltaNetLayer",
    "DenseFFN",
    "LayerSpec",
    "MoEFFN",
    "ModelSize",
    "ModelSpec",
    "RopeScaling",
    "RopeSpec",
    "RopeStyle",
    "measure",
    "summarize_types",
]
