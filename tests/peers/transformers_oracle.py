"""The same toy model in Hugging Face transformers: a configuration, and the weights renamed.

Weights are read from the GGUF (F32) file with the `gguf` package, and what llama.cpp's converters do on
the way in is undone: the interleaved q and k rows of llama, the +1 of Qwen 3.5's norms, its value heads
in tiled order, gpt-oss's split and transposed experts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
import transformers

from pintpot.spec.shape import Shape

F32 = npt.NDArray[np.float32]
Weights = dict[str, F32]

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "per_layer_token_embd.weight": "model.embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "model.per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "model.per_layer_projection_norm.weight",
}

_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_output.bias": "self_attn.o_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_sinks.weight": "self_attn.sinks",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "ffn_gate_inp.bias": "mlp.router.bias",
    "ffn_down_exps.weight": "mlp.experts.down_proj",
    "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
    "ffn_gate_up_exps.weight": "mlp.experts.gate_up_proj",
    "ffn_gate_up_exps.bias": "mlp.experts.gate_up_proj_bias",
    "ffn_gate_shexp.weight": "mlp.shared_expert.gate_proj.weight",
    "ffn_up_shexp.weight": "mlp.shared_expert.up_proj.weight",
    "ffn_down_shexp.weight": "mlp.shared_expert.down_proj.weight",
    "ffn_gate_inp_shexp.weight": "mlp.shared_expert_gate.weight",
    "attn_qkv.weight": "linear_attn.in_proj_qkv.weight",
    "attn_gate.weight": "linear_attn.in_proj_z.weight",
    "ssm_beta.weight": "linear_attn.in_proj_b.weight",
    "ssm_alpha.weight": "linear_attn.in_proj_a.weight",
    "ssm_conv1d.weight": "linear_attn.conv1d.weight",
    "ssm_dt.bias": "linear_attn.dt_bias",
    "ssm_a": "linear_attn.A_log",
    "ssm_norm.weight": "linear_attn.norm.weight",
    "ssm_out.weight": "linear_attn.out_proj.weight",
}

_GEMMA = {
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "layer_output_scale.weight": "layer_scalar",
    "inp_gate.weight": "per_layer_input_gate.weight",
    "proj.weight": "per_layer_projection.weight",
    "post_norm.weight": "post_per_layer_input_norm.weight",
    "ffn_gate_inp.weight": "router.proj.weight",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj",
    "ffn_down_exps.weight": "experts.down_proj",
    "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
}


def load_transformers(path: Path, shape: Shape) -> torch.nn.Module:
    """The model of an F32 toy file, in float32 with eager attention."""
    weights = {t.name: np.array(t.data, np.float32) for t in gguf.GGUFReader(path).tensors}
    config, cls = _config(shape)
    config._attn_implementation = "eager"
    model = cls(config).float().eval()
    state = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in _rename(weights, shape).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise RuntimeError(f"weights do not fit {cls.__name__}: missing {missing}, unexpected {unexpected}")
    return model


def transformers_logits(model: torch.nn.Module, tokens: list[int]) -> F32:
    """Logits after every token, [n_tokens, n_vocab]."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens])).logits[0].float().numpy()


