"""Gemma 4 (`gemma4`): norms before and after every block, windowed and full attention layers with heads of
different size, late layers that read an earlier layer's KV cache, per-layer token embeddings (E2B, E4B), and
a dense FFN beside the experts (26B-A4B)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pintpot.kernels.api import I32, Activation, Array, Ops, Prepared
from pintpot.models.base import Model, State
from pintpot.models.parts import MoEStyle, Tensors, attention_weights, dense_weights, moe_weights
from pintpot.spec import DenseFFN, ModelSpec

GELU = Activation.GELU_TANH


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts beside the dense FFN; the router has a norm of its own."""

    weights: Prepared
    router_norm: Prepared
    pre_norm: Prepared
    post_norm: Prepared
    dense_post_norm: Prepared


@dataclass(frozen=True, slots=True)
class PerLayer:
    """Where a layer mixes in its own embedding of the tokens."""

    gate: Prepared
    proj: Prepared
    post_norm: Prepared


@dataclass(frozen=True, slots=True)
class Gemma4Layer:
    attn_norm: Prepared
    attn: Prepared
    attn_post_norm: Prepared
    ffn_norm: Prepared
    ffn: Prepared
    ffn_post_norm: Prepared
    experts: Experts | None
    per_layer: PerLayer | None
    out_scale: float


