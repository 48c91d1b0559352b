"""RoPE: what config.json says of it as GGUF metadata, and as factors of its frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pintpot.errors import UnsupportedError
from pintpot.hf.config import Config

# `default_theta` of the configuration classes in transformers; models not listed here must state it.
_DEFAULT_THETA: Final = {
    "llama": 1e4, "mistral": 1e4, "mixtral": 1e6, "qwen2": 1e4, "qwen3": 1e4, "qwen3_moe": 1e4,
    "gpt_oss": 150000.0,
}  # fmt: skip
# llama.cpp reads other values for other architectures only.
_YARN_RAMP: Final = {"beta_fast": 32.0, "beta_slow": 1.0}
_QWEN35: Final = frozenset({"qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"})
_QWEN35_SECTIONS: Final = (11, 11, 10)
_UNROTATED: Final = 1e30  # a frequency divided by this does not turn


@dataclass(frozen=True, slots=True)
class Rope:
    """RoPE of full attention layers; `params` holds what its kind needs."""

    kind: str
    theta: float
    theta_swa: float | None
    partial_rotary_factor: float
    sections: tuple[int, ...]
    params: Config


def read_rope(text: Config, model_type: str) -> Rope:
    """From `rope_parameters`, or the older `rope_scaling` and `rope_theta`.

    Raises ModelFileError for missing or impossible values, UnsupportedError for a kind that is not run.
    """
    both = text.section("rope_parameters" if "rope_parameters" in text else "rope_scaling")
    per_kind = "full_attention" in both
    params = both.section("full_attention") if per_kind else both
    swa = both.section("sliding_attention")
    kind = params.text("rope_type", params.text("type", "default"))
    if kind == "mrope":  # Qwen's older name: sections, no scaling
        kind = "default"
    allowed = ("proportional", "default") if per_kind else ("default", "linear", "yarn", "llama3")
    if kind not in allowed:
        raise UnsupportedError(
            f"{text.path}: RoPE of type {kind!r} is not converted, expected one of {', '.join(allowed)}"
        )
    if "rope_theta" in params:
        theta = params.number("rope_theta")
    else:
        theta = text.number("rope_theta", _DEFAULT_THETA.get(model_type))
    is_qwen35 = model_type in _QWEN35
    default_partial = text.number("partial_rotary_factor", 0.25 if is_qwen35 else 1.0)
    partial = params.number("partial_rotary_factor", default_partial)
    if not 0 < partial <= 1:
        raise text.error("partial_rotary_factor", f"is {partial}, expected a part of the head up to 1")
    sections = tuple(both.integers("mrope_section")) if "mrope_section" in both else ()
    return Rope(
        kind=kind,
        theta=theta,
        theta_swa=swa.number("rope_theta") if "rope_theta" in swa else None,
        partial_rotary_factor=partial,
        sections=sections or (_QWEN35_SECTIONS if is_qwen35 else ()),
        params=params,
    )


def rope_metadata(rope: Rope) -> dict[str, Any]:
    """`rope.*` keys but for the number of rotated values."""
    out: dict[str, Any] = {"rope.freq_base": rope.theta}
    if rope.theta_swa is not None:
        out["rope.freq_base_swa"] = rope.theta_swa
    if rope.sections:
        out["rope.dimension_sections"] = [*rope.sections, 0, 0, 0, 0][:4]
    if rope.kind in ("linear", "yarn"):
        factor = rope.params.number("factor")
        out |= {"rope.scaling.type": rope.kind, "rope.scaling.factor": factor}
    if rope.kind == "yarn":
        out |= _yarn(rope.params, factor)
    return out


def _yarn(params: Config, factor: float) -> dict[str, Any]:
    if "mscale" in params or "mscale_all_dim" in params:
        raise params.error("mscale", "is stated: YaRN with a scale of its own is not converted")
    out: dict[str, Any] = {}
    if "original_max_position_embeddings" in params:
        original = params.integer("original_max_position_embeddings")
        out["rope.scaling.original_context_length"] = original
    for key, only in _YARN_RAMP.items():
        if params.number(key, only) != only:
            raise UnsupportedError(
                f"{params.path}: YaRN's {key} is {params.number(key)}, GGUF models are run with {only} only"
            )
    if "attention_factor" in params:
        # Where transformers replaces YaRN's own scale of q and k, readers of GGUF multiply it.
        own = 1.0 + 0.1 * math.log(max(factor, 1.0))
        out["rope.scaling.attn_factor"] = params.number("attention_factor") / own
    return out


def rope_factors(rope: Rope, head_dim: int) -> npt.NDArray[np.float32] | None:
    """`rope_freqs.weight`, what each frequency is divided by: float32 [head_dim / 2]; None for no factors.

    Llama 3.1's scaling (transformers, modeling_rope_utils.py, `_compute_llama3_parameters`), and Gemma 4's
    full attention, which rotates only the first part of the pairs.
    """
    if rope.kind == "proportional":
        n_pairs = head_dim // 2
        turning = int(head_dim * rope.partial_rotary_factor / 2)
        return np.array([1.0] * turning + [_UNROTATED] * (n_pairs - turning), np.float32)
    if rope.kind != "llama3":
        return None
    p = rope.params
    factor, low, high = p.number("factor"), p.number("low_freq_factor"), p.number("high_freq_factor")
    if not high > low or not factor > 0:
        raise p.error("high_freq_factor", "must be above low_freq_factor, and factor above 0")
    wavelength = 2 * math.pi * rope.theta ** (np.arange(0, head_dim, 2) / head_dim)
    turns = p.integer("original_max_position_embeddings") / wavelength
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
