"""Greedy choice and top-k, top-p, min-p sampling on the device: one number a row leaves it.

The rules and their order are `runtime.sampler`'s: top-k, top-p over what is left, min-p, temperature, draw;
ties go to the lowest token. Penalties, logit bias and typical sampling stay there. The k largest are found by
rounds: every program sorts BLOCK candidates and keeps the first KEEP, until one program holds them all.

Floor in bytes: the logits once, 4 n_vocab a row; later rounds read a BLOCK / KEEP-th of the one before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_TOP_K = 128  # beyond, and without top-k, sampling stays on the host
BLOCK = 1024  # candidates of a program
MIN_TEMPERATURE = 1e-6
LEAST_KEY = tl.constexpr(-0x7FFFFFFFFFFFFFFF)


@triton.jit
def _ordered(logit, token):
    """One integer that sorts first by logit, then by the lower token."""
    bits = logit.to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # negative floats order backwards
    return (bits.to(tl.int64) << 32) | (0x7FFFFFFF - token).to(tl.int64)


@triton.jit
def _logit_of(key):
    bits = (key >> 32).to(tl.int32)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.float32, bitcast=True)


@triton.jit
def first_round_kernel(p_logit, p_key, n_vocab, BLOCK: tl.constexpr, KEEP: tl.constexpr):
    """The KEEP largest keys of block `program 1` of row `program 0`, largest first."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    logit = tl.load(p_logit + row * n_vocab + token, mask=token < n_vocab, other=float("-inf"))
    _keep(_ordered(logit + 0.0, token), p_key, row, KEEP)


@triton.jit
def next_round_kernel(p_from, p_key, n, BLOCK: tl.constexpr, KEEP: tl.constexpr):
    """The KEEP largest of each BLOCK keys of the round before, of which a row has n."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    _keep(
        tl.load(p_from + row * n + i, mask=i < n, other=-0x7FFFFFFFFFFFFFFF), p_key, row, KEEP
    )  # fmt: skip


@triton.jit
def _keep(key, p_key, row, KEEP: tl.constexpr):
    """Stores the KEEP largest of `key` one after the other; keys differ, so the largest can be struck out."""
    out = p_key + (row * tl.num_programs(1) + tl.program_id(1)) * KEEP
    for i in range(KEEP):
        best = tl.max(key, 0)
        tl.store(out + i, best)
        key = tl.where(key == best, LEAST_KEY, key)


@triton.jit
def draw_kernel(
    p_key, p_uniform, p_temperature, p_top_k, p_top_p, p_min_p, p_o, n, KEEP: tl.constexpr
):  # fmt: skip
    """Row `program 0`: cuts its n candidates, largest first, and draws one by `uniform` in [0, 1)."""
    row = tl.program_id(0)
    i = tl.arange(0, KEEP)
    top_k = tl.load(p_top_k + row)
    m_kept = (i < n) & (i < top_k)
    key = tl.load(p_key + row.to(tl.int64) * n + i, mask=m_kept, other=0)
    logit = tl.where(m_kept, _logit_of(key), float("-inf"))
    highest = tl.max(logit, 0)
    # In float64 like the host, so that the same token is cut.
    p = tl.where(m_kept, tl.exp((logit - highest).to(tl.float64)), 0.0)
    cumulative = tl.cumsum(p / tl.sum(p, 0), 0)
    top_p = tl.load(p_top_p + row)
    before = tl.sum((m_kept & (cumulative < top_p)).to(tl.int32), 0)
    m_kept = m_kept & (i <= tl.where(top_p < 1, before, KEEP))
    m_kept = m_kept & (logit >= highest + tl.load(p_min_p + row))
    temperature = tl.load(p_temperature + row)
    p = tl.where(m_kept, tl.exp(((logit - highest) / temperature).to(tl.float64)), 0.0)
    cumulative = tl.cumsum(p / tl.sum(p, 0), 0)
    threshold = tl.load(p_uniform + row) * tl.max(cumulative, 0)
    drawn = tl.sum((m_kept & (cumulative <= threshold)).to(tl.int32), 0)
    drawn = tl.minimum(drawn, tl.sum(m_kept.to(tl.int32), 0) - 1)
    chosen = tl.sum(tl.where(i == drawn, key, 0), 0)
    tl.store(p_o + row, 0x7FFFFFFF - (chosen & 0x7FFFFFFF).to(tl.int32))


@dataclass(frozen=True, slots=True)
class Rules:
    """How each row is sampled, on the device, [n_rows]: `top_k` int32 in 1 .. MOST_TOP_K; `top_p` float64;
    `log_min_p` float32, the logit below the highest from which tokens are cut (-inf: off); `temperature`
    float32 above zero. A top_k of 1 is greedy."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    log_min_p: Tensor


