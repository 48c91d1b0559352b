"""Which GGUF tensors a Hugging Face tensor becomes, and by which transform: tables per architecture.

GGUF names and what they stand for are llama.cpp's (gguf-py/gguf/tensor_mapping.py); the checkpoint's names
those of the modeling code in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from pintpot.hf.model_config import ModelConfig
from pintpot.hf.transforms import (
    AS_IS,
    NEGATIVE_EXP,
    PLUS_ONE,
    TRANSPOSED,
    Transform,
    every_other,
    every_other_transposed,
    half,
    interleave_rope,
    mxfp4,
    then,
    tile_value_heads,
    without_axis,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A GGUF tensor, named within its layer. `stacked`: one tensor for all experts."""

    name: str
    transform: Transform = AS_IS
    stacked: bool = False


# Within a layer, what a checkpoint's tensor becomes. `{e}` stands for the number of an expert, and
# `_blocks` for the pair of `_blocks` and `_scales`.
Table: TypeAlias = dict[str, tuple[Target, ...]]

TOP_LEVEL: Final = MappingProxyType(
    {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        "model.embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
        "model.per_layer_model_projection.weight": "per_layer_model_proj.weight",
        "model.per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
    }
)
# Qwen 3.5's multi-token prediction, beside the layer it has.
MTP: Final = MappingProxyType(
    {
        "mtp.fc.weight": "nextn.eh_proj.weight",
        "mtp.pre_fc_norm_embedding.weight": "nextn.enorm.weight",
        "mtp.pre_fc_norm_hidden.weight": "nextn.hnorm.weight",
        "mtp.norm.weight": "nextn.shared_head_norm.weight",
    }
)

