"""The tensors of architectures this version cannot run: names and shapes, so that sizes are exact.

Names and shapes are those llama.cpp loads (src/models/<arch>.cpp). Architectures that run have theirs in
`pintpot.synth.tensors`, which also knows how to fill them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from pintpot.spec.shape import Shape

Named: TypeAlias = tuple[str, tuple[int, ...]]  # name and shape in GGUF order, a row's length first

# Plain llama-like layers: norm, q/k/v, output, norm, gate/up/down or experts.
_LLAMA_LIKE: Final = (
    "mistral3",
    "smollm3",
    "granite",
    "granitehybrid",
    "llama4",
    "lfm2",
    "lfm2moe",
    "deepseek2",
)
ARCHITECTURES: Final = (*_LLAMA_LIKE, "gemma3", "glm4moe", "nemotron_h_moe", "olmo2", "phi3", "qwen3next")

_ROUTER_BIAS: Final = ("glm4moe", "lfm2moe", "nemotron_h_moe")


def inventory(shape: Shape) -> Iterator[Named]:
    """Every tensor of a model of one of ARCHITECTURES."""
    n_embd, arch = shape.n_embd, shape.arch
    yield "token_embd.weight", (n_embd, shape.n_vocab)
    if arch == "llama4" or (arch == "phi3" and shape.rope_dim):
        n = (shape.rope_dim or shape.head_dim) // 2
        names = ("rope_freqs",) if arch == "llama4" else ("rope_factors_long", "rope_factors_short")
        yield from ((f"{name}.weight", (n,)) for name in names)
    for layer in range(shape.n_layer):
        for stem, ne in _layer(shape, layer):
            yield f"blk.{layer}.{stem}", ne
    norm = "token_embd_norm.weight" if arch in ("lfm2", "lfm2moe") else "output_norm.weight"
    yield norm, (n_embd,)
    if not shape.tied:
        yield "output.weight", (n_embd, shape.n_vocab)


def _layer(s: Shape, layer: int) -> Iterator[Named]:
    mixer = s.mixers[layer] if s.mixers else "A"
    norm = (s.n_embd,)
    if s.arch != "olmo2":
        yield "attn_norm.weight", norm
    if mixer == "M":
        yield from _mamba(s)
    elif mixer == "C":
        yield from _short_conv(s)
    elif s.is_delta(layer):
        yield from _delta_net(s)
    elif mixer == "A":
        yield from _latent(s) if s.latent is not None else _attention(s)
    if s.arch == "nemotron_h_moe":  # a layer is a mixer or experts, never both
        if mixer == "E":
            yield from _ffn(s, layer)
        return
    if s.arch in ("gemma3", "olmo2", "glm4moe", "qwen3next"):
        yield "post_attention_norm.weight", norm
    if s.arch not in ("olmo2", "glm4moe", "qwen3next"):
        yield "ffn_norm.weight", norm
    yield from _ffn(s, layer)
    if s.arch in ("gemma3", "olmo2"):
        yield "post_ffw_norm.weight", norm


def _attention(s: Shape) -> Iterator[Named]:
    q, kv = s.n_head * s.head_dim, s.n_head_kv * s.head_dim
    if s.fused_qkv:
        yield "attn_qkv.weight", (s.n_embd, q + 2 * kv)
    else:
        gate = 2 if s.delta is not None else 1
        for letter, rows in (("q", q * gate), ("k", kv), ("v", kv)):
            yield f"attn_{letter}.weight", (s.n_embd, rows)
            if s.qkv_bias:
                yield f"attn_{letter}.bias", (rows,)
    if s.qk_norm:
        whole = s.arch == "olmo2"  # one norm over all heads
        yield "attn_q_norm.weight", (q if whole else s.head_dim,)
        yield "attn_k_norm.weight", (kv if whole else s.head_dim,)
    yield "attn_output.weight", (q, s.n_embd)


def _latent(s: Shape) -> Iterator[Named]:
    assert s.latent is not None
    a = s.latent
    rows = s.n_head * (a.nope_dim + a.rope_dim)
    if a.q_rank:
        yield "attn_q_a.weight", (s.n_embd, a.q_rank)
        yield "attn_q_a_norm.weight", (a.q_rank,)
        yield "attn_q_b.weight", (a.q_rank, rows)
    else:
        yield "attn_q.weight", (s.n_embd, rows)
    yield "attn_kv_a_mqa.weight", (s.n_embd, a.kv_rank + a.rope_dim)
    yield "attn_kv_a_norm.weight", (a.kv_rank,)
    yield "attn_k_b.weight", (a.nope_dim, a.kv_rank, s.n_head)
    yield "attn_v_b.weight", (a.kv_rank, a.value_dim, s.n_head)
    yield "attn_output.weight", (s.n_head * a.value_dim, s.n_embd)


def _mamba(s: Shape) -> Iterator[Named]:
    assert s.mamba is not None
    m = s.mamba
    yield "ssm_in.weight", (s.n_embd, m.inner_dim + m.conv_dim + m.n_head)
    yield "ssm_conv1d.weight", (m.conv_kernel, m.conv_dim)
    yield "ssm_conv1d.bias", (m.conv_dim,)
    yield "ssm_dt.bias", (m.n_head,)
    yield "ssm_a", (1, m.n_head)
    yield "ssm_d", (1, m.n_head)
    yield "ssm_norm.weight", (m.inner_dim // m.n_group, m.n_group)
    yield "ssm_out.weight", (m.inner_dim, s.n_embd)


def _short_conv(s: Shape) -> Iterator[Named]:
    yield "shortconv.conv.weight", (s.conv_kernel, s.n_embd)
    yield "shortconv.in_proj.weight", (s.n_embd, 3 * s.n_embd)
    yield "shortconv.out_proj.weight", (s.n_embd, s.n_embd)


def _delta_net(s: Shape) -> Iterator[Named]:
    assert s.delta is not None
    d = s.delta
    yield "attn_qkv.weight", (s.n_embd, d.conv_dim)
    yield "attn_gate.weight", (s.n_embd, d.value_dim)
    yield "ssm_conv1d.weight", (d.conv_kernel, d.conv_dim)
    yield "ssm_dt.bias", (d.n_head_v,)
    yield "ssm_a", (d.n_head_v,)
    yield "ssm_ba.weight", (s.n_embd, 2 * d.n_head_v)
    yield "ssm_norm.weight", (d.head_dim,)
    yield "ssm_out.weight", (d.value_dim, s.n_embd)


def _ffn(s: Shape, layer: int) -> Iterator[Named]:
    e = s.experts
    if e is None or layer < e.n_dense_lead:
        yield from _dense(s, "", s.n_ff)
        return
    yield "ffn_gate_inp.weight", (s.n_embd, e.n_expert)
    if s.arch in _ROUTER_BIAS or (s.latent is not None and s.latent.q_rank):
        yield "exp_probs_b.bias", (e.n_expert,)
    if s.arch != "nemotron_h_moe":
        yield "ffn_gate_exps.weight", (s.n_embd, e.n_ff, e.n_expert)
    yield "ffn_up_exps.weight", (s.n_embd, e.n_ff, e.n_expert)
    yield "ffn_down_exps.weight", (e.n_ff, s.n_embd, e.n_expert)
    if e.n_ff_shared:
        if s.arch == "qwen3next":
            yield "ffn_gate_inp_shexp.weight", (s.n_embd,)
        yield from _dense(s, "_shexp", e.n_ff_shared)


def _dense(s: Shape, suffix: str, n_ff: int) -> Iterator[Named]:
    if s.arch == "phi3":
        yield "ffn_up.weight", (s.n_embd, 2 * n_ff)  # gate and up as one
    else:
        if s.arch != "nemotron_h_moe":  # squared ReLU, no gate
            yield f"ffn_gate{suffix}.weight", (s.n_embd, n_ff)
        yield f"ffn_up{suffix}.weight", (s.n_embd, n_ff)
    yield f"ffn_down{suffix}.weight", (n_ff, s.n_embd)