def rules_of(params: list[tuple[float, int, float, float]], device: torch.device | str) -> Rules:
    """From (temperature, top_k, top_p, min_p) of each row, as `SamplingParams` has them; temperature 0 is
    greedy. Raises ValueError for a top_k that is off or too large."""
    ks = [1 if temperature == 0 else top_k for temperature, top_k, _, _ in params]
    for k in ks:
        if not 0 < k <= MOST_TOP_K:
            raise ValueError(f"top-k is {k}: sampling on the device takes 1 to {MOST_TOP_K}")

    def tensor(values: list[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return Rules(
        tensor([max(p[0], MIN_TEMPERATURE) for p in params], torch.float32),
        torch.tensor(ks, dtype=torch.int32, device=device),
        tensor([p[2] for p in params], torch.float64),
        tensor([math.log(p[3]) if p[3] > 0 else -math.inf for p in params], torch.float32),
    )


def best_keys(logits: Tensor, keep: int) -> Tensor:
    """The `keep` (a power of two) or more largest of each row as sorted keys, int64 [n_rows, n]."""
    n_rows, n = logits.shape
    keys = logits
    block = min(BLOCK, triton.next_power_of_2(n))
    keep = min(keep, block)
    while True:
        n_blocks = triton.cdiv(n, block)
        out = torch.empty(n_rows, n_blocks * keep, dtype=torch.int64, device=logits.device)
        kernel = first_round_kernel if keys is logits else next_round_kernel
        kernel[(n_rows, n_blocks)](keys, out, n, BLOCK=block, KEEP=keep)
        if n_blocks == 1:
            return out
        keys, n = out, n_blocks * keep


def sample(logits: Tensor, rules: Rules, uniform: Tensor, *, most_k: int) -> Tensor:
    """A token for each row, int32 [n_rows] on the device.

    logits float32 [n_rows, n_vocab], contiguous; uniform float64 [n_rows] in [0, 1); `most_k`: the largest of
    `rules.top_k`, known on the host.
    """
    n_rows, n_vocab = logits.shape
    keys = best_keys(logits, triton.next_power_of_2(most_k))
    n = min(keys.shape[1], n_vocab)
    out = torch.empty(n_rows, dtype=torch.int32, device=logits.device)
    draw_kernel[(n_rows,)](
        keys if n == keys.shape[1] else keys[:, :n].contiguous(),
        uniform, rules.temperature, rules.top_k, rules.top_p, rules.log_min_p, out, n,
        KEEP=triton.next_power_of_2(n), num_warps=1,
    )  # fmt: skip
    return out


def sample_reference(logits: Tensor, rules: Rules, uniform: Tensor) -> Tensor:
    """`sample` in plain torch, row by row."""
    out = []
    for row, values in enumerate(logits):
        kept, tokens = torch.sort(values, descending=True, stable=True)
        kept, tokens = (x[: int(rules.top_k[row])] for x in (kept, tokens))
        if rules.top_p[row] < 1:
            cumulative = torch.cumsum(torch.softmax(kept.double(), 0), 0)
            kept = kept[: int((cumulative < rules.top_p[row]).sum()) + 1]
        kept = kept[kept >= kept[0] + rules.log_min_p[row]]
        cumulative = torch.cumsum(torch.softmax(((kept - kept[0]) / rules.temperature[row]).double(), 0), 0)
        drawn = int((cumulative <= uniform[row] * cumulative[-1]).sum())
        out.append(int(tokens[min(drawn, len(kept) - 1)]))
    return torch.tensor(out, dtype=torch.int32, device=logits.device)