def _config(s: Shape) -> tuple[Any, Any]:
    common: dict[str, Any] = {
        "vocab_size": s.n_vocab,
        "hidden_size": s.n_embd,
        "intermediate_size": s.n_ff,
        "num_hidden_layers": s.n_layer,
        "num_attention_heads": s.n_head,
        "num_key_value_heads": s.n_head_kv,
        "head_dim": s.head_dim,
        "rms_norm_eps": s.norm_eps,
        "max_position_embeddings": s.ctx_train,
        "tie_word_embeddings": s.tied,
        "rope_parameters": _rope(s),
    }
    for token in ("bos", "eos", "pad"):
        common[f"{token}_token_id"] = None
    match s.arch:
        case "llama" if s.experts is not None:
            common |= {"num_local_experts": s.experts.n_expert, "num_experts_per_tok": s.experts.n_used}
            return transformers.MixtralConfig(**common), transformers.MixtralForCausalLM
        case "llama":
            return transformers.LlamaConfig(**common), transformers.LlamaForCausalLM
        case "qwen2":
            del common["head_dim"]
            return transformers.Qwen2Config(**common), transformers.Qwen2ForCausalLM
        case "qwen3":
            return transformers.Qwen3Config(**common), transformers.Qwen3ForCausalLM
        case "qwen3moe":
            common |= _experts(s) | {"norm_topk_prob": True}
            return transformers.Qwen3MoeConfig(**common), transformers.Qwen3MoeForCausalLM
        case "qwen35":
            return transformers.Qwen3_5TextConfig(**common | _delta(s)), transformers.Qwen3_5ForCausalLM
        case "qwen35moe":
            common |= _delta(s) | _experts(s)
            del common["intermediate_size"]
            return transformers.Qwen3_5MoeTextConfig(**common), transformers.Qwen3_5MoeForCausalLM
        case "gemma4":
            return transformers.Gemma4TextConfig(**common | _gemma(s)), transformers.Gemma4ForCausalLM
        case "gpt-oss":
            assert s.experts is not None
            assert s.sliding is not None
            common |= {
                "num_local_experts": s.experts.n_expert,
                "num_experts_per_tok": s.experts.n_used,
                "intermediate_size": s.experts.n_ff,
                "sliding_window": s.sliding.window,
                "layer_types": _layer_types(s),
            }
            return transformers.GptOssConfig(**common), transformers.GptOssForCausalLM
    raise ValueError(s.arch)


def _rope(s: Shape) -> dict[str, Any]:
    if s.arch == "gemma4":
        assert s.sliding is not None
        return {
            "sliding_attention": {"rope_type": "default", "rope_theta": s.sliding.rope_theta},
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": s.rope_theta,
            },
        }
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": s.rope_theta}
    if s.rope_dim:
        rope["partial_rotary_factor"] = s.rope_dim / s.head_dim
    if s.rope_sections:
        rope |= {"mrope_section": list(s.rope_sections[:3]), "mrope_interleaved": True}
    if s.llama3_ctx:
        rope |= {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": s.llama3_ctx,
        }
    if s.rope_scaling is not None:
        rope |= {"rope_type": s.rope_scaling.kind, "factor": s.rope_scaling.factor}
        if s.rope_scaling.kind == "yarn":
            rope |= {
                "original_max_position_embeddings": s.rope_scaling.original_ctx,
                "truncate": True,  # llama.cpp always rounds the ramp's ends
            }
    return rope


def _experts(s: Shape) -> dict[str, Any]:
    assert s.experts is not None
    config = {
        "num_experts": s.experts.n_expert,
        "num_experts_per_tok": s.experts.n_used,
        "moe_intermediate_size": s.experts.n_ff,
    }
    if s.experts.n_ff_shared:
        config["shared_expert_intermediate_size"] = s.experts.n_ff_shared
    return config


def _delta(s: Shape) -> dict[str, Any]:
    assert s.delta is not None
    return {
        "linear_num_key_heads": s.delta.n_head_k,
        "linear_num_value_heads": s.delta.n_head_v,
        "linear_key_head_dim": s.delta.head_dim,
        "linear_value_head_dim": s.delta.head_dim,
        "linear_conv_kernel_dim": s.delta.conv_kernel,
        "layer_types": ["linear_attention" if s.is_delta(i) else "full_attention" for i in range(s.n_layer)],
    }


def _layer_types(s: Shape) -> list[str]:
    return ["sliding_attention" if s.is_sliding(i) else "full_attention" for i in range(s.n_layer)]


def _gemma(s: Shape) -> dict[str, Any]:
    assert s.sliding is not None
    config: dict[str, Any] = {
        "head_dim": s.sliding.head_dim,
        "global_head_dim": s.head_dim,
        "num_key_value_heads": s.sliding.n_head_kv,
        "num_global_key_value_heads": s.n_head_kv if s.k_eq_v else None,
        "attention_k_eq_v": s.k_eq_v,
        "sliding_window": s.sliding.window,
        "layer_types": _layer_types(s),
        "final_logit_softcapping": s.logit_softcap,
        "hidden_size_per_layer_input": 0 if s.per_layer is None else s.per_layer.n_embd,
        "vocab_size_per_layer_input": s.n_vocab,
        "num_kv_shared_layers": 0 if s.per_layer is None else s.per_layer.n_kv_shared,
        "use_double_wide_mlp": s.per_layer is not None and s.per_layer.double_wide,
    }
    if s.experts is not None:
        config |= {
            "enable_moe_block": True,
            "num_experts": s.experts.n_expert,
            "top_k_experts": s.experts.n_used,
            "moe_intermediate_size": s.experts.n_ff,
        }
    return config


