"""The shape every tensor must have, from the metadata that goes into the same file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pintpot.hf.transforms import Shape


class Dims:
    """Sizes by the names used in the tables below. `layer` None: of tensors outside the layers."""

    def __init__(self, arch: str, metadata: Mapping[str, Any], layer: int | None) -> None:
        self._arch = arch
        self._metadata = metadata
        self._layer = layer

    def shape(self, rule: str) -> Shape:
        """Sizes of a rule such as "q embd"."""
        return tuple(getattr(self, word) if word.isidentifier() else int(word) for word in rule.split())

    def _get(self, key: str, default: int = 0) -> int:
        value = self._metadata.get(f"{self._arch}.{key}", default)
        return int(value[self._layer or 0] if isinstance(value, list) else value)

    @property
    def embd(self) -> int:
        return self._get("embedding_length")

    @property
    def embd2(self) -> int:
        return 2 * self.embd

    @property
    def vocab(self) -> int:
        return self._get("vocab_size")

    @property
    def heads(self) -> int:
        return self._get("attention.head_count")

    @property
    def head(self) -> int:
        suffix = "_swa" if self._get("attention.sliding_window_pattern") and self._arch == "gemma4" else ""
        return self._get(f"attention.key_length{suffix}", self.embd // self.heads)

    @property
    def q(self) -> int:
        return self.attn * (2 if self._arch in ("qwen35", "qwen35moe") else 1)  # with its gate

    @property
    def attn(self) -> int:
        return self.heads * self.head

    @property
    def kv(self) -> int:
        return self._get("attention.head_count_kv") * self.head

    @property
    def ff(self) -> int:
        return self._get("feed_forward_length")

    @property
    def experts(self) -> int:
        return self._get("expert_count")

    @property
    def ffe(self) -> int:
        return self._get("expert_feed_forward_length", self.ff)

    @property
    def ffe2(self) -> int:
        return 2 * self.ffe

    @property
    def ffs(self) -> int:
        return self._get("expert_shared_feed_forward_length")

    @property
    def per_layer(self) -> int:
        return self._get("embedding_length_per_layer_input")

    @property
    def all_layers(self) -> int:
        return self.per_layer * self._get("block_count")

    @property
    def state(self) -> int:
        return self._get("ssm.state_size")

    @property
    def vheads(self) -> int:
        return self._get("ssm.time_step_rank")

    @property
    def inner(self) -> int:
        return self._get("ssm.inner_size")

    @property
    def conv(self) -> int:
        return 2 * self._get("ssm.group_count") * self.state + self.inner

    @property
    def kernel(self) -> int:
        return self._get("ssm.conv_kernel")


_TOP: Final = {
    "token_embd.weight": "vocab embd",
    "output_norm.weight": "embd",
    "output.weight": "vocab embd",
    "per_layer_token_embd.weight": "vocab all_layers",
    "per_layer_model_proj.weight": "all_layers embd",
    "per_layer_proj_norm.weight": "per_layer",
}
_LAYER: Final = {
    **dict.fromkeys(
        (
            "attn_norm.weight", "ffn_norm.weight", "post_attention_norm.weight", "post_ffw_norm.weight",
            "post_ffw_norm_1.weight", "post_ffw_norm_2.weight", "pre_ffw_norm_2.weight", "post_norm.weight",
            "ffn_gate_inp.scale", "ffn_gate_inp_shexp.weight", "attn_output.bias",
            "nextn.enorm.weight", "nextn.hnorm.weight", "nextn.shared_head_norm.weight",
        ),
        "embd",
    ),
    "attn_q.weight": "q embd",
    "attn_q.bias": "q",
    "attn_k.weight": "kv embd",
    "attn_k.bias": "kv",
    "attn_v.weight": "kv embd",
    "attn_v.bias": "kv",
    "attn_output.weight": "embd attn",
    "attn_q_norm.weight": "head",
    "attn_k_norm.weight": "head",
    "attn_sinks.weight": "heads",
    "ffn_gate.weight": "ff embd",
    "ffn_up.weight": "ff embd",
    "ffn_down.weight": "embd ff",
    "ffn_gate_inp.weight": "experts embd",
    "ffn_gate_inp.bias": "experts",
    "ffn_gate_exps.weight": "experts ffe embd",
    "ffn_up_exps.weight": "experts ffe embd",
    "ffn_gate_up_exps.weight": "experts ffe2 embd",
    "ffn_down_exps.weight": "experts embd ffe",
    "ffn_gate_exps.bias": "experts ffe",
    "ffn_up_exps.bias": "experts ffe",
    "ffn_down_exps.bias": "experts embd",
    "ffn_down_exps.scale": "experts",
    "ffn_gate_shexp.weight": "ffs embd",
    "ffn_up_shexp.weight": "ffs embd",
    "ffn_down_shexp.weight": "embd ffs",
    "layer_output_scale.weight": "1",
    "inp_gate.weight": "per_layer embd",
    "proj.weight": "embd per_layer",
    "attn_qkv.weight": "conv embd",
    "attn_gate.weight": "inner embd",
    "ssm_beta.weight": "vheads embd",
    "ssm_alpha.weight": "vheads embd",
    "ssm_out.weight": "embd inner",
    "ssm_conv1d.weight": "conv kernel",
    "ssm_a": "vheads",
    "ssm_dt.bias": "vheads",
    "ssm_norm.weight": "state",
    "nextn.eh_proj.weight": "embd embd2",
}  # fmt: skip


def expected_shape(arch: str, metadata: Mapping[str, Any], name: str) -> Shape:
    """The shape, outermost dimension first, of GGUF tensor `name` in a file with this metadata."""
    if name.startswith("blk."):
        _, layer, stem = name.split(".", 2)
        return Dims(arch, metadata, int(layer)).shape(_LAYER[stem])
    return Dims(arch, metadata, None).shape(_TOP[name])
