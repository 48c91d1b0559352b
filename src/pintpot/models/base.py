"""What every architecture shares: where weights come from, what a model offers, the pre-norm decoder.

Models know tensor names and composition, nothing else: they call ops of `kernels.api`, never look inside
arrays, and hold nothing of a conversation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from pintpot.kernels.api import I32, Array, MoEWeights, Ops, Prepared
from pintpot.models.parts import MoEStyle, Tensors, attention_weights, dense_weights, moe_weights
from pintpot.spec import AttentionLayer, DenseFFN, ModelSpec, MoEFFN


class State(Protocol):
    """The caches of a model: per layer what `Ops.kv_cache` or `Ops.delta_state` made."""

    @property
    def layers(self) -> Sequence[Prepared]: ...


class Model(ABC):
    """Weights in place, ready to run. Embedding and output head are common to all architectures."""

    def __init__(self, spec: ModelSpec, ops: Ops, tensors: Tensors) -> None:
        self.spec = spec
        self.ops = ops
        self.tok_embd = ops.matrix(tensors.matrix("token_embd.weight", spec.n_vocab, spec.n_embd))
        self.output_norm = self.vector("output_norm.weight", spec.n_embd, tensors)
        output = tensors.find_matrix("output.weight", spec.n_vocab, spec.n_embd)
        self.output = self.tok_embd if output is None else ops.matrix(output)
        bias = tensors.find_vector("output.bias", spec.n_vocab)
        self.output_bias = None if bias is None else ops.vector(bias, "output.bias")

    @abstractmethod
    def forward(
        self,
        tokens: I32,
        batch: Prepared,
        state: State,
        out_rows: I32,
        routes: dict[int, I32] | None = None,
    ) -> Array:
        """Runs `tokens` (int32 [n_tokens], the segments of `batch` in order) and adds them to `state`.

        Returns the logits after the tokens `out_rows` (indices into `tokens`), [len(out_rows), n_vocab]; an
        empty array when no rows are wanted. `routes` receives the experts chosen in each MoE layer, int32
        [n_tokens, n_expert_used]; in the last layer only for `out_rows`.
        """

    def vector(self, name: str, width: int, tensors: Tensors) -> Prepared:
        """The vector `name` of the file, such as a norm's weight."""
        return self.ops.vector(tensors.vector(name, width), name)

    def moe(
        self,
        layer: int,
        x: Array,
        weights: Prepared,
        *,
        n_tokens: int,
        routes: dict[int, I32] | None,
        router_x: Array | None = None,
    ) -> Array:
        """The MoE block of `layer`, recording its choice when asked to."""
        if routes is None:
            return self.ops.moe(x, weights, router_x)
        ffn = self.spec.layers[layer].ffn
        n_used = ffn.n_expert_used if isinstance(ffn, MoEFFN) else 0
        routes[layer] = np.empty((n_tokens, n_used), np.int32)
        return self.ops.moe(x, weights, router_x, routes[layer])

    def logits(self, hidden: Array) -> Array:
        """From the normed hidden state, [n, n_embd] -> [n, n_vocab]."""
        out = self.ops.linear(hidden, self.output, self.output_bias)
        if self.spec.logit_softcap is not None:
            self.ops.softcap(out, self.spec.logit_softcap)
        return out


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """x += mixer(norm x); x += ffn(norm x)."""

    mixer_norm: Prepared
    mixer: Prepared
    is_attention: bool  # else gated delta net
    ffn_norm: Prepared
    ffn: Prepared
    is_moe: bool


class PreNormDecoder(Model):
    """The Llama family: two residual blocks a layer, each behind an RMSNorm; subclasses set what differs."""

    ffn_norm_name: ClassVar[str] = "ffn_norm"
    qk_norm: ClassVar[bool] = False
    moe_style: ClassVar[MoEStyle] = MoEStyle()

    def __init__(self, spec: ModelSpec, ops: Ops, tensors: Tensors) -> None:
        super().__init__(spec, ops, tensors)
        self.layers = [self._layer(i, tensors) for i in range(spec.n_layer)]

    def mixer(self, layer: int, tensors: Tensors) -> Prepared:
        """Attention; overridden where other mixers exist."""
        return self.ops.attention_layer(attention_weights(self.spec, layer, tensors, qk_norm=self.qk_norm))

    def moe_weights(self, layer: int, ffn: MoEFFN, tensors: Tensors) -> MoEWeights:
        return moe_weights(self.spec, layer, ffn, tensors, self.moe_style)

    def _layer(self, i: int, tensors: Tensors) -> DecoderLayer:
        ops, spec = self.ops, self.spec
        ffn = spec.layers[i].ffn
        return DecoderLayer(
            mixer_norm=self.vector(f"blk.{i}.attn_norm.weight", spec.n_embd, tensors),
            mixer=self.mixer(i, tensors),
            is_attention=isinstance(spec.layers[i].mixer, AttentionLayer),
            ffn_norm=self.vector(f"blk.{i}.{self.ffn_norm_name}.weight", spec.n_embd, tensors),
            ffn=ops.ffn_layer(dense_weights(spec.n_embd, f"blk.{i}.ffn_", ffn.n_ff, tensors))
            if isinstance(ffn, DenseFFN)
            else ops.moe_layer(self.moe_weights(i, ffn, tensors)),
            is_moe=isinstance(ffn, MoEFFN),
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
        delta: Array = None  # what the block before adds to x
        for i, layer in enumerate(self.layers):
            if delta is None:
                h = ops.rms_norm(x, layer.mixer_norm, eps)
            else:
                h = ops.add_rms_norm(x, delta, layer.mixer_norm, eps)
            mix = ops.attention if layer.is_attention else ops.delta_net
            delta = mix(h, layer.mixer, state.layers[i], batch)
            if i == self.spec.n_layer - 1:  # past the last mixer tokens are independent
                x, delta, n_rows = ops.rows(x, out_rows), ops.rows(delta, out_rows), len(out_rows)
                if n_rows == 0:
                    return x
            h = ops.add_rms_norm(x, delta, layer.ffn_norm, eps)
            delta = (
                self.moe(i, h, layer.ffn, n_tokens=n_rows, routes=routes)
                if layer.is_moe
                else ops.ffn(h, layer.ffn)
            )
        return self.logits(ops.add_rms_norm(x, delta, self.output_norm, eps))
