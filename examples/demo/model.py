"""A small Qwen3-MoE in PyTorch: the architecture of transformers' `Qwen3MoeForCausalLM`, for CPU training.

Parameter names are its own (see `export.py` for GGUF's and transformers' names). Parameters are float32;
under torch.autocast the products run in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own idiom)
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """The model's shape. Every matrix has a multiple of 256 columns, so every K-quant applies."""

    n_vocab: int = 4096
    n_embd: int = 256
    n_layer: int = 4
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 64
    n_expert: int = 16
    n_expert_used: int = 2
    n_ff: int = 256  # of one expert
    ctx_train: int = 1024
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6


class Output(NamedTuple):
    """What one forward pass gives: logits (tokens, vocab) and the router losses, meaned over layers."""

    logits: Tensor
    balance_loss: Tensor  # Switch Transformer's: 1 when every expert gets the same share
    z_loss: Tensor  # squared log-partition of the router
    expert_share: Tensor  # (layers, experts): share of the selections


def rope_tables(cfg: DemoConfig, ctx: int) -> tuple[Tensor, Tensor]:
    """(cos, sin), each (ctx, head_dim / 2)."""
    freqs = cfg.rope_theta ** (-torch.arange(0, cfg.head_dim, 2, dtype=torch.float64) / cfg.head_dim)
    angles = torch.outer(torch.arange(ctx, dtype=torch.float64), freqs)
    return angles.cos().float(), angles.sin().float()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (…, ctx, head_dim) in NeoX pairs (i, i + head_dim / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    """Causal grouped-query attention with RMS norms on each head of q and k."""

    def __init__(self, cfg: DemoConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.q = nn.Linear(cfg.n_embd, cfg.n_head * cfg.head_dim, bias=False)
        self.k = nn.Linear(cfg.n_embd, cfg.n_head_kv * cfg.head_dim, bias=False)
        self.v = nn.Linear(cfg.n_embd, cfg.n_head_kv * cfg.head_dim, bias=False)
        self.out = nn.Linear(cfg.n_head * cfg.head_dim, cfg.n_embd, bias=False)
        self.q_norm = nn.RMSNorm(cfg.head_dim, eps=cfg.norm_eps)
        self.k_norm = nn.RMSNorm(cfg.head_dim, eps=cfg.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: (rows, ctx, n_embd)."""
        rows, ctx, _ = x.shape
        cfg = self.cfg
        q = self.q_norm(self.q(x).view(rows, ctx, cfg.n_head, cfg.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(rows, ctx, cfg.n_head_kv, cfg.head_dim)).transpose(1, 2)
        v = self.v(x).view(rows, ctx, cfg.n_head_kv, cfg.head_dim).transpose(1, 2)
        q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        group = cfg.n_head // cfg.n_head_kv
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(rows, ctx, -1))
        return out


class Experts(nn.Module):
    """Softmax over all experts, the top k renormalized to sum 1, SwiGLU in each."""

    def __init__(self, cfg: DemoConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.router = nn.Linear(cfg.n_embd, cfg.n_expert, bias=False)
        self.gate_up = nn.Parameter(torch.empty(cfg.n_expert, 2 * cfg.n_ff, cfg.n_embd))
        self.down = nn.Parameter(torch.empty(cfg.n_expert, cfg.n_embd, cfg.n_ff))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x: (tokens, n_embd) to (out, balance loss, z loss, share of selections per expert).

        Tokens are sorted by expert, so that every expert does two plain matrix products.
        """
        cfg = self.cfg
        router_logits = self.router(x)
        probs = router_logits.softmax(dim=-1)
        weights, chosen = probs.topk(cfg.n_expert_used, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        flat = chosen.reshape(-1)
        order = flat.argsort()
        counts = torch.bincount(flat, minlength=cfg.n_expert)
        token = order // cfg.n_expert_used
        pieces = torch.split(x.index_select(0, token), counts.tolist())
        outs = []
        for piece, gate_up, down in zip(pieces, self.gate_up.unbind(0), self.down.unbind(0), strict=True):
            gate, up = F.linear(piece, gate_up).chunk(2, dim=-1)
            outs.append(F.linear(F.silu(gate) * up, down))
        weighted = torch.cat(outs) * weights.reshape(-1).index_select(0, order).unsqueeze(1)
        out = torch.zeros_like(x).index_add(0, token, weighted.to(x.dtype))
        share = counts / flat.numel()
        balance = cfg.n_expert * (share * probs.mean(dim=0)).sum()
        z = router_logits.logsumexp(dim=-1).square().mean()
        return out, balance, z, share


class Block(nn.Module):
    """One layer: norm, attention, norm, experts, each added to the residual stream."""

    def __init__(self, cfg: DemoConfig) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(cfg.n_embd, eps=cfg.norm_eps)
        self.attn = Attention(cfg)
        self.ffn_norm = nn.RMSNorm(cfg.n_embd, eps=cfg.norm_eps)
        self.experts = Experts(cfg)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = x + self.attn(self.attn_norm(x), cos, sin)
        mixed, balance, z, share = self.experts(self.ffn_norm(x).flatten(0, 1))
        return x + mixed.view_as(x), balance, z, share


class DemoModel(nn.Module):
    """Token ids (rows, ctx) to logits (rows * ctx, vocab)."""

    def __init__(self, cfg: DemoConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.embd = nn.Embedding(cfg.n_vocab, cfg.n_embd)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layer))
        self.out_norm = nn.RMSNorm(cfg.n_embd, eps=cfg.norm_eps)
        self.out = nn.Linear(cfg.n_embd, cfg.n_vocab, bias=False)

    def init_weights(self, seed: int) -> None:
        """Normal weights of deviation 0.02; those that write to the residual stream shrunk by depth."""
        generator = torch.Generator().manual_seed(seed)
        residual = 0.02 / (2 * self.cfg.n_layer) ** 0.5
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.ndim == 1:
                    p.fill_(1.0)
                else:
                    std = residual if name.endswith(("attn.out.weight", "experts.down")) else 0.02
                    p.normal_(0.0, std, generator=generator)

    def forward(self, ids: Tensor) -> Output:
        cos, sin = rope_tables(self.cfg, ids.shape[1])
        x = self.embd(ids)
        balances, zs, shares = [], [], []
        for block in self.blocks:
            x, balance, z, share = block(x, cos, sin)
            balances.append(balance)
            zs.append(z)
            shares.append(share)
        logits = self.out(self.out_norm(x).flatten(0, 1))
        return Output(logits, torch.stack(balances).mean(), torch.stack(zs).mean(), torch.stack(shares))