class Gemma4(Model):
    """Sizes, windows, RoPE and the owner of each KV cache come from the spec."""

    def __init__(self, spec: ModelSpec, ops: Ops, tensors: Tensors) -> None:
        super().__init__(spec, ops, tensors)
        width = spec.n_embd_per_layer
        if width:
            rows = width * spec.n_layer
            self.per_layer_embd = ops.matrix(
                tensors.matrix("per_layer_token_embd.weight", spec.n_vocab, rows)
            )
            self.per_layer_proj = ops.matrix(tensors.matrix("per_layer_model_proj.weight", rows, spec.n_embd))
            self.per_layer_norm = self.vector("per_layer_proj_norm.weight", width, tensors)
        self.layers = [self._layer(i, tensors) for i in range(spec.n_layer)]

    def _layer(self, i: int, tensors: Tensors) -> Gemma4Layer:
        ops, spec, p = self.ops, self.spec, f"blk.{i}."
        ffn = spec.layers[i].ffn
        n_ff = ffn.n_ff if isinstance(ffn, DenseFFN) else ffn.n_ff_dense
        scale = tensors.find_vector(f"{p}layer_output_scale.weight", 1)
        return Gemma4Layer(
            attn_norm=self._norm(f"{p}attn_norm", tensors),
            attn=ops.attention_layer(
                attention_weights(spec, i, tensors, qk_norm=True, v_norm=True, v_may_be_k=True)
            ),
            attn_post_norm=self._norm(f"{p}post_attention_norm", tensors),
            ffn_norm=self._norm(f"{p}ffn_norm", tensors),
            ffn=ops.ffn_layer(dense_weights(spec.n_embd, f"{p}ffn_", n_ff, tensors, activation=GELU)),
            ffn_post_norm=self._norm(f"{p}post_ffw_norm", tensors),
            experts=None if isinstance(ffn, DenseFFN) else self._experts(i, tensors),
            per_layer=self._per_layer(i, tensors) if spec.n_embd_per_layer else None,
            out_scale=1.0 if scale is None else float(scale[0]),
        )

    def _norm(self, name: str, tensors: Tensors) -> Prepared:
        return self.vector(f"{name}.weight", self.spec.n_embd, tensors)

    def _experts(self, i: int, tensors: Tensors) -> Experts:
        spec, p = self.spec, f"blk.{i}."
        ffn = spec.layers[i].ffn
        if isinstance(ffn, DenseFFN):
            raise TypeError(f"layer {i} has no experts")
        scale_name = f"{p}ffn_gate_inp.scale"
        router_scale = tensors.vector(scale_name, spec.n_embd) * np.float32(spec.n_embd**-0.5)
        return Experts(
            weights=self.ops.moe_layer(moe_weights(spec, i, ffn, tensors, MoEStyle(activation=GELU))),
            router_norm=self.ops.vector(router_scale, scale_name),
            pre_norm=self._norm(f"{p}pre_ffw_norm_2", tensors),
            post_norm=self._norm(f"{p}post_ffw_norm_2", tensors),
            dense_post_norm=self._norm(f"{p}post_ffw_norm_1", tensors),
        )

    def _per_layer(self, i: int, tensors: Tensors) -> PerLayer:
        n_embd, width = self.spec.n_embd, self.spec.n_embd_per_layer
        return PerLayer(
            gate=self.ops.matrix(tensors.matrix(f"blk.{i}.inp_gate.weight", width, n_embd)),
            proj=self.ops.matrix(tensors.matrix(f"blk.{i}.proj.weight", n_embd, width)),
            post_norm=self._norm(f"blk.{i}.post_norm", tensors),
        )

    def forward(
        self,
        tokens: I32,
        batch: Prepared,
        state: State,
        out_rows: I32,
        routes: dict[int, I32] | None = None,
    ) -> Array:
        ops, eps = self.ops, self.spec.norm_eps
        n_rows = len(tokens)
        x = ops.embed(self.tok_embd, tokens)
        ops.scale(x, math.sqrt(self.spec.n_embd))
        embedded = self._embed_per_layer(tokens, x) if self.spec.n_embd_per_layer else None
        for i, layer in enumerate(self.layers):
            h = ops.rms_norm(x, layer.attn_norm, eps)
            h = ops.attention(h, layer.attn, state.layers[i], batch)
            if i == self.spec.n_layer - 1:  # past the last attention tokens are independent
                x, h, n_rows = ops.rows(x, out_rows), ops.rows(h, out_rows), len(out_rows)
                if n_rows == 0:
                    return x
                embedded = None if embedded is None else ops.rows(embedded, out_rows)
            h = ops.add_rms_norm(x, ops.rms_norm(h, layer.attn_post_norm, eps), layer.ffn_norm, eps)
            h = ops.ffn(h, layer.ffn)
            if layer.experts is not None:
                h = self._add_experts(i, x, h, layer.experts, n_tokens=n_rows, routes=routes)
            ops.add(x, ops.rms_norm(h, layer.ffn_post_norm, eps))
            if layer.per_layer is not None:
                ops.add(x, self._mix_per_layer(i, x, embedded, layer.per_layer))
            if layer.out_scale != 1.0:
                ops.scale(x, layer.out_scale)
        return self.logits(ops.rms_norm(x, self.output_norm, eps))

    def _add_experts(
        self, i: int, x: Array, dense: Array, e: Experts, *, n_tokens: int, routes: dict[int, I32] | None
    ) -> Array:
        ops, eps = self.ops, self.spec.norm_eps
        h = ops.rms_norm(x, e.pre_norm, eps)
        h = self.moe(
            i,
            h,
            e.weights,
            n_tokens=n_tokens,
            routes=routes,
            router_x=ops.rms_norm(x, e.router_norm, eps),
        )
        total = ops.rms_norm(dense, e.dense_post_norm, eps)
        ops.add(total, ops.rms_norm(h, e.post_norm, eps))
        return total

    def _embed_per_layer(self, tokens: I32, x: Array) -> Array:
        """[n_tokens, n_layer * width]: a row of a table plus a normed projection of x, over sqrt(2)."""
        ops, spec = self.ops, self.spec
        width = spec.n_embd_per_layer
        out = ops.linear(x, self.per_layer_proj)
        ops.scale(out, spec.n_embd**-0.5)
        out = ops.rms_norm(ops.reshape(out, width), self.per_layer_norm, spec.norm_eps)
        out = ops.reshape(out, width * spec.n_layer)
        table = ops.embed(self.per_layer_embd, tokens)
        ops.scale(table, math.sqrt(width))
        ops.add(out, table)
        ops.scale(out, 2**-0.5)
        return out

    def _mix_per_layer(self, i: int, x: Array, embedded: Array, p: PerLayer) -> Array:
        ops, width = self.ops, self.spec.n_embd_per_layer
        mine = ops.columns(embedded, i * width, (i + 1) * width)
        h = ops.linear(ops.gated(ops.linear(x, p.gate), mine, GELU), p.proj)
        return ops.rms_norm(h, p.post_norm, self.spec.norm_eps)
