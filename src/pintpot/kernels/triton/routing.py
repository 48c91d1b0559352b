"""From router logits to experts and their weights, one program a token.

Floor in bytes: the logits once, 4 n_expert a token, and 8 n_expert_used written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.api import Gating

MIN_WEIGHT_SUM = tl.constexpr(2.0**-14)  # llama.cpp's floor when dividing expert weights by their sum


@triton.jit
def route_kernel(
    p_logit, p_id, p_weight, n_expert, factor,
    K: tl.constexpr, BK: tl.constexpr, BE: tl.constexpr, GATING: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    """The K highest scores of token `program 0`, highest first, ties by the lower expert."""
    token = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, BE)
    m_e = e < n_expert
    score = tl.load(p_logit + token * n_expert + e, mask=m_e, other=float("-inf"))
    if GATING == "softmax":
        p = tl.exp(score - tl.max(score, 0))
        score = p / tl.sum(p, 0)
    elif GATING == "sigmoid":
        score = tl.sigmoid(score)
    score = tl.where(m_e, score, float("-inf"))
    i = tl.arange(0, BK)
    weight = tl.full([BK], float("-inf"), tl.float32)
    ids = tl.zeros([BK], tl.int32)
    for step in range(K):
        best = tl.max(score, 0)
        chosen = tl.min(tl.where((score == best) & m_e, e, BE - 1), 0)
        weight = tl.where(i == step, best, weight)
        ids = tl.where(i == step, chosen, ids)
        score = tl.where(e == chosen, float("-inf"), score)
    if GATING == "softmax_topk":
        weight = tl.exp(weight - tl.max(weight, 0))
        weight = weight / tl.sum(weight, 0)
    weight = tl.where(i < K, weight, 0)
    if NORMALIZE:
        weight = weight / tl.maximum(tl.sum(weight, 0), MIN_WEIGHT_SUM)
    tl.store(p_id + token * K + i, ids, mask=i < K)
    tl.store(p_weight + token * K + i, weight * factor, mask=i < K)


def route(
    logits: Tensor, n_used: int, gating: Gating, *, normalize: bool, factor: float
) -> tuple[Tensor, Tensor]:
    """Experts int32 and weights float32, [n_tokens, n_used]; logits float32 [n_tokens, n_expert]."""
    n, n_expert = logits.shape
    ids = torch.empty(n, n_used, dtype=torch.int32, device=logits.device)
    weights = torch.empty(n, n_used, dtype=torch.float32, device=logits.device)
    route_kernel[(n,)](
        logits, ids, weights, n_expert, factor,
        K=n_used, BK=triton.next_power_of_2(n_used), BE=triton.next_power_of_2(n_expert),
        GATING=str(gating), NORMALIZE=normalize, num_warps=1,
    )  # fmt: skip
    return ids, weights


def route_reference(
    logits: Tensor, n_used: int, gating: Gating, *, normalize: bool, factor: float
) -> tuple[Tensor, Tensor]:
    """`route` in plain torch."""
    match gating:
        case Gating.SOFTMAX:
            scores = torch.softmax(logits, -1)
        case Gating.SIGMOID:
            scores = torch.sigmoid(logits)
        case Gating.SOFTMAX_TOPK:
            scores = logits
    weights, ids = torch.sort(scores, dim=-1, descending=True, stable=True)
    weights, ids = weights[:, :n_used], ids[:, :n_used]
    if gating is Gating.SOFTMAX_TOPK:
        weights = torch.softmax(weights, -1)
    if normalize:
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=MIN_WEIGHT_SUM.value)
    return ids.int(), weights * factor
