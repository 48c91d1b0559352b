"""Shape: the few numbers that decide which tensors and which metadata a model file has.

`pintpot.store.catalog` has them for published models, `pintpot.synth` for toys; `ModelSpec` is what a
file says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pintpot.errors import UsageError
from pintpot.spec.layers import RopeScaling


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts; `n_ff` is of one routed expert, `n_ff_shared` of all shared ones (0: none)."""

    n_expert: int
    n_used: int
    n_ff: int
    n_ff_shared: int = 0
    n_dense_lead: int = 0  # first layers that have a dense FFN instead


@dataclass(frozen=True, slots=True)
class DeltaNet:
    """Gated delta net layers; every `full_interval`-th layer is softmax attention instead."""

    n_head_k: int
    n_head_v: int
    head_dim: int
    conv_kernel: int = 4
    full_interval: int = 4

    @property
    def value_dim(self) -> int:
        return self.n_head_v * self.head_dim

    @property
    def conv_dim(self) -> int:
        return 2 * self.n_head_k * self.head_dim + self.value_dim


@dataclass(frozen=True, slots=True)
class Sliding:
    """Sliding-window layers; every `every`-th layer attends to everything. Zeros: as the full layers."""

    window: int
    every: int
    n_head_kv: int = 0
    head_dim: int = 0
    rope_theta: float = 0.0


@dataclass(frozen=True, slots=True)
class PerLayerEmbedding:
    """Gemma 4 E2B/E4B: per-layer token embeddings, and KV caches shared by the last layers."""

    n_embd: int
    n_kv_shared: int
    double_wide: bool = False  # layers that share a cache have an FFN twice as wide


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek V2): queries and keys/values from low-rank latents."""

    kv_rank: int
    nope_dim: int  # of a head's key: without position, and
    rope_dim: int  # with
    value_dim: int
    q_rank: int = 0  # 0: queries are projected directly


@dataclass(frozen=True, slots=True)
class Mamba2:
    """State space layers (Dao and Gu 2024)."""

    n_head: int
    head_dim: int
    n_state: int
    n_group: int
    conv_kernel: int = 4

    @property
    def inner_dim(self) -> int:
        return self.n_head * self.head_dim

    @property
    def conv_dim(self) -> int:
        return self.inner_dim + 2 * self.n_group * self.n_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's dimensions and options. `arch` is GGUF's `general.architecture`."""

    arch: str
    name: str
    n_layer: int
    n_embd: int
    n_vocab: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    ctx_train: int
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_dim: int = 0  # 0: the whole head
    rope_sections: tuple[int, ...] = ()
    rope_scaling: RopeScaling | None = None
    llama3_ctx: int = 0  # original context of Llama 3.1's frequency factors (rope_freqs.weight); 0: none
    llama3_factor: float = 8.0
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    experts: Experts | None = None
    delta: DeltaNet | None = None
    sliding: Sliding | None = None
    per_layer: PerLayerEmbedding | None = None
    k_eq_v: bool = False  # Gemma 4 31B and 26B: full-attention layers have no v projection
    logit_softcap: float = 0.0
    # What only architectures have that this version cannot run (store.inventory)
    latent: LatentAttention | None = None
    mamba: Mamba2 | None = None
    conv_kernel: int = 0  # of short convolution layers (LFM2)
    mixers: str = ""  # a letter a layer: A attention, M Mamba 2, C convolution, E experts alone; "": all A
    n_mtp: int = 0  # multi-token prediction layers appended (present in files, not run)
    fused_qkv: bool = False
    fused_gate_up: bool = False
    router_std: float = 2.0  # deviation of the router's logits
    n_topic: int = 64  # groups of tokens that favour the same experts, and groups within these (weights.py)
    n_local: int = 16

    def with_layers(self, n_layer: int) -> Shape:
        """The same model cut to `n_layer` layers, which keeps a KV-sharing model consistent."""
        if n_layer < 1:
            raise UsageError(f"--layers {n_layer}: a model has at least 1 layer")
        per_layer = self.per_layer
        if per_layer is not None and self.sliding is not None and per_layer.n_kv_shared:
            every = self.sliding.every
            own_share = (self.n_layer - per_layer.n_kv_shared) / self.n_layer
            own = max(every, round(own_share * n_layer / every) * every)
            per_layer = replace(per_layer, n_kv_shared=max(0, n_layer - own))
        return replace(self, n_layer=n_layer, per_layer=per_layer)

    def is_delta(self, layer: int) -> bool:
        """Whether a layer is a gated delta net; MTP layers never are."""
        if self.delta is None or layer >= self.n_layer:
            return False
        return (layer + 1) % self.delta.full_interval != 0

    def is_sliding(self, layer: int) -> bool:
        return self.sliding is not None and (layer + 1) % self.sliding.every != 0

    def layer_head_dim(self, layer: int) -> int:
        if self.sliding is not None and self.is_sliding(layer) and self.sliding.head_dim:
            return self.sliding.head_dim
        return self.head_dim

    def layer_n_head_kv(self, layer: int) -> int:
        if self.sliding is not None and self.is_sliding(layer) and self.sliding.n_head_kv:
            return self.sliding.n_head_kv
        return self.n_head_kv

    def has_kv(self, layer: int) -> bool:
        """Whether a layer computes its own keys and values."""
        return self.per_layer is None or layer < self.n_layer - self.per_layer.n_kv_shared

    def layer_n_ff(self, layer: int) -> int:
        wide = self.per_layer is not None and self.per_layer.double_wide and not self.has_kv(layer)
        return self.n_ff * 2 if wide else self.n_ff
