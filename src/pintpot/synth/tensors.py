"""The table of tensors of each architecture: name, shape, what it is, and how it is filled.

One table serves every size. Names and shapes are those llama.cpp's converters write; shapes are row-major
(GGUF stores them reversed), the last dimension being the one a dot product runs over.

Scales keep activations sane at any depth: a matrix has standard deviation gain / sqrt(cols), what is
added to the residual stream totals about as much as the embedding, attention scores have a deviation
near 1.4 and logits near 1.5. So the output is neither flat nor saturated, and every part of a layer matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pintpot.spec.shape import Shape

LOGIT_STD = 1.5
SCORE_STD = 1.4


@dataclass(frozen=True, slots=True)
class Normal:
    std: float
    mean: float = 0.0


@dataclass(frozen=True, slots=True)
class LogUniform:
    """sign * exp(uniform(log low, log high))."""

    low: float
    high: float
    sign: float = 1.0


@dataclass(frozen=True, slots=True)
class Values:
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Embedding:
    """Rows of [common | topic | local | own] parts, each of standard deviation `std` (weights.py)."""

    std: float


@dataclass(frozen=True, slots=True)
class Head:
    """Output rows with the topic and local parts of the embedding."""

    std: float


@dataclass(frozen=True, slots=True)
class Router:
    """Router rows scaled part by part; `depth` is the layer's position in the model, 0 to 1."""

    depth: float


@dataclass(frozen=True, slots=True)
class FinalNorm:
    """Norm before the head. `signed`: random signs, so that a tied head does not repeat its input."""

    signed: bool


Fill = Normal | LogUniform | Values | Embedding | Head | Router | FinalNorm


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    fill: Fill

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)


def tensor_table(shape: Shape) -> list[Tensor]:
    """Every tensor of the model, in file order."""
    return list(_Table(shape).model())


