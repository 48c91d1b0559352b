"""What a layer is: the values a ModelSpec is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RopeStyle(StrEnum):
    """Which two values of a head rotate together."""

    INTERLEAVED = "interleaved"  # (2i, 2i+1): llama
    NEOX = "neox"  # (i, i + n_rot/2): everything else here


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Context extension as the file asks for it (`{arch}.rope.scaling.*`)."""

    kind: str  # "linear" | "yarn"
    factor: float
    original_ctx: int
    attn_factor: float = 1.0  # multiplies cos and sin, on top of YaRN's own 1 + 0.1 ln(factor)


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of one layer. `n_rot` leading values of each head rotate."""

    theta: float
    n_rot: int
    style: RopeStyle
    scaling: RopeScaling | None = None
    use_freq_factors: bool = False  # divide frequencies by the `rope_freqs.weight` tensor
    sections: tuple[int, ...] = ()  # mrope; text positions are equal in every section but the fourth (0)


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """Softmax attention. `window` counts the tokens a query sees, itself included; None: all of them."""

    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    rope: RopeSpec | None
    window: int | None
    scale: float  # multiplies q.k
    kv_layer: int  # the layer whose KV cache is read: its own index unless shared (Gemma 4)
    gated: bool = False  # q carries a sigmoid output gate (Qwen 3.5)
    sinks: bool = False  # a learned logit per head joins the softmax (gpt-oss)


@dataclass(frozen=True, slots=True)
class DeltaNetLayer:
    """Gated delta net (Yang et al. 2024) as Qwen 3.5 uses it."""

    n_head_k: int
    n_head_v: int
    head_dim_k: int
    head_dim_v: int
    conv_kernel: int

    @property
    def conv_dim(self) -> int:
        """Channels of the causal convolution: q, k and v together."""
        return 2 * self.n_head_k * self.head_dim_k + self.n_head_v * self.head_dim_v


@dataclass(frozen=True, slots=True)
class DenseFFN:
    n_ff: int


@dataclass(frozen=True, slots=True)
class MoEFFN:
    n_expert: int
    n_expert_used: int
    n_ff: int  # of one routed expert
    n_ff_shared: int = 0  # of the shared expert; 0: none
    n_ff_dense: int = 0  # of a dense FFN beside the experts (Gemma 4 26B-A4B); 0: none


@dataclass(frozen=True, slots=True)
class LayerSpec:
    mixer: AttentionLayer | DeltaNetLayer
    ffn: DenseFFN | MoEFFN