def _rename(weights: Weights, s: Shape) -> Weights:
    """GGUF tensors under transformers' names and in its layouts."""
    names = _LAYER | (_GEMMA if s.arch == "gemma4" else {})
    out: Weights = {}
    layers: dict[str, Weights] = {}
    for name, value in weights.items():
        if name in _TOP:
            out[_TOP[name]] = value + _norm_shift(name, s)
        elif name.startswith("blk."):
            _, layer, stem = name.split(".", 2)
            layers.setdefault(layer, {})[stem] = value
    for layer, tensors in layers.items():
        for stem, value in _layout(tensors, s).items():
            out[f"model.layers.{layer}.{names[stem]}"] = value + _norm_shift(stem, s)
    if s.arch == "gpt-oss":
        out = {k.replace("mlp.gate.weight", "mlp.router.weight"): v for k, v in out.items()}
    return out


def _norm_shift(name: str, s: Shape) -> F32:
    """Qwen 3.5 stores norm weights minus one, but for the delta net's own."""
    shifted = s.delta is not None and name.endswith("norm.weight") and not name.startswith("ssm")
    return np.float32(-1.0 if shifted else 0.0)


def _layout(tensors: Weights, s: Shape) -> Weights:
    t = dict(tensors)
    if s.arch == "llama":
        for stem, heads in (("attn_q.weight", s.n_head), ("attn_k.weight", s.n_head_kv)):
            w = t[stem]
            t[stem] = w.reshape(heads, -1, 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)
    if "ffn_gate_exps.weight" in t:
        gate, up = t.pop("ffn_gate_exps.weight"), t.pop("ffn_up_exps.weight")
        if s.arch == "gpt-oss":
            t["ffn_gate_up_exps.weight"] = np.stack([gate, up], axis=2).reshape(
                gate.shape[0], -1, gate.shape[2]
            )
        else:
            t["ffn_gate_up_exps.weight"] = np.concatenate([gate, up], axis=1)
    if s.arch == "gpt-oss":
        for stem in ("ffn_gate_up_exps.weight", "ffn_down_exps.weight"):
            t[stem] = t[stem].swapaxes(1, 2)
        biases = [t.pop("ffn_gate_exps.bias"), t.pop("ffn_up_exps.bias")]
        t["ffn_gate_up_exps.bias"] = np.stack(biases, axis=2).reshape(biases[0].shape[0], -1)
    if "ffn_gate_inp_shexp.weight" in t:
        t["ffn_gate_inp_shexp.weight"] = t["ffn_gate_inp_shexp.weight"][None]
    if "ssm_a" in t:
        _delta_layout(t, s)
    return t


def _delta_layout(t: Weights, s: Shape) -> None:
    """Value heads from tiled order (key head fastest) to transformers' grouped order."""
    d = s.delta
    assert d is not None
    ratio = d.n_head_v // d.n_head_k

    def grouped(w: F32, head_dim: int, axis: int = 0) -> F32:
        w = np.moveaxis(w, axis, 0)
        rest = w.shape[1:]
        w = w.reshape(ratio, d.n_head_k, head_dim, *rest).swapaxes(0, 1).reshape(-1, *rest)
        return np.moveaxis(w, 0, axis)

    keys = 2 * d.n_head_k * d.head_dim
    for stem in ("attn_qkv.weight", "ssm_conv1d.weight"):
        t[stem] = np.concatenate([t[stem][:keys], grouped(t[stem][keys:], d.head_dim)])
    t["attn_gate.weight"] = grouped(t["attn_gate.weight"], d.head_dim)
    for stem in ("ssm_beta.weight", "ssm_alpha.weight", "ssm_dt.bias", "ssm_a"):
        t[stem] = grouped(t[stem], 1)
    t["ssm_out.weight"] = grouped(t["ssm_out.weight"], d.head_dim, axis=1)
    t["ssm_a"] = np.log(-t["ssm_a"])
    t["ssm_conv1d.weight"] = t["ssm_conv1d.weight"][:, None, :]
