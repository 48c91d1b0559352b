"""A ModelSpec that counts as a model does, for architectures this version cannot run.

What each layer keeps of a conversation, and the widths of a step, follow from the shape alone. Nothing runs
such a spec: positions are left out, and a layer that keeps a state is a `DeltaNetLayer` of the same bytes.
"""

from __future__ import annotations

from pintpot.spec import AttentionLayer, DeltaNetLayer, DenseFFN, LayerSpec, ModelSpec, MoEFFN
from pintpot.spec.shape import Shape
from pintpot.store.catalog import Entry


def spec_of(entry: Entry) -> ModelSpec:
    """The spec of the entry's files, or where the architecture does not run one that counts the same."""
    return entry.spec() if entry.runnable else counted_spec(entry.shape)


def counted_spec(shape: Shape) -> ModelSpec:
    """Layers, caches and states of a shape. Chunked attention (Llama 4) counts as full: an upper bound."""
    return ModelSpec(
        arch=shape.arch,
        name=shape.name,
        n_layer=shape.n_layer,
        n_layer_mtp=0,
        n_embd=shape.n_embd,
        n_vocab=shape.n_vocab,
        ctx_train=shape.ctx_train,
        norm_eps=shape.norm_eps,
        layers=tuple(LayerSpec(_mixer(shape, i), _ffn(shape, i)) for i in range(shape.n_layer)),
        tied_output=shape.tied,
    )


def _mixer(s: Shape, layer: int) -> AttentionLayer | DeltaNetLayer:
    letter = s.mixers[layer] if s.mixers else "A"
    if letter == "M" and s.mamba is not None:
        m = s.mamba
        return DeltaNetLayer(m.n_group, m.n_head, m.n_state, m.head_dim, m.conv_kernel)
    if letter == "C":  # the last inputs of the convolution, and no memory
        return DeltaNetLayer(0, 1, 0, s.n_embd, s.conv_kernel)
    if letter == "E":  # experts alone keep nothing
        return DeltaNetLayer(0, 0, 0, 0, 1)
    if s.is_delta(layer) and s.delta is not None:
        d = s.delta
        return DeltaNetLayer(d.n_head_k, d.n_head_v, d.head_dim, d.head_dim, d.conv_kernel)
    if s.latent is not None:  # llama.cpp keeps the latent and the rotated part once, as keys of one head
        return _attention(s, layer, n_head_kv=1, dim_k=s.latent.kv_rank + s.latent.rope_dim, dim_v=0)
    dim = s.layer_head_dim(layer)
    return _attention(s, layer, n_head_kv=s.layer_n_head_kv(layer), dim_k=dim, dim_v=dim)


def _attention(s: Shape, layer: int, *, n_head_kv: int, dim_k: int, dim_v: int) -> AttentionLayer:
    return AttentionLayer(
        n_head=s.n_head,
        n_head_kv=n_head_kv,
        head_dim_k=dim_k,
        head_dim_v=dim_v,
        rope=None,
        window=s.sliding.window if s.sliding is not None and s.is_sliding(layer) else None,
        scale=1.0,
        kv_layer=layer,
        gated=s.delta is not None,
    )


def _ffn(s: Shape, layer: int) -> DenseFFN | MoEFFN:
    e = s.experts
    if s.arch == "nemotron_h_moe" and s.mixers[layer] != "E":  # a layer is a mixer or experts, never both
        return DenseFFN(0)
    if e is None or layer < e.n_dense_lead:
        return DenseFFN(s.layer_n_ff(layer))
    return MoEFFN(e.n_expert, e.n_used, e.n_ff, e.n_ff_shared)
