"""Weights of attention, FFN and MoE blocks under their GGUF names, fused or separate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pintpot.errors import ModelFileError
from pintpot.kernels.api import (
    F32,
    Activation,
    AttentionWeights,
    FFNWeights,
    Gating,
    MoEWeights,
    Rope,
    TensorView,
)
from pintpot.models.rope import make_rope
from pintpot.spec import AttentionLayer, ModelSpec, MoEFFN, RopeSpec


class Tensors(Protocol):
    """The weights of a file by name.

    A tensor that is absent or misshapen raises ModelFileError, one of a type that cannot be computed with
    UnsupportedError; the `find_` methods answer None for an absent one.
    """

    def matrix(self, name: str, rows: int, cols: int, n_mats: int = 1) -> TensorView: ...

    def find_matrix(self, name: str, rows: int, cols: int, n_mats: int = 1) -> TensorView | None: ...

    def vector(self, name: str, *shape: int) -> F32: ...

    def find_vector(self, name: str, *shape: int) -> F32 | None: ...


@dataclass(frozen=True, slots=True)
class MoEStyle:
    """What differs between the MoE blocks of architectures."""

    gating: Gating = Gating.SOFTMAX
    normalize: bool = True
    activation: Activation = Activation.SILU
    biases: bool = False  # of router and experts


def attention_weights(
    spec: ModelSpec,
    layer: int,
    tensors: Tensors,
    *,
    qk_norm: bool,
    v_norm: bool = False,
    v_may_be_k: bool = False,
) -> AttentionWeights:
    """Softmax attention of `layer`: `attn_qkv` or `attn_q`, `attn_k`, `attn_v`, biases where present.

    A layer that reads another's cache has no k and v. `v_may_be_k`: without `attn_v`, v is k.
    """
    a = spec.layers[layer].mixer
    if not isinstance(a, AttentionLayer):
        raise TypeError(f"layer {layer} is no attention layer")
    p = f"blk.{layer}."
    wq, wk, wv = _qkv(spec, layer, a, tensors, v_may_be_k)
    owns_kv = a.kv_layer == layer
    bq, bk, bv = _qkv_bias(layer, wq.rows, wk.rows if wk else 0, wv.rows if wv else 0, tensors)
    return AttentionWeights(
        n_head=a.n_head,
        n_head_kv=a.n_head_kv,
        head_dim_k=a.head_dim_k,
        head_dim_v=a.head_dim_v,
        scale=a.scale,
        wq=wq,
        wk=wk,
        wv=wv,
        wo=tensors.matrix(f"{p}attn_output.weight", spec.n_embd, a.n_head * a.head_dim_v),
        rope=None if a.rope is None else _rope(a.rope, tensors),
        bq=bq,
        bk=bk,
        bv=bv,
        bo=tensors.find_vector(f"{p}attn_output.bias", spec.n_embd),
        q_norm=tensors.vector(f"{p}attn_q_norm.weight", a.head_dim_k) if qk_norm else None,
        k_norm=tensors.vector(f"{p}attn_k_norm.weight", a.head_dim_k) if qk_norm and owns_kv else None,
        v_norm=v_norm,
        norm_eps=spec.norm_eps,
        gated=a.gated,
        sinks=tensors.vector(f"{p}attn_sinks.weight", a.n_head) if a.sinks else None,
        window=a.window,
    )


def _qkv(
    spec: ModelSpec, layer: int, a: AttentionLayer, tensors: Tensors, v_may_be_k: bool
) -> tuple[TensorView, TensorView | None, TensorView | None]:
    p = f"blk.{layer}."
    n_q = a.n_head * a.head_dim_k * (2 if a.gated else 1)
    n_k, n_v = a.n_head_kv * a.head_dim_k, a.n_head_kv * a.head_dim_v
    owns_kv = a.kv_layer == layer
    fused = tensors.find_matrix(f"{p}attn_qkv.weight", n_q + n_k + n_v, spec.n_embd)
    if fused is not None:
        wk = fused.row_slice(n_q, n_q + n_k) if owns_kv else None
        wv = fused.row_slice(n_q + n_k, n_q + n_k + n_v) if owns_kv else None
        return fused.row_slice(0, n_q), wk, wv
    wq = tensors.matrix(f"{p}attn_q.weight", n_q, spec.n_embd)
    if not owns_kv:
        return wq, None, None
    wk = tensors.matrix(f"{p}attn_k.weight", n_k, spec.n_embd)
    get_v = tensors.find_matrix if v_may_be_k else tensors.matrix
    return wq, wk, get_v(f"{p}attn_v.weight", n_v, spec.n_embd)


def _rope(rope: RopeSpec, tensors: Tensors) -> Rope:
    if not rope.use_freq_factors:
        return make_rope(rope)
    factors = tensors.vector("rope_freqs.weight", rope.n_rot // 2)
    if not np.all(factors > 0):
        raise ModelFileError("tensor rope_freqs.weight: expected positive factors; the file is damaged")
    return make_rope(rope, factors)


def _qkv_bias(
    layer: int, n_q: int, n_k: int, n_v: int, tensors: Tensors
) -> tuple[F32 | None, F32 | None, F32 | None]:
    p = f"blk.{layer}."
    fused = tensors.find_vector(f"{p}attn_qkv.bias", n_q + n_k + n_v)
    if fused is not None:
        return fused[:n_q], fused[n_q : n_q + n_k], fused[n_q + n_k :]
    return (
        tensors.find_vector(f"{p}attn_q.bias", n_q),
        tensors.find_vector(f"{p}attn_k.bias", n_k) if n_k else None,
        tensors.find_vector(f"{p}attn_v.bias", n_v) if n_v else None,
    )


def dense_weights(
    n_embd: int,
    prefix: str,
    n_ff: int,
    tensors: Tensors,
    *,
    suffix: str = "",
    activation: Activation = Activation.SILU,
) -> FFNWeights:
    """`{prefix}gate{suffix}.weight`, `up`, `down`: a gated FFN."""
    return FFNWeights(
        gate=tensors.matrix(f"{prefix}gate{suffix}.weight", n_ff, n_embd),
        up=tensors.matrix(f"{prefix}up{suffix}.weight", n_ff, n_embd),
        down=tensors.matrix(f"{prefix}down{suffix}.weight", n_embd, n_ff),
        activation=activation,
    )


def moe_weights(spec: ModelSpec, layer: int, ffn: MoEFFN, tensors: Tensors, style: MoEStyle) -> MoEWeights:
    """Router and experts of `layer`, and the shared expert where the spec has one."""
    p = f"blk.{layer}.ffn_"
    n, n_ff, n_embd = ffn.n_expert, ffn.n_ff, spec.n_embd
    fused = tensors.find_matrix(f"{p}gate_up_exps.weight", 2 * n_ff, n_embd, n)
    if fused is not None:
        gate, up = fused.row_slice(0, n_ff), fused.row_slice(n_ff, 2 * n_ff)
    else:
        gate = tensors.matrix(f"{p}gate_exps.weight", n_ff, n_embd, n)
        up = tensors.matrix(f"{p}up_exps.weight", n_ff, n_embd, n)
    shared, shared_gate = None, None
    if ffn.n_ff_shared:
        shared = dense_weights(
            n_embd, p, ffn.n_ff_shared, tensors, suffix="_shexp", activation=style.activation
        )
        shared_gate = tensors.vector(f"{p}gate_inp_shexp.weight", n_embd)
    return MoEWeights(
        n_expert=n,
        n_expert_used=ffn.n_expert_used,
        gating=style.gating,
        normalize=style.normalize,
        router=tensors.matrix(f"{p}gate_inp.weight", n, n_embd),
        gate=gate,
        up=up,
        down=tensors.matrix(f"{p}down_exps.weight", n_embd, n_ff, n),
        activation=style.activation,
        router_bias=tensors.vector(f"{p}gate_inp.bias", n) if style.biases else None,
        gate_bias=tensors.vector(f"{p}gate_exps.bias", n, n_ff) if style.biases else None,
        up_bias=tensors.vector(f"{p}up_exps.bias", n, n_ff) if style.biases else None,
        down_bias=tensors.vector(f"{p}down_exps.bias", n, n_embd) if style.biases else None,
        down_scale=tensors.find_vector(f"{p}down_exps.scale", n),
        shared=shared,
        shared_gate=shared_gate,
    )
