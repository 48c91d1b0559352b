"""Qwen 3.5 and 3.6 (`qwen35`, `qwen35moe`): gated delta nets, every fourth layer gated softmax attention."""

from __future__ import annotations

from typing import ClassVar

from pintpot.kernels.api import DeltaNetWeights, Prepared
from pintpot.models.base import PreNormDecoder
from pintpot.models.parts import Tensors
from pintpot.spec import DeltaNetLayer


class Qwen35(PreNormDecoder):
    """Dense, or MoE with a sigmoid-gated shared expert. MTP blocks, behind the last layer, are not run."""

    ffn_norm_name: ClassVar[str] = "post_attention_norm"
    qk_norm: ClassVar[bool] = True

    def mixer(self, layer: int, tensors: Tensors) -> Prepared:
        mixer = self.spec.layers[layer].mixer
        if isinstance(mixer, DeltaNetLayer):
            return self.ops.delta_net_layer(self._delta_net(layer, mixer, tensors))
        return super().mixer(layer, tensors)

    def _delta_net(self, layer: int, d: DeltaNetLayer, tensors: Tensors) -> DeltaNetWeights:
        p, n_embd, n_v = f"blk.{layer}.", self.spec.n_embd, d.n_head_v * d.head_dim_v
        return DeltaNetWeights(
            n_head_k=d.n_head_k,
            n_head_v=d.n_head_v,
            head_dim_k=d.head_dim_k,
            head_dim_v=d.head_dim_v,
            conv_kernel=d.conv_kernel,
            norm_eps=self.spec.norm_eps,
            wqkv=tensors.matrix(f"{p}attn_qkv.weight", d.conv_dim, n_embd),
            wz=tensors.matrix(f"{p}attn_gate.weight", n_v, n_embd),
            wbeta=tensors.matrix(f"{p}ssm_beta.weight", d.n_head_v, n_embd),
            walpha=tensors.matrix(f"{p}ssm_alpha.weight", d.n_head_v, n_embd),
            wo=tensors.matrix(f"{p}ssm_out.weight", n_embd, n_v),
            conv=tensors.vector(f"{p}ssm_conv1d.weight", d.conv_dim, d.conv_kernel),
            dt_bias=tensors.vector(f"{p}ssm_dt.bias", d.n_head_v),
            a=tensors.vector(f"{p}ssm_a", d.n_head_v),
            norm=tensors.vector(f"{p}ssm_norm.weight", d.head_dim_v),
        )
