"""The toy models that are compared, and how two sets of logits are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pintpot.spec import RopeScaling
from pintpot.spec.shape import Shape
from pintpot.synth.presets import TOYS

F32 = npt.NDArray[np.float32]

_YARN = RopeScaling("yarn", 4.0, 128)
_LINEAR = RopeScaling("linear", 4.0, 128)

# One per architecture, then options that change tensors or formulas.
ARCHITECTURES: dict[str, Shape] = dict(TOYS)
VARIANTS: dict[str, Shape] = {
    "llama-tied": replace(TOYS["llama"], tied=True),
    "llama-fused": replace(TOYS["llama"], fused_qkv=True),
    "llama-llama3-rope": replace(TOYS["llama"], llama3_ctx=64),
    "llama-yarn": replace(TOYS["llama"], rope_scaling=_YARN),
    "llama-linear": replace(TOYS["llama"], rope_scaling=_LINEAR),
    "qwen2-tied-fused": replace(TOYS["qwen2"], tied=True, fused_qkv=True),
    "qwen3-untied-yarn": replace(TOYS["qwen3"], tied=False, rope_scaling=_YARN),
    "qwen3moe-fused-qkv": replace(TOYS["qwen3moe"], fused_qkv=True),
    "qwen35-tied-mtp": replace(TOYS["qwen35"], tied=True, n_mtp=1),
    "qwen35moe-fused-mtp": replace(TOYS["qwen35moe"], fused_gate_up=True, fused_qkv=True, n_mtp=1),
    "gemma4-fused": replace(TOYS["gemma4"], k_eq_v=False, n_head_kv=4, fused_qkv=True),
    "gemma4-moe-separate": replace(TOYS["gemma4-moe"], fused_gate_up=False),
    "gpt-oss-fused-288": replace(TOYS["gpt-oss"], n_embd=288, fused_qkv=True),
}
SHAPES = ARCHITECTURES | VARIANTS


def prompt(shape: Shape, n: int, seed: int = 0) -> list[int]:
    """n token ids."""
    return np.random.default_rng([seed, n]).integers(0, shape.n_vocab, n).tolist()


def centered(logits: F32) -> F32:
    """Logits without the constant that softmax ignores."""
    return logits - logits.mean(axis=-1, keepdims=True)


def relative_error(ours: F32, theirs: F32) -> float:
    """Largest difference of centered logits over the largest centered logit."""
    a, b = centered(ours), centered(theirs)
    return float(np.abs(a - b).max() / np.abs(b).max())


def kl_divergence(theirs: F32, ours: F32) -> F32:
    """KL(theirs || ours) at each position, in nats."""

    def log_softmax(x: F32) -> npt.NDArray[np.float64]:
        shifted = x.astype(np.float64) - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    p, q = log_softmax(theirs), log_softmax(ours)
    return (np.exp(p) * (p - q)).sum(axis=-1).astype(np.float32)
