"""GGUF metadata of a synthetic file: the keys llama.cpp's converters write for each architecture."""

from __future__ import annotations

from pintpot.spec.shape import Shape

MetadataValue = str | bool | int | float | list[str] | list[int] | list[bool]


def model_metadata(shape: Shape, file_type: int) -> dict[str, MetadataValue]:
    """`general.*` and `{arch}.*`. `file_type` is llama.cpp's `general.file_type` number."""
    a = shape.arch
    n_block = shape.n_layer + shape.n_mtp
    meta: dict[str, MetadataValue] = {
        "general.architecture": a,
        "general.type": "model",
        "general.name": shape.name,
        "general.description": "Random weights of a real shape; for measuring, not for answers",
        "general.file_type": file_type,
        "general.quantization_version": 2,
        f"{a}.block_count": n_block,
        f"{a}.context_length": shape.ctx_train,
        f"{a}.embedding_length": shape.n_embd,
        f"{a}.attention.head_count": shape.n_head,
        f"{a}.attention.head_count_kv": _heads_kv(shape),
        f"{a}.attention.key_length": shape.head_dim,
        f"{a}.attention.value_length": shape.head_dim,
        f"{a}.attention.layer_norm_rms_epsilon": float(shape.norm_eps),
        f"{a}.rope.freq_base": float(shape.rope_theta),
        f"{a}.rope.dimension_count": shape.rope_dim or shape.head_dim,
        f"{a}.vocab_size": shape.n_vocab,
    }
    widths = [shape.layer_n_ff(layer) for layer in range(shape.n_layer)] + [shape.n_ff] * shape.n_mtp
    if any(widths):
        meta[f"{a}.feed_forward_length"] = widths if len(set(widths)) > 1 else widths[0]
    if shape.rope_sections:
        meta[f"{a}.rope.dimension_sections"] = list(shape.rope_sections)
    if shape.n_mtp:
        meta[f"{a}.nextn_predict_layers"] = shape.n_mtp
    meta |= _rope_scaling(shape) | _experts(shape) | _delta(shape) | _sliding(shape)
    return meta


def _heads_kv(shape: Shape) -> int | list[int]:
    heads = [shape.layer_n_head_kv(layer) for layer in range(shape.n_layer)]
    return heads if len(set(heads)) > 1 else heads[0]


def _rope_scaling(shape: Shape) -> dict[str, MetadataValue]:
    scaling, a = shape.rope_scaling, shape.arch
    if scaling is None:
        return {}
    meta: dict[str, MetadataValue] = {
        f"{a}.rope.scaling.type": scaling.kind,
        f"{a}.rope.scaling.factor": float(scaling.factor),
        f"{a}.rope.scaling.original_context_length": scaling.original_ctx,
    }
    if scaling.attn_factor != 1.0:
        meta[f"{a}.rope.scaling.attn_factor"] = float(scaling.attn_factor)
    return meta


def _experts(shape: Shape) -> dict[str, MetadataValue]:
    e, a = shape.experts, shape.arch
    if e is None:
        return {}
    meta: dict[str, MetadataValue] = {f"{a}.expert_count": e.n_expert, f"{a}.expert_used_count": e.n_used}
    if a == "llama":
        meta[f"{a}.feed_forward_length"] = e.n_ff
    else:
        meta[f"{a}.expert_feed_forward_length"] = e.n_ff
    if e.n_ff_shared:
        meta[f"{a}.expert_shared_feed_forward_length"] = e.n_ff_shared
    return meta


def _delta(shape: Shape) -> dict[str, MetadataValue]:
    d, a = shape.delta, shape.arch
    if d is None:
        return {}
    return {
        f"{a}.ssm.conv_kernel": d.conv_kernel,
        f"{a}.ssm.state_size": d.head_dim,
        f"{a}.ssm.group_count": d.n_head_k,
        f"{a}.ssm.time_step_rank": d.n_head_v,
        f"{a}.ssm.inner_size": d.value_dim,
        f"{a}.full_attention_interval": d.full_interval,
    }


def _sliding(shape: Shape) -> dict[str, MetadataValue]:
    w, a = shape.sliding, shape.arch
    if w is None:
        return {}
    meta: dict[str, MetadataValue] = {f"{a}.attention.sliding_window": w.window}
    if a != "gemma4":
        return meta
    per_layer = shape.per_layer
    meta |= {
        f"{a}.attention.sliding_window_pattern": [shape.is_sliding(i) for i in range(shape.n_layer)],
        f"{a}.attention.key_length_swa": w.head_dim,
        f"{a}.attention.value_length_swa": w.head_dim,
        f"{a}.attention.shared_kv_layers": 0 if per_layer is None else per_layer.n_kv_shared,
        f"{a}.embedding_length_per_layer_input": 0 if per_layer is None else per_layer.n_embd,
        f"{a}.rope.freq_base_swa": float(w.rope_theta),
        f"{a}.rope.dimension_count_swa": w.head_dim,
        f"{a}.final_logit_softcapping": float(shape.logit_softcap),
    }
    return meta
