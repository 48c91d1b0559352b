"""From what a file says about rotary embeddings to the frequencies that kernels use."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.kernels.api import F32, Rope
from pintpot.spec import RopeScaling, RopeSpec, RopeStyle

F64: TypeAlias = npt.NDArray[np.float64]

# YaRN: pairs that turn more often within the trained context keep their frequency, those that turn less are
# interpolated. The paper's values, and for these architectures llama.cpp's only ones.
_BETA_FAST = 32.0
_BETA_SLOW = 1.0


def make_rope(spec: RopeSpec, freq_factors: F32 | None = None) -> Rope:
    """The rotation of one layer, every scaling folded in.

    `freq_factors`: the values of `rope_freqs.weight`, float32 [n_rot/2]; they divide the frequencies
    (Llama 3's long-context factors; 1e30 for the values Gemma 4 leaves unrotated).
    """
    pairs = np.arange(spec.n_rot // 2, dtype=np.float64)
    inv_freq = spec.theta ** (-2.0 * pairs / spec.n_rot)
    if freq_factors is not None:
        inv_freq = inv_freq / freq_factors.astype(np.float64)
    mscale = 1.0
    if spec.scaling is not None:
        inv_freq, mscale = _scaled(inv_freq, pairs, spec, spec.scaling)
    if any(spec.sections):
        inv_freq = np.where(_has_text_position(spec.sections, len(pairs)), inv_freq, 0.0)
    return Rope(inv_freq.astype(np.float32), spec.style is RopeStyle.INTERLEAVED, mscale)


def _scaled(
    inv_freq: F64,
    pairs: F64,
    spec: RopeSpec,
    scaling: RopeScaling,
) -> tuple[F64, float]:
    """Linear interpolation, or YaRN (Peng et al. 2023, arXiv:2309.00071, equations 17-22)."""
    interpolated = inv_freq / scaling.factor
    if scaling.kind != "yarn":
        return interpolated, scaling.attn_factor
    low = max(0.0, math.floor(_pair_turning(_BETA_FAST, spec, scaling)))
    high = min(spec.n_rot - 1.0, math.ceil(_pair_turning(_BETA_SLOW, spec, scaling)))
    # 1: keeps its frequency (turns often within the trained context), 0: interpolated
    kept = 1.0 - np.clip((pairs - low) / max(0.001, high - low), 0.0, 1.0)
    mscale = scaling.attn_factor * (1.0 + 0.1 * math.log(max(scaling.factor, 1.0)))
    return interpolated * (1.0 - kept) + inv_freq * kept, mscale


def _pair_turning(turns: float, spec: RopeSpec, scaling: RopeScaling) -> float:
    """The (fractional) pair that turns `turns` times within the original context."""
    return spec.n_rot * math.log(scaling.original_ctx / (turns * 2 * math.pi)) / (2 * math.log(spec.theta))


def _has_text_position(sections: tuple[int, ...], n_pairs: int) -> npt.NDArray[np.bool_]:
    """Which pairs turn for text under Qwen's interleaved mrope.

    Time, height and width take pairs 0, 1, 2 modulo 3 as long as their section lasts, and text has the same
    position in all three; the remaining pairs belong to a fourth position, which is 0 for text.
    """
    pair = np.arange(n_pairs) % sum(sections)
    lengths = np.array([*sections, 0, 0, 0][:3])
    return pair < 3 * lengths[pair % 3]
