"""activation(gate) * up, inside kernels and in plain torch; elementwise, so other kernels take it in."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.api import Activation

OAI_ALPHA = tl.constexpr(1.702)  # slope of gpt-oss's sigmoid
OAI_LIMIT = tl.constexpr(7.0)  # its clamp
GELU_SCALE = tl.constexpr(0.7978845608028654)  # sqrt(2 / pi)


@triton.jit
def tanh(x):
    """From exp, which every backend has; exact to float32 rounding at both ends."""
    e = tl.exp(-2 * tl.abs(x))
    t = (1 - e) / (1 + e)
    return tl.where(x < 0, -t, t)


@triton.jit
def activate(gate, up, ACTIVATION: tl.constexpr):
    """activation(gate) * up (`kernels.api.Activation`)."""
    if ACTIVATION == "silu":
        return gate * tl.sigmoid(gate) * up
    elif ACTIVATION == "gelu_tanh":
        return 0.5 * gate * (1 + tanh((gate + 0.044715 * gate * gate * gate) * GELU_SCALE)) * up
    else:
        gate = tl.minimum(gate, OAI_LIMIT)
        up = tl.minimum(tl.maximum(up, -OAI_LIMIT), OAI_LIMIT)
        return gate * tl.sigmoid(gate * OAI_ALPHA) * (up + 1)


def activate_reference(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up in plain torch."""
    match activation:
        case Activation.SILU:
            return F.silu(gate) * up
        case Activation.GELU_TANH:
            return F.gelu(gate, approximate="tanh") * up
        case Activation.SWIGLU_OAI:
            limit = OAI_LIMIT.value
            gate = gate.clamp(max=limit)
            return gate * torch.sigmoid(OAI_ALPHA.value * gate) * (up.clamp(-limit, limit) + 1)
