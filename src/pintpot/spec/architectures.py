"""From metadata keys to layers, one function per architecture.

Keys and defaults are llama.cpp's (llama-model.cpp and models/*.cpp), which the files are written for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from pintpot.errors import UnsupportedError
from pintpot.gguf.metadata import show
from pintpot.spec.keys import Keys
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

MAX_LAYERS: Final = 512  # llama.cpp's limit
_MAX_HEADS: Final = 1 << 12
_MAX_HEAD_DIM: Final = 1 << 13
_MAX_EXPERTS: Final = 1 << 12
_MAX_CTX: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Common:
    """What every architecture states the same way. Tuples have an entry for every layer, MTP included."""

    n_layer: int
    n_layer_mtp: int
    n_embd: int
    ctx_train: int
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    head_dim_k: int
    head_dim_v: int
    rope: RopeSpec

    @property
    def n_layer_all(self) -> int:
        return self.n_layer + self.n_layer_mtp


def read_common(keys: Keys) -> Common:
    """Raises ModelFileError for a key that is missing or impossible."""
    n_all = keys.integer("block_count", high=MAX_LAYERS)
    n_mtp = keys.integer("nextn_predict_layers", 0, low=0, high=n_all - 1)
    n_embd = keys.integer("embedding_length")
    ctx_train = keys.integer("context_length", high=_MAX_CTX)
    n_head = keys.per_layer("attention.head_count", n_all, high=_MAX_HEADS)
    n_head_kv = keys.per_layer("attention.head_count_kv", n_all, n_head, low=0, high=_MAX_HEADS)
    default_dim = max(n_embd // n_head[0], 1)
    head_dim_k = keys.integer("attention.key_length", default_dim, high=_MAX_HEAD_DIM)
    head_dim_v = keys.integer("attention.value_length", default_dim, high=_MAX_HEAD_DIM)
    rope = RopeSpec(
        theta=_theta(keys, "rope.freq_base", 10000.0),
        n_rot=_n_rot(keys, "rope.dimension_count", head_dim_k, head_dim_k),
        style=RopeStyle.NEOX,
        scaling=_scaling(keys, ctx_train),
    )
    return Common(
        n_layer=n_all - n_mtp,
        n_layer_mtp=n_mtp,
        n_embd=n_embd,
        ctx_train=ctx_train,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim_k=head_dim_k,
        head_dim_v=head_dim_v,
        rope=rope,
    )


def _theta(keys: Keys, key: str, default: float) -> float:
    return keys.number(key, default, low=1.001, high=1e15)


def _n_rot(keys: Keys, key: str, default: int, head_dim: int) -> int:
    n_rot = keys.integer(key, default, low=2, high=max(head_dim, 2))
    if n_rot % 2 or n_rot > head_dim:
        raise keys.error(key, f"is {n_rot}, expected an even number up to the head size of {head_dim}")
    return n_rot


def _scaling(keys: Keys, ctx_train: int) -> RopeScaling | None:
    """What llama.cpp reads of `rope.scaling` for these architectures.

    Converters also write `yarn_ext_factor`, `yarn_attn_factor`, `yarn_beta_fast` and `yarn_beta_slow`, which
    llama.cpp reads for other architectures alone; what they say is not followed here either.
    """
    kind = keys.string("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise UnsupportedError(
            f"{keys.file.path}: metadata key {keys.arch}.rope.scaling.type is {show(kind)}, this version can"
            " scale RoPE by linear and yarn"
        )
    key = "rope.scaling.factor" if "rope.scaling.factor" in keys else "rope.scale_linear"
    factor = keys.number(key, 0.0, high=1e6) or 1.0  # 0 stands for none
    if factor < 1e-6:
        raise keys.error(key, f"is {factor}, expected a factor of context extension")
    attn_factor = keys.number("rope.scaling.attn_factor", 1.0, high=1e6)
    if kind == "none":  # the factor of cos and sin counts all the same
        kind, factor = "linear", 1.0
    if kind == "linear" and factor == 1.0 and attn_factor == 1.0:
        return None
    original_ctx = keys.integer("rope.scaling.original_context_length", 0, low=0, high=_MAX_CTX)
    return RopeScaling(kind, factor, original_ctx or ctx_train, attn_factor)


def _attention(keys: Keys, c: Common, layer: int, rope: RopeSpec) -> AttentionLayer:
    n_head, n_head_kv = c.n_head[layer], c.n_head_kv[layer]
    if n_head_kv == 0 or n_head % n_head_kv:
        raise keys.error(
            "attention.head_count_kv", f"is {n_head_kv} in layer {layer}, no divisor of its {n_head} heads"
        )
    return AttentionLayer(
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim_k=c.head_dim_k,
        head_dim_v=c.head_dim_v,
        rope=rope,
        window=None,
        scale=c.head_dim_k**-0.5,
        kv_layer=layer,
    )


def _dense(keys: Keys, c: Common) -> list[DenseFFN | MoEFFN]:
    widths = keys.per_layer("feed_forward_length", c.n_layer_all)
    return [DenseFFN(n_ff) for n_ff in widths[: c.n_layer]]


def _experts(keys: Keys, c: Common, *, shared: bool = False) -> list[DenseFFN | MoEFFN]:
    """MoE in every layer; an expert's width defaults to its share of feed_forward_length."""
    n_expert = keys.integer("expert_count", high=_MAX_EXPERTS)
    used = keys.per_layer("expert_used_count", c.n_layer_all, high=n_expert)
    if "expert_feed_forward_length" in keys:
        widths = keys.per_layer("expert_feed_forward_length", c.n_layer_all)
    else:
        total = keys.per_layer("feed_forward_length", c.n_layer_all)
        widths = tuple(max(n_ff // k, 1) for n_ff, k in zip(total, used, strict=True))
    n_ff_shared = 0
    if shared:
        key = "expert_shared_feed_forward_length"
        n_ff_shared = keys.integer(key if key in keys else "feed_forward_length")
    return [
        MoEFFN(n_expert=n_expert, n_expert_used=used[i], n_ff=widths[i], n_ff_shared=n_ff_shared)
        for i in range(c.n_layer)
    ]


def _plain(keys: Keys, c: Common, rope: RopeSpec, ffns: list[DenseFFN | MoEFFN]) -> list[LayerSpec]:
    return [LayerSpec(_attention(keys, c, i, rope), ffns[i]) for i in range(c.n_layer)]


def llama(keys: Keys, c: Common) -> list[LayerSpec]:
    """Llama 1 to 3, Mistral, and Mixtral, whose experts are as wide as feed_forward_length says."""
    rope = replace(
        c.rope,
        style=RopeStyle.INTERLEAVED,
        use_freq_factors="rope_freqs.weight" in keys.file.tensors,
    )
    n_expert = keys.integer("expert_count", 0, low=0, high=_MAX_EXPERTS)
    if n_expert == 0:
        return _plain(keys, c, rope, _dense(keys, c))
    used = keys.per_layer("expert_used_count", c.n_layer_all, high=n_expert)
    widths = keys.per_layer("feed_forward_length", c.n_layer_all)
    ffns: list[DenseFFN | MoEFFN] = [MoEFFN(n_expert, used[i], widths[i]) for i in range(c.n_layer)]
    return _plain(keys, c, rope, ffns)


def qwen2(keys: Keys, c: Common) -> list[LayerSpec]:
    """Qwen 2, 2.5 and the dense Qwen 3."""
    return _plain(keys, c, c.rope, _dense(keys, c))


def qwen3moe(keys: Keys, c: Common) -> list[LayerSpec]:
    return _plain(keys, c, c.rope, _experts(keys, c))


def qwen35(keys: Keys, c: Common) -> list[LayerSpec]:
    return _qwen35(keys, c, _dense(keys, c))


def qwen35moe(keys: Keys, c: Common) -> list[LayerSpec]:
    return _qwen35(keys, c, _experts(keys, c, shared=True))


def _qwen35(keys: Keys, c: Common, ffns: list[DenseFFN | MoEFFN]) -> list[LayerSpec]:
    sections = keys.integers("rope.dimension_sections", (3, 4))
    if sum(sections) > c.rope.n_rot:
        raise keys.error("rope.dimension_sections", f"add up to more than the {c.rope.n_rot} rotated values")
    rope = replace(c.rope, sections=sections if any(sections) else ())
    delta_net = _delta_net(keys)
    if "attention.recurrent_layers" in keys:
        recurrent = keys.per_layer("attention.recurrent_layers", c.n_layer_all, low=0, high=1)
    else:
        interval = keys.integer("full_attention_interval", 4)
        recurrent = tuple(int((i + 1) % interval != 0) for i in range(c.n_layer_all))
    return [
        LayerSpec(
            delta_net if recurrent[i] else replace(_attention(keys, c, i, rope), gated=True),
            ffns[i],
        )
        for i in range(c.n_layer)
    ]


def _delta_net(keys: Keys) -> DeltaNetLayer:
    """The state space keys as Qwen 3.5 files use them: groups are key heads, time steps value heads."""
    state = keys.integer("ssm.state_size", high=_MAX_HEAD_DIM)
    n_head_k = keys.integer("ssm.group_count", high=_MAX_HEADS)
    n_head_v = keys.integer("ssm.time_step_rank", high=_MAX_HEADS)
    inner = keys.integer("ssm.inner_size")
    if inner != state * n_head_v:
        raise keys.error("ssm.inner_size", f"is {inner}, expected {n_head_v} heads of {state}")
    if n_head_v % n_head_k:
        raise keys.error("ssm.group_count", f"is {n_head_k}, no divisor of the {n_head_v} value heads")
    return DeltaNetLayer(
        n_head_k=n_head_k,
        n_head_v=n_head_v,
        head_dim_k=state,
        head_dim_v=state,
        conv_kernel=keys.integer("ssm.conv_kernel", low=2, high=64),
    )


def gemma4(keys: Keys, c: Common) -> list[LayerSpec]:
    """Windowed and full layers differ in head size and RoPE; the last layers read an earlier one's cache."""
    key = "attention.sliding_window_pattern"
    windowed = keys.per_layer(key, c.n_layer_all, low=0, high=1)
    window = keys.integer("attention.sliding_window", high=_MAX_CTX)
    dim_k = keys.integer("attention.key_length_swa", high=_MAX_HEAD_DIM)
    dim_v = keys.integer("attention.value_length_swa", high=_MAX_HEAD_DIM)
    if dim_k != dim_v or c.head_dim_k != c.head_dim_v:
        raise keys.error("attention.value_length", "and value_length_swa must equal those of the keys")
    full_rope = replace(c.rope, use_freq_factors="rope_freqs.weight" in keys.file.tensors)
    swa_rope = replace(
        c.rope,
        theta=_theta(keys, "rope.freq_base_swa", 10000.0),
        n_rot=_n_rot(keys, "rope.dimension_count_swa", min(c.rope.n_rot, dim_k), dim_k),
        scaling=_unstretched(c.rope.scaling),
    )
    shared = keys.integer("attention.shared_kv_layers", 0, low=0, high=c.n_layer - 1)
    ffns = _gemma4_ffns(keys, c)
    layers: list[LayerSpec] = []
    for i in range(c.n_layer):
        attention = replace(_attention(keys, c, i, full_rope), scale=1.0)
        if windowed[i]:
            attention = replace(attention, head_dim_k=dim_k, head_dim_v=dim_v, rope=swa_rope, window=window)
        if i >= c.n_layer - shared:
            attention = _reading_earlier(keys, attention, layers[: c.n_layer - shared])
        layers.append(LayerSpec(attention, ffns[i]))
    return layers


def _unstretched(scaling: RopeScaling | None) -> RopeScaling | None:
    """Of a scaling, what still holds in windowed layers: the factor of cos and sin."""
    if scaling is None or scaling.attn_factor == 1.0:
        return None
    return RopeScaling("linear", 1.0, scaling.original_ctx, scaling.attn_factor)


def _reading_earlier(keys: Keys, attention: AttentionLayer, owners: list[LayerSpec]) -> AttentionLayer:
    """`attention` with the KV cache of the last layer before it that has one of its kind."""
    for layer in reversed(owners):
        owner = layer.mixer
        if isinstance(owner, AttentionLayer) and owner.window == attention.window:
            if owner.n_head_kv != attention.n_head_kv:
                raise keys.error(
                    "attention.head_count_kv",
                    f"is {attention.n_head_kv} in a layer that shares the cache of {owner.n_head_kv} heads",
                )
            return replace(attention, kv_layer=owner.kv_layer)
    raise keys.error("attention.shared_kv_layers", "leaves no earlier layer of the same kind to read from")


def _gemma4_ffns(keys: Keys, c: Common) -> list[DenseFFN | MoEFFN]:
    ffns = _dense(keys, c)
    routed = [i for i in range(c.n_layer) if f"blk.{i}.ffn_gate_inp.weight" in keys.file.tensors]
    if not routed:
        return ffns
    n_expert = keys.integer("expert_count", high=_MAX_EXPERTS)
    used = keys.per_layer("expert_used_count", c.n_layer_all, high=n_expert)
    widths = keys.per_layer("expert_feed_forward_length", c.n_layer_all)
    for i in routed:
        dense = ffns[i].n_ff
        ffns[i] = MoEFFN(n_expert, used[i], widths[i], n_ff_dense=dense)
    return ffns


def gpt_oss(keys: Keys, c: Common) -> list[LayerSpec]:
    """Every second layer windowed unless the file says otherwise; YaRN in all of them."""
    key = "attention.sliding_window_pattern"
    window = keys.integer("attention.sliding_window", high=_MAX_CTX)
    if key in keys and keys.is_array(key):
        windowed = keys.per_layer(key, c.n_layer_all, low=0, high=1)
    else:
        period = keys.integer(key, 2, low=0)
        windowed = tuple(int(period == 0 or i % period < period - 1) for i in range(c.n_layer_all))
    swa_rope = replace(c.rope, theta=_theta(keys, "rope.freq_base_swa", c.rope.theta))
    keys.per_layer("expert_feed_forward_length", c.n_layer_all)  # required: there is no other width
    ffns = _experts(keys, c)
    layers: list[LayerSpec] = []
    for i in range(c.n_layer):
        attention = _attention(keys, c, i, swa_rope if windowed[i] else c.rope)
        attention = replace(attention, sinks=True, window=window if windowed[i] else None)
        layers.append(LayerSpec(attention, ffns[i]))
    return layers


ARCHITECTURES: Final = MappingProxyType[str, Callable[[Keys, Common], list[LayerSpec]]](
    {
        "llama": llama,
        "qwen2": qwen2,
        "qwen3": qwen2,
        "qwen3moe": qwen3moe,
        "qwen35": qwen35,
        "qwen35moe": qwen35moe,
        "gemma4": gemma4,
        "gpt-oss": gpt_oss,
    }
)
SUPPORTED_ARCHITECTURES: Final = tuple(ARCHITECTURES)
