"""`transformers` weights and configurations under their GGUF names and in their GGUF layout.

Facts from llama.cpp's conversion scripts. What changes besides names: Llama's q and k rows are reordered for
interleaved RoPE; Qwen 3.5 adds 1 to its norms, stores -exp(A_log), and tiles the value heads over the key
heads; gpt-oss's gate and up rows alternate; experts are stacked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = np.ndarray[Any, np.dtype[np.float32]]
Named = Iterator[tuple[str, Values]]


@dataclass(frozen=True)
class Converted:
    """`metadata` without the tokenizer; tensors float32, outermost dimension first."""

    metadata: dict[str, Any]
    tensors: dict[str, Values]


LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.sinks": "attn_sinks",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp",
    "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.out_proj": "ssm_out",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.conv1d": "ssm_conv1d",
    # Gemma 4
    "experts.down_proj": "ffn_down_exps",
    "router.proj": "ffn_gate_inp",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "post_feedforward_layernorm_1": "post_ffw_norm_1",
    "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
    "layer_scalar": "layer_output_scale",
}
TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "model.embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "model.per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "model.per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
}
PRE_FFN_NORM_IS_POST_ATTENTION = ("qwen3_5_text", "qwen3_5_moe_text", "gpt_oss", "gemma4_text")
ARCHS = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "qwen3_5_text": "qwen35",
    "qwen3_5_moe_text": "qwen35moe",
    "gemma4_text": "gemma4",
    "gpt_oss": "gpt-oss",
}


def convert(model: Any, *, fuse: bool = False) -> Converted:
    """`fuse`: gate and up experts as one tensor, and q, k, v as one where a layer has all three."""
    config = model.config
    tensors: dict[str, Values] = {}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        value = parameter.detach().float().numpy()
        if name in TOP_NAMES:
            tensors[TOP_NAMES[name]] = _qwen35_norm(name, value, config)
            continue
        _, _, index, rest = name.split(".", 3)
        for suffix, converted in _layer_tensor(rest, value, config):
            tensors[f"blk.{index}.{suffix}"] = np.ascontiguousarray(converted, np.float32)
    if fuse:
        _fuse(tensors, config.num_hidden_layers)
    factors = _rope_factors(config)
    if factors is not None:
        tensors["rope_freqs.weight"] = factors
    arch = ARCHS[config.model_type]
    metadata = {f"{arch}.{key}": value for key, value in _hyperparameters(config).items()}
    metadata["general.architecture"] = arch
    metadata["general.name"] = f"tiny {config.model_type}"
    return Converted(metadata, tensors)


def interleave_rope(rows: Values, n_head: int) -> Values:
    """Rows of q or k from (x_0 .. x_n/2, y_0 ..) to (x_0, y_0, x_1, y_1 ..) within each head."""
    return rows.reshape(n_head, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def tile_value_heads(values: Values, n_head_k: int, n_head_v: int, axis: int = 0) -> Values:
    """From value heads grouped by key head to value head h belonging to key head h % n_head_k."""
    shape = values.shape
    split = (*shape[:axis], n_head_k, n_head_v // n_head_k, -1, *shape[axis + 1 :])
    return values.reshape(split).swapaxes(axis, axis + 1).reshape(shape)


def _layer_tensor(name: str, value: Values, config: Any) -> Named:
    kind = config.model_type
    if kind in ("qwen3_5_text", "qwen3_5_moe_text"):
        value = _qwen35_norm(name, value, config)
        value = _qwen35_heads(name, value, config)
    if name == "linear_attn.A_log":
        yield "ssm_a", -np.exp(value)
        return
    if name == "linear_attn.dt_bias":
        yield "ssm_dt.bias", value
        return
    if name == "router.scale":
        yield "ffn_gate_inp.scale", value
        return
    if name == "router.per_expert_scale":
        yield "ffn_down_exps.scale", value
        return
    if "experts.gate_up_proj" in name:
        yield from _gate_up(name, value, config)
        return
    if kind == "gpt_oss" and name == "mlp.experts.down_proj":
        value = value.swapaxes(-1, -2)
    if name == "mlp.experts.down_proj_bias":
        yield "ffn_down_exps.bias", value
        return
    if name == "post_attention_layernorm.weight":
        late = kind in PRE_FFN_NORM_IS_POST_ATTENTION
        yield ("post_attention_norm.weight" if late else "ffn_norm.weight"), value
        return
    stem, _, ending = name.rpartition(".")
    if ending not in ("weight", "bias"):
        stem, ending = name, "weight"
    if kind in ("llama", "mistral", "mixtral") and stem in ("self_attn.q_proj", "self_attn.k_proj"):
        heads = config.num_attention_heads if "q_proj" in stem else config.num_key_value_heads
        value = interleave_rope(value, heads)
    if stem in ("linear_attn.conv1d", "mlp.shared_expert_gate"):
        value = value.squeeze()
    yield f"{LAYER_NAMES[stem]}.{ending}", value


def _gate_up(name: str, value: Values, config: Any) -> Named:
    ending = "bias" if name.endswith("_bias") else "weight"
    if config.model_type == "gpt_oss":  # alternating along the output
        if ending == "weight":
            value = value.swapaxes(-1, -2)
        gate, up = value[:, ::2], value[:, 1::2]
    else:
        gate, up = np.split(value, 2, axis=1)
    yield f"ffn_gate_exps.{ending}", gate
    yield f"ffn_up_exps.{ending}", up


def _qwen35_norm(name: str, value: Values, config: Any) -> Values:
    """Its RMSNorm multiplies by 1 + weight, the gated one inside the delta net by weight."""
    is_qwen35 = config.model_type in ("qwen3_5_text", "qwen3_5_moe_text")
    if is_qwen35 and name.endswith("norm.weight") and not name.startswith("linear_attn."):
        return value + 1
    return value


def _qwen35_heads(name: str, value: Values, config: Any) -> Values:
    if not name.startswith("linear_attn.") or name.endswith("norm.weight"):
        return value
    n_k, n_v = config.linear_num_key_heads, config.linear_num_value_heads
    if name.endswith("out_proj.weight"):
        return tile_value_heads(value, n_k, n_v, axis=1)
    if "in_proj_qkv" in name or "conv1d" in name:
        qk = 2 * n_k * config.linear_key_head_dim
        return np.concatenate((value[:qk], tile_value_heads(value[qk:], n_k, n_v)))
    return tile_value_heads(value, n_k, n_v)


def _fuse(tensors: dict[str, Values], n_layer: int) -> None:
    for i in range(n_layer):
        p = f"blk.{i}."
        for parts, fused, axis in (
            ((f"{p}attn_q.weight", f"{p}attn_k.weight", f"{p}attn_v.weight"), f"{p}attn_qkv.weight", 0),
            ((f"{p}attn_q.bias", f"{p}attn_k.bias", f"{p}attn_v.bias"), f"{p}attn_qkv.bias", 0),
            ((f"{p}ffn_gate_exps.weight", f"{p}ffn_up_exps.weight"), f"{p}ffn_gate_up_exps.weight", 1),
        ):
            if all(part in tensors for part in parts):
                tensors[fused] = np.concatenate([tensors.pop(part) for part in parts], axis=axis)


def _rope(config: Any) -> dict[str, Any]:
    """The RoPE of full attention layers."""
    rope = config.rope_parameters
    return dict(rope.get("full_attention", rope))


def _rope_factors(config: Any) -> Values | None:
    rope = _rope(config)
    if rope["rope_type"] == "llama3":
        dim = config.head_dim
        wavelength = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, dim, 2) / dim)
        low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
        turns = rope["original_max_position_embeddings"] / wavelength
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
    if rope["rope_type"] == "proportional":
        half = _full_head_dim(config) // 2
        turning = int(_full_head_dim(config) * rope["partial_rotary_factor"] / 2)
        return np.array([1.0] * turning + [1e30] * (half - turning), np.float32)
    return None


def _full_head_dim(config: Any) -> int:
    full = config.layer_types.index("full_attention")
    return int(config.per_layer_config[full].head_dim)


def _hyperparameters(config: Any) -> dict[str, Any]:
    rope = _rope(config)
    layer = config.per_layer_config[0] if config.model_type == "gemma4_text" else config
    head_dim = getattr(layer, "head_dim", None) or config.hidden_size // config.num_attention_heads
    out: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "vocab_size": config.vocab_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": layer.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": head_dim,
    }
    if getattr(config, "intermediate_size", None) is not None:
        out["feed_forward_length"] = config.intermediate_size
    if rope["rope_type"] in ("linear", "yarn"):
        out["rope.scaling.type"] = rope["rope_type"]
        out["rope.scaling.factor"] = float(rope["factor"])
    if rope["rope_type"] == "yarn":
        out["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    extra: dict[str, Callable[[Any], dict[str, Any]]] = {
        "mixtral": lambda c: {
            "expert_count": c.num_local_experts,
            "expert_used_count": c.num_experts_per_tok,
        },
        "qwen3_moe": _experts,
        "qwen3_5_text": _qwen35,
        "qwen3_5_moe_text": lambda c: _qwen35(c) | _experts(c),
        "gemma4_text": _gemma4,
        "gpt_oss": lambda c: {
            "expert_count": c.num_local_experts,
            "expert_used_count": c.num_experts_per_tok,
            "expert_feed_forward_length": c.intermediate_size,
            "attention.sliding_window": c.sliding_window,
        },
    }
    return out | extra.get(config.model_type, lambda _: {})(config)


def _experts(config: Any) -> dict[str, Any]:
    out = {
        "expert_count": config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
    }
    if (shared := getattr(config, "shared_expert_intermediate_size", None)) is not None:
        out["expert_shared_feed_forward_length"] = shared
    return out


def _qwen35(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    return {
        "rope.dimension_count": int(config.head_dim * rope["partial_rotary_factor"]),
        "rope.dimension_sections": [*rope["mrope_section"], 0],
        "full_attention_interval": config.layer_types.index("full_attention") + 1,
        "ssm.conv_kernel": config.linear_conv_kernel_dim,
        "ssm.state_size": config.linear_key_head_dim,
        "ssm.group_count": config.linear_num_key_heads,
        "ssm.time_step_rank": config.linear_num_value_heads,
        "ssm.inner_size": config.linear_value_head_dim * config.linear_num_value_heads,
    }


def _gemma4(config: Any) -> dict[str, Any]:
    windowed = [kind == "sliding_attention" for kind in config.layer_types]
    layers = config.per_layer_config
    full_dim = _full_head_dim(config)
    windowed_dim = layers[windowed.index(True)].head_dim
    first_shared = config.num_hidden_layers - config.num_kv_shared_layers
    out: dict[str, Any] = {
        "attention.head_count_kv": [layers[i].num_key_value_heads for i in range(len(windowed))],
        "attention.key_length": full_dim,
        "attention.value_length": full_dim,
        "attention.key_length_swa": windowed_dim,
        "attention.value_length_swa": windowed_dim,
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": windowed,
        "attention.shared_kv_layers": config.num_kv_shared_layers,
        "embedding_length_per_layer_input": config.hidden_size_per_layer_input or 0,
        "rope.dimension_count": full_dim,
        "rope.dimension_count_swa": windowed_dim,
        "rope.freq_base_swa": float(config.rope_parameters["sliding_attention"]["rope_theta"]),
    }
    if config.use_double_wide_mlp:
        n = config.intermediate_size
        out["feed_forward_length"] = [n if i < first_shared else 2 * n for i in range(len(windowed))]
    if config.final_logit_softcapping is not None:
        out["final_logit_softcapping"] = float(config.final_logit_softcapping)
    if config.enable_moe_block:
        out["expert_count"] = config.num_experts
        out["expert_used_count"] = config.top_k_experts
        out["expert_feed_forward_length"] = config.moe_intermediate_size
    return out