_ATTENTION: Final = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
}
_BIASES: Final = {
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.bias": "attn_output.bias",
}
_QK_NORMS: Final = {
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
}
_FFN_NORM: Final = {"post_attention_layernorm.weight": "ffn_norm.weight"}
_POST_ATTENTION_NORM: Final = {"post_attention_layernorm.weight": "post_attention_norm.weight"}
_DENSE: Final = {
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
_SHARED_EXPERT: Final = {
    "mlp.shared_expert.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_expert.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_expert.down_proj.weight": "ffn_down_shexp.weight",
}
_GEMMA4: Final = {
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
    # E2B and E4B: a token embedding for every layer
    "per_layer_input_gate.weight": "inp_gate.weight",
    "per_layer_projection.weight": "proj.weight",
    "post_per_layer_input_norm.weight": "post_norm.weight",
    # 26B-A4B: experts beside the dense FFN
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
}
_GPT_OSS: Final = {
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router.weight": "ffn_gate_inp.weight",
    "mlp.router.bias": "ffn_gate_inp.bias",
    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
}


def _plain(*tables: Mapping[str, str]) -> Table:
    return {name: (Target(target),) for table in tables for name, target in table.items()}


def _stacked(name: str, transform: Transform = AS_IS) -> Target:
    return Target(name, transform, stacked=True)


def _experts(experts: str, gate: str, up: str, down: str) -> Table:
    """Experts in tensors of their own."""
    return {
        f"{experts}.{{e}}.{gate}.weight": (_stacked("ffn_gate_exps.weight"),),
        f"{experts}.{{e}}.{up}.weight": (_stacked("ffn_up_exps.weight"),),
        f"{experts}.{{e}}.{down}.weight": (_stacked("ffn_down_exps.weight"),),
    }


def _fused_experts() -> Table:
    """All experts in one tensor, gate above up, as transformers 5 writes them."""
    return {
        "mlp.experts.gate_up_proj": (
            _stacked("ffn_gate_exps.weight", half(0)),
            _stacked("ffn_up_exps.weight", half(1)),
        ),
        "mlp.experts.down_proj": (_stacked("ffn_down_exps.weight"),),
    }


def _qwen_experts() -> Table:
    router = _plain({"mlp.gate.weight": "ffn_gate_inp.weight"})
    return router | _experts("mlp.experts", "gate_proj", "up_proj", "down_proj") | _fused_experts()


def _llama(m: ModelConfig) -> Table:
    table = _plain(_ATTENTION, _BIASES, _FFN_NORM)
    for projection, n_head in (("q", m.n_head), ("k", m.n_head_kv)):
        for ending in ("weight", "bias"):
            target = Target(f"attn_{projection}.{ending}", interleave_rope(n_head))
            table[f"self_attn.{projection}_proj.{ending}"] = (target,)
    if m.kind != "mixtral":
        return table | _plain(_DENSE)
    table |= _plain({"block_sparse_moe.gate.weight": "ffn_gate_inp.weight"})
    table |= _plain({"mlp.gate.weight": "ffn_gate_inp.weight"})
    return table | _experts("block_sparse_moe.experts", "w1", "w3", "w2") | _fused_experts()


def _qwen2(_m: ModelConfig) -> Table:
    return _plain(_ATTENTION, _BIASES, _FFN_NORM, _DENSE)


def _qwen3(_m: ModelConfig) -> Table:
    return _plain(_ATTENTION, _BIASES, _QK_NORMS, _FFN_NORM, _DENSE)


def _qwen3moe(_m: ModelConfig) -> Table:
    return _plain(_ATTENTION, _BIASES, _QK_NORMS, _FFN_NORM) | _qwen_experts()


def _qwen35(m: ModelConfig) -> Table:
    norms = _plain(_QK_NORMS, _POST_ATTENTION_NORM, {"input_layernorm.weight": "attn_norm.weight"})
    norms = {name: (Target(targets[0].name, PLUS_ONE),) for name, targets in norms.items()}
    table = _plain(_ATTENTION, _BIASES) | norms | _delta_net(m)
    if m.arch == "qwen35":
        return table | _plain(_DENSE)
    gate = {"mlp.shared_expert_gate.weight": (Target("ffn_gate_inp_shexp.weight", without_axis(0)),)}
    return table | _qwen_experts() | _plain(_SHARED_EXPERT) | gate


def _delta_net(m: ModelConfig) -> Table:
    n_k, n_v = m.text.integer("linear_num_key_heads"), m.text.integer("linear_num_value_heads")
    if n_v % n_k:
        raise m.text.error("linear_num_value_heads", f"is {n_v}, no multiple of the {n_k} key heads")
    n_qk = 2 * n_k * m.text.integer("linear_key_head_dim")
    heads = tile_value_heads(n_k, n_v)
    after_qk = tile_value_heads(n_k, n_v, skip_rows=n_qk)
    return {
        "linear_attn.in_proj_qkv.weight": (Target("attn_qkv.weight", after_qk),),
        "linear_attn.in_proj_z.weight": (Target("attn_gate.weight", heads),),
        "linear_attn.in_proj_b.weight": (Target("ssm_beta.weight", heads),),
        "linear_attn.in_proj_a.weight": (Target("ssm_alpha.weight", heads),),
        "linear_attn.out_proj.weight": (Target("ssm_out.weight", tile_value_heads(n_k, n_v, axis=1)),),
        "linear_attn.conv1d.weight": (Target("ssm_conv1d.weight", then(without_axis(1), after_qk)),),
        "linear_attn.A_log": (Target("ssm_a", then(heads, NEGATIVE_EXP)),),
        "linear_attn.dt_bias": (Target("ssm_dt.bias", heads),),
        "linear_attn.norm.weight": (Target("ssm_norm.weight"),),
    }


def _gemma4(_m: ModelConfig) -> Table:
    return _plain(_ATTENTION, _QK_NORMS, _POST_ATTENTION_NORM, _DENSE, _GEMMA4) | {
        "experts.gate_up_proj": (_stacked("ffn_gate_up_exps.weight"),),
        "experts.down_proj": (_stacked("ffn_down_exps.weight"),),
    }


def _gpt_oss(_m: ModelConfig) -> Table:
    experts = "mlp.experts."
    gate, up, down = "ffn_gate_exps.", "ffn_up_exps.", "ffn_down_exps."
    return _plain(_ATTENTION, _BIASES, _POST_ATTENTION_NORM, _GPT_OSS) | {
        f"{experts}gate_up_proj_bias": (
            _stacked(f"{gate}bias", every_other(0)),
            _stacked(f"{up}bias", every_other(1)),
        ),
        f"{experts}gate_up_proj_blocks": (
            _stacked(f"{gate}weight", mxfp4(slice(0, None, 2))),
            _stacked(f"{up}weight", mxfp4(slice(1, None, 2))),
        ),
        f"{experts}down_proj_blocks": (_stacked(f"{down}weight", mxfp4()),),
        f"{experts}gate_up_proj": (
            _stacked(f"{gate}weight", every_other_transposed(0)),
            _stacked(f"{up}weight", every_other_transposed(1)),
        ),
        f"{experts}down_proj": (_stacked(f"{down}weight", TRANSPOSED),),
    }


_TABLES: Final = MappingProxyType(
    {
        "llama": _llama,
        "qwen2": _qwen2,
        "qwen3": _qwen3,
        "qwen3moe": _qwen3moe,
        "qwen35": _qwen35,
        "qwen35moe": _qwen35,
        "gemma4": _gemma4,
        "gpt-oss": _gpt_oss,
    }
)


def layer_table(m: ModelConfig) -> Table:
    """What the tensors of a layer of this model become."""
    return _TABLES[m.arch](m)


def top_level_transform(m: ModelConfig, name: str) -> Transform:
    """The transform of a GGUF tensor outside the layers, or of multi-token prediction beside its layer."""
    is_norm = name.endswith("norm.weight")
    return PLUS_ONE if is_norm and m.arch in ("qwen35", "qwen35moe") else AS_IS