def llama3_factors(shape: Shape) -> tuple[float, ...]:
    """Frequency divisors of Llama 3.1 (low 1, high 4), as its configuration defines them."""
    low_wave, high_wave = shape.llama3_ctx / 1.0, shape.llama3_ctx / 4.0
    factors = []
    for i in range(shape.head_dim // 2):
        wave = 2 * math.pi * shape.rope_theta ** (2 * i / shape.head_dim)
        if wave < high_wave:
            factors.append(1.0)
        elif wave > low_wave:
            factors.append(shape.llama3_factor)
        else:
            smooth = (shape.llama3_ctx / wave - 1.0) / 3.0
            factors.append(1.0 / ((1.0 - smooth) / shape.llama3_factor + smooth))
    return tuple(factors)


class _Table:
    def __init__(self, shape: Shape) -> None:
        self.s = shape
        self.gemma = shape.arch == "gemma4"
        # The residual stream starts at this RMS: tied embeddings are as small as the head wants them,
        # which Gemma makes up for by multiplying with sqrt(n_embd).
        head_std = LOGIT_STD / math.sqrt(shape.n_embd)
        self.embd_std = head_std if shape.tied else 1.0
        self.stream = LOGIT_STD if self.gemma else self.embd_std
        self.out_gain = 0.7 * self.stream / math.sqrt(shape.n_layer)

    def model(self) -> Iterator[Tensor]:
        s = self.s
        yield Tensor("token_embd.weight", (s.n_vocab, s.n_embd), Embedding(self.embd_std))
        if s.per_layer is not None:
            width = s.per_layer.n_embd * s.n_layer
            std = 1.0 / math.sqrt(s.per_layer.n_embd)
            yield Tensor("per_layer_token_embd.weight", (s.n_vocab, width), Normal(std))
            yield Tensor("per_layer_model_proj.weight", (width, s.n_embd), Normal(1.0))
            yield self.norm("per_layer_proj_norm.weight", s.per_layer.n_embd)
        if self.gemma:
            rotated = s.head_dim // 8  # a quarter of the pairs; the others stand still
            still = s.head_dim // 2 - rotated
            yield Tensor("rope_freqs.weight", (s.head_dim // 2,), Values((1.0,) * rotated + (1e30,) * still))
        elif s.llama3_ctx:
            yield Tensor("rope_freqs.weight", (s.head_dim // 2,), Values(llama3_factors(s)))
        for layer in range(s.n_layer):
            yield from self.gemma_layer(layer) if self.gemma else self.layer(layer)
        for layer in range(s.n_layer, s.n_layer + s.n_mtp):
            yield from self.layer(layer)
            yield from self.mtp(layer)
        yield Tensor("output_norm.weight", (s.n_embd,), FinalNorm(signed=s.tied))
        if not s.tied:
            std = LOGIT_STD / math.sqrt(s.n_embd)
            yield Tensor("output.weight", (s.n_vocab, s.n_embd), Head(std))

    # --- pieces ------------------------------------------------------------------------------------
    def matrix(self, layer: int, stem: str, shape: tuple[int, ...], gain: float = 1.0) -> Tensor:
        std = gain / math.sqrt(shape[-1])
        return Tensor(f"blk.{layer}.{stem}.weight", shape, Normal(std))

    def norm(self, name: str, width: int, mean: float = 1.0) -> Tensor:
        return Tensor(name, (width,), Normal(0.1 * mean, mean))

    def layer_norm(self, layer: int, stem: str, width: int, mean: float = 1.0) -> Tensor:
        return self.norm(f"blk.{layer}.{stem}.weight", width, mean)

    def vector(self, layer: int, stem: str, shape: tuple[int, ...], fill: Fill) -> Tensor:
        return Tensor(f"blk.{layer}.{stem}", shape, fill)

    # --- layers ------------------------------------------------------------------------------------
    def layer(self, layer: int) -> Iterator[Tensor]:
        s = self.s
        yield self.layer_norm(layer, "attn_norm", s.n_embd)
        yield from self.delta_net(layer) if s.is_delta(layer) else self.attention(layer)
        post = s.arch in {"qwen35", "qwen35moe", "gpt-oss"}
        yield self.layer_norm(layer, "post_attention_norm" if post else "ffn_norm", s.n_embd)
        if s.experts is None:
            yield from self.ffn(layer, "", s.n_ff)
        else:
            yield from self.moe(layer)

    def attention(self, layer: int) -> Iterator[Tensor]:
        s = self.s
        head_dim, n_kv = s.layer_head_dim(layer), s.layer_n_head_kv(layer)
        gated = s.delta is not None
        q_rows, kv_rows = s.n_head * head_dim * (2 if gated else 1), n_kv * head_dim
        gain = 1.0 if s.qk_norm else math.sqrt(SCORE_STD)
        has_v = not (s.k_eq_v and not s.is_sliding(layer))
        if s.fused_qkv and s.has_kv(layer) and has_v:
            yield self.matrix(layer, "attn_qkv", (q_rows + 2 * kv_rows, s.n_embd), gain)
            if s.qkv_bias:
                yield self.vector(layer, "attn_qkv.bias", (q_rows + 2 * kv_rows,), Normal(0.3))
        else:
            yield self.matrix(layer, "attn_q", (q_rows, s.n_embd), gain)
            if s.has_kv(layer):
                yield self.matrix(layer, "attn_k", (kv_rows, s.n_embd), gain)
                if has_v:
                    yield self.matrix(layer, "attn_v", (kv_rows, s.n_embd))
            if s.qkv_bias:
                for letter, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows)):
                    yield self.vector(layer, f"attn_{letter}.bias", (rows,), Normal(0.3))
        if s.qk_norm:
            # Gemma's scores are not divided by sqrt(head_dim): its norms carry that.
            mean = math.sqrt(SCORE_STD) / (head_dim**0.25 if self.gemma else 1.0)
            yield self.layer_norm(layer, "attn_q_norm", head_dim, mean)
            if s.has_kv(layer):
                yield self.layer_norm(layer, "attn_k_norm", head_dim, mean)
        if s.arch == "gpt-oss":
            yield self.vector(layer, "attn_sinks.weight", (s.n_head,), Normal(1.0, 1.0))
        out_gain = 2.0 * self.out_gain  # averaging over tokens makes values smaller
        yield self.matrix(layer, "attn_output", (s.n_embd, s.n_head * head_dim), out_gain)
        if s.arch == "gpt-oss":
            yield self.vector(layer, "attn_output.bias", (s.n_embd,), Normal(0.1))

    def delta_net(self, layer: int) -> Iterator[Tensor]:
        s = self.s
        assert s.delta is not None
        d = s.delta
        yield self.matrix(layer, "attn_qkv", (d.conv_dim, s.n_embd))
        yield self.matrix(layer, "attn_gate", (d.value_dim, s.n_embd))
        yield self.vector(layer, "ssm_conv1d.weight", (d.conv_dim, d.conv_kernel), Normal(0.5, 0.1))
        # Decay exp(a * softplus(alpha + dt)): memories from a few tokens to a few hundred.
        yield self.vector(layer, "ssm_dt.bias", (d.n_head_v,), Normal(1.0, -2.0))
        yield self.vector(layer, "ssm_a", (d.n_head_v,), LogUniform(0.03, 2.0, sign=-1.0))
        yield self.matrix(layer, "ssm_beta", (d.n_head_v, s.n_embd))
        yield self.matrix(layer, "ssm_alpha", (d.n_head_v, s.n_embd))
        yield self.layer_norm(layer, "ssm_norm", d.head_dim)
        yield self.matrix(layer, "ssm_out", (s.n_embd, d.value_dim), self.out_gain)

    def ffn(self, layer: int, suffix: str, n_ff: int, gain: float = 1.0) -> Iterator[Tensor]:
        n_embd = self.s.n_embd
        yield self.matrix(layer, f"ffn_gate{suffix}", (n_ff, n_embd))
        yield self.matrix(layer, f"ffn_up{suffix}", (n_ff, n_embd))
        down_gain = gain * 1.5 * self.out_gain
        yield self.matrix(layer, f"ffn_down{suffix}", (n_embd, n_ff), down_gain)

    def moe(self, layer: int) -> Iterator[Tensor]:
        s = self.s
        assert s.experts is not None
        e = s.experts
        yield self.vector(
            layer, "ffn_gate_inp.weight", (e.n_expert, s.n_embd), Router(min(1.0, (layer + 0.5) / s.n_layer))
        )
        biased = s.arch == "gpt-oss"
        if biased:
            yield self.vector(layer, "ffn_gate_inp.bias", (e.n_expert,), Normal(0.3))
        if s.fused_gate_up:
            rows = (e.n_expert, 2 * e.n_ff, s.n_embd)
            yield self.matrix(layer, "ffn_gate_up_exps", rows)
        else:
            yield self.matrix(layer, "ffn_gate_exps", (e.n_expert, e.n_ff, s.n_embd))
            yield self.matrix(layer, "ffn_up_exps", (e.n_expert, e.n_ff, s.n_embd))
        # k experts with weights summing to 1; gpt-oss's (up + 1) * gate is larger than SwiGLU
        gain = (1.0 if biased else 1.5) * self.out_gain * math.sqrt(e.n_used)
        yield self.matrix(layer, "ffn_down_exps", (e.n_expert, s.n_embd, e.n_ff), gain)
        if biased:
            for stem, width in (("gate", e.n_ff), ("up", e.n_ff), ("down", s.n_embd)):
                yield self.vector(layer, f"ffn_{stem}_exps.bias", (e.n_expert, width), Normal(0.1))
        if e.n_ff_shared:
            yield self.vector(
                layer, "ffn_gate_inp_shexp.weight", (s.n_embd,), Normal(1.0 / math.sqrt(s.n_embd))
            )
            yield from self.ffn(layer, "_shexp", e.n_ff_shared)

    def gemma_layer(self, layer: int) -> Iterator[Tensor]:
        s = self.s
        # Post-norms set what a branch adds, whatever its matrices' scale.
        added = self.out_gain
        yield self.layer_norm(layer, "attn_norm", s.n_embd)
        yield from self.attention(layer)
        yield self.layer_norm(layer, "post_attention_norm", s.n_embd, added)
        yield self.layer_norm(layer, "ffn_norm", s.n_embd)
        yield from self.ffn(layer, "", s.layer_n_ff(layer))
        yield self.layer_norm(layer, "post_ffw_norm", s.n_embd, added)
        if s.experts is not None:
            yield from self.moe(layer)
            root = math.sqrt(s.n_embd)  # undoes the router's own 1/sqrt(n_embd)
            yield self.vector(layer, "ffn_gate_inp.scale", (s.n_embd,), Normal(0.1 * root, root))
            yield self.vector(layer, "ffn_down_exps.scale", (s.experts.n_expert,), Normal(0.2, 1.0))
            yield self.layer_norm(layer, "pre_ffw_norm_2", s.n_embd)
            yield self.layer_norm(layer, "post_ffw_norm_1", s.n_embd, 0.7)
            yield self.layer_norm(layer, "post_ffw_norm_2", s.n_embd, 0.7)
        if s.per_layer is not None:
            width = s.per_layer.n_embd
            yield self.matrix(layer, "inp_gate", (width, s.n_embd), 1.0 / self.stream)
            yield self.matrix(layer, "proj", (s.n_embd, width))
            yield self.layer_norm(layer, "post_norm", s.n_embd, 0.5 * added)
        yield self.vector(layer, "layer_output_scale.weight", (1,), LogUniform(0.9, 1.1))

    def mtp(self, layer: int) -> Iterator[Tensor]:
        n_embd = self.s.n_embd
        yield self.matrix(layer, "nextn.eh_proj", (n_embd, 2 * n_embd))
        for stem in ("nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"):
            yield self.layer_norm(layer, stem, n_embd)
