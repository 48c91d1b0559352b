"""Gated delta net: causal convolution, the recurrence token by token and in chunks, the gated norm.

The recurrence of `kernels.api.DeltaNetWeights` (Yang et al. 2024, arXiv:2412.06464). In a chunk that begins
with memory S, let c_i be the sum of log g up to token i. Unrolled, the memory after token i is

    S_i = e^c_i S + sum_{j <= i} e^(c_i - c_j) k_j u_j,   u_i = beta_i (v_i - e^c_i k_i.S
                                                                 - sum_{j < i} e^(c_i - c_j) (k_i.k_j) u_j)

so u solves a triangular system of the size of the chunk, and the rest is products of small matrices. The
package flash-linear-attention computes the chunks of one sequence in parallel; here a program takes a head
and some of its columns through the sequence, and memory is read and written once.

Floor in bytes: the memory of each sequence read and written once a step (8 n_head_v head_dim_k head_dim_v),
q, k, v, gates and the result once; the chunked kernel reads q and k once for each BV columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
import triton
import triton.language as tl
from torch import Tensor

from pintpot.kernels.triton.batch import DeviceBatch
from pintpot.spec.cache import DeltaStateLayout

CHUNK = 16  # tokens; the least that tl.dot takes, and the system to solve is small


@triton.jit
def conv_kernel(
    p_x, p_past, p_weight, p_slot, p_place, p_o, width, TAPS: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """o = silu(sum over taps of weight[c, j] * (past | x)[place + j, c]); past [n_slots, TAPS - 1, width]."""
    token = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    m_c = c < width
    place = tl.load(p_place + token)
    o_past = tl.load(p_slot + token).to(tl.int64) * (TAPS - 1) * width
    acc = tl.zeros([BC], tl.float32)
    for j in tl.static_range(TAPS):
        back = TAPS - 1 - j
        if place >= back:
            x = tl.load(p_x + (token - back) * width + c, mask=m_c, other=0)
        else:
            x = tl.load(p_past + o_past + (place + j) * width + c, mask=m_c, other=0)
        acc += x * tl.load(p_weight + c * TAPS + j, mask=m_c, other=0)
    tl.store(p_o + token * width + c, acc * tl.sigmoid(acc), mask=m_c)


@triton.jit
def conv_state_kernel(
    p_x, p_past, p_slot, p_start, p_count, width, TAPS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """The last TAPS - 1 inputs of segment `program 0` become its past."""
    segment = tl.program_id(0)
    c = (tl.program_id(1) * BC + tl.arange(0, BC))[None, :]
    i = tl.arange(0, BT)[:, None]
    n = tl.load(p_count + segment)
    start = tl.load(p_start + segment).to(tl.int64)
    p_past += tl.load(p_slot + segment).to(tl.int64) * (TAPS - 1) * width
    m_tile = (i < TAPS - 1) & (c < width)
    at = n + i - (TAPS - 1)  # in x; negative: still of the past
    old = tl.load(p_past + (n + i) * width + c, mask=m_tile & (at < 0), other=0)
    new = tl.load(p_x + (start + at) * width + c, mask=m_tile & (at >= 0), other=0)
    tl.debug_barrier()  # rows move down: all are read before any is written
    tl.store(p_past + i * width + c, tl.where(at < 0, old, new), mask=m_tile)


@triton.jit
def _log_decay(alpha, p_a, p_dt_bias, head):
    """a * softplus(alpha + dt_bias)."""
    x = alpha + tl.load(p_dt_bias + head)
    return tl.load(p_a + head) * (tl.maximum(x, 0) + tl.log(1 + tl.exp(-tl.abs(x))))


@triton.jit
def step_kernel(
    p_qkv, p_alpha, p_beta, p_a, p_dt_bias, p_memory, p_slot, p_start, p_count, p_o, eps, q_scale,
    HK: tl.constexpr, HV: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BDK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Segment `program 0`, head `program 1`, BV columns: token by token, the memory in registers."""
    segment = tl.program_id(0)
    head = tl.program_id(1)
    d_k = tl.arange(0, BDK)
    d_v = tl.program_id(2) * BV + tl.arange(0, BV)
    m_k = d_k < DK
    m_v = d_v < DV
    WIDTH: tl.constexpr = 2 * HK * DK + HV * DV
    o_memory = (tl.load(p_slot + segment).to(tl.int64) * HV + head) * DK * DV
    p_memory += o_memory + d_k[:, None] * DV + d_v[None, :]
    m_memory = m_k[:, None] & m_v[None, :]
    memory = tl.load(p_memory, mask=m_memory, other=0)
    start = tl.load(p_start + segment).to(tl.int64)
    for t in range(tl.load(p_count + segment)):
        token = start + t
        row = p_qkv + token * WIDTH
        q = tl.load(row + (head % HK) * DK + d_k, mask=m_k, other=0)
        k = tl.load(row + (HK + head % HK) * DK + d_k, mask=m_k, other=0)
        v = tl.load(row + 2 * HK * DK + head * DV + d_v, mask=m_v, other=0)
        q *= tl.rsqrt(tl.sum(q * q, 0) + eps) * q_scale
        k *= tl.rsqrt(tl.sum(k * k, 0) + eps)
        beta = tl.sigmoid(tl.load(p_beta + token * HV + head))
        memory *= tl.exp(_log_decay(tl.load(p_alpha + token * HV + head), p_a, p_dt_bias, head))
        error = (v - tl.sum(k[:, None] * memory, 0)) * beta
        memory += k[:, None] * error[None, :]
        read = tl.sum(q[:, None] * memory, 0)
        tl.store(p_o + (token * HV + head) * DV + d_v, read, mask=m_v)
    tl.store(p_memory, memory, mask=m_memory)


@triton.jit
def _unit_rows(p, m_tile, eps):
    """Rows divided by sqrt(sum of squares + eps)."""
    x = tl.load(p, mask=m_tile, other=0)
    return x * tl.rsqrt(tl.sum(x * x, 1) + eps)[:, None]


@triton.jit
def chunk_kernel(
    p_qkv, p_alpha, p_beta, p_a, p_dt_bias, p_memory, p_slot, p_start, p_count, p_o, eps, q_scale,
    HK: tl.constexpr, HV: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BDK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """`step_kernel` in chunks of C tokens."""
    segment = tl.program_id(0)
    head = tl.program_id(1)
    d_k = tl.arange(0, BDK)
    d_v = tl.program_id(2) * BV + tl.arange(0, BV)
    i = tl.arange(0, C)
    WIDTH: tl.constexpr = 2 * HK * DK + HV * DV
    o_memory = (tl.load(p_slot + segment).to(tl.int64) * HV + head) * DK * DV
    p_memory += o_memory + d_k[:, None] * DV + d_v[None, :]
    m_memory = (d_k < DK)[:, None] & (d_v < DV)[None, :]
    memory = tl.load(p_memory, mask=m_memory, other=0)
    start = tl.load(p_start + segment).to(tl.int64)
    n = tl.load(p_count + segment)
    for t in range(0, n, C):
        m_i = t + i < n
        token = start + t + i
        m_k = m_i[:, None] & (d_k < DK)[None, :]
        m_v = m_i[:, None] & (d_v < DV)[None, :]
        row = p_qkv + token[:, None] * WIDTH
        q = _unit_rows(row + (head % HK) * DK + d_k[None, :], m_k, eps) * q_scale
        k = _unit_rows(row + (HK + head % HK) * DK + d_k[None, :], m_k, eps)
        v = tl.load(row + 2 * HK * DK + head * DV + d_v[None, :], mask=m_v, other=0)
        beta = tl.where(m_i, tl.sigmoid(tl.load(p_beta + token * HV + head, mask=m_i, other=0)), 0)
        alpha = tl.load(p_alpha + token * HV + head, mask=m_i, other=0)
        log_g = tl.where(m_i, _log_decay(alpha, p_a, p_dt_bias, head), 0)  # behind the end nothing decays
        total = tl.cumsum(log_g, 0)
        m_past = i[:, None] >= i[None, :]
        decay = tl.where(m_past, tl.exp(tl.where(m_past, total[:, None] - total[None, :], 0)), 0)
        grown = tl.exp(total)[:, None]

        before = tl.dot(k, memory, input_precision="ieee")
        u = beta[:, None] * (v - grown * before)
        k_t = tl.trans(k)
        system = tl.where(
            i[:, None] > i[None, :], beta[:, None] * decay * tl.dot(k, k_t, input_precision="ieee"), 0
        )
        for step in range(1, C):  # forward substitution, row after row
            coefficients = tl.sum(tl.where((i == step)[:, None], system, 0), 0)
            u -= tl.where((i == step)[:, None], tl.sum(coefficients[:, None] * u, 0)[None, :], 0)

        read = grown * tl.dot(q, memory, input_precision="ieee")
        read = tl.dot(decay * tl.dot(q, k_t, input_precision="ieee"), u, read, input_precision="ieee")
        tl.store(p_o + (token * HV + head)[:, None] * DV + d_v[None, :], read, mask=m_v)
        last = tl.sum(log_g, 0)
        left = k * tl.exp(last - total)[:, None]
        memory = tl.dot(tl.trans(left), u, memory * tl.exp(last), input_precision="ieee")
    tl.store(p_memory, memory, mask=m_memory)


@triton.jit
def gated_norm_kernel(p_x, p_weight, p_z, p_o, eps, DIM: tl.constexpr, BD: tl.constexpr):
    """o = rms_norm(x) * weight * silu(z) of row `program 0`."""
    row = tl.program_id(0).to(tl.int64) * DIM
    d = tl.arange(0, BD)
    m_d = d < DIM
    x = tl.load(p_x + row + d, mask=m_d, other=0)
    z = tl.load(p_z + row + d, mask=m_d, other=0)
    y = x * tl.rsqrt(tl.sum(x * x, 0) / DIM + eps) * tl.load(p_weight + d, mask=m_d, other=0)
    tl.store(p_o + row + d, y * z * tl.sigmoid(z), mask=m_d)


class DeviceDeltaState:
    """One layer's state, float32, zero at first: `conv` [n_slots, conv_kernel - 1, conv_dim], `memory`
    [n_slots, n_head_v, head_dim_k, head_dim_v]."""

    def __init__(self, layout: DeltaStateLayout, device: torch.device | str) -> None:
        n = layout.n_slots
        self.conv = torch.zeros(n, layout.conv_kernel - 1, layout.conv_dim, device=device)
        self.memory = torch.zeros(n, layout.n_head_v, layout.head_dim_k, layout.head_dim_v, device=device)

    @property
    def nbytes(self) -> int:
        return self.conv.nbytes + self.memory.nbytes

    def reset(self, slot: int) -> None:
        self.conv[slot] = 0
        self.memory[slot] = 0

    def copy_slot(self, src: int, dst: int) -> None:
        self.conv[dst] = self.conv[src]
        self.memory[dst] = self.memory[src]

    def save(self, slot: int) -> bytes:
        both = torch.cat((self.conv[slot].flatten(), self.memory[slot].flatten()))
        return both.cpu().numpy().tobytes()

    def restore(self, slot: int, saved: bytes | bytearray | memoryview) -> None:
        both = torch.frombuffer(bytearray(saved), dtype=torch.float32).to(self.conv.device)
        n_conv = self.conv[slot].numel()
        self.conv[slot] = both[:n_conv].view(self.conv[slot].shape)
        self.memory[slot] = both[n_conv:].view(self.memory[slot].shape)


@dataclass(frozen=True, slots=True)
class DeltaShape:
    """Of one layer, with its small weights, float32: `conv` [conv_dim, taps], `dt_bias`, `a` [n_head_v],
    `norm` [head_dim_v]."""

    n_head_k: int
    n_head_v: int
    head_dim_k: int
    head_dim_v: int
    norm_eps: float
    conv: Tensor
    dt_bias: Tensor
    a: Tensor
    norm: Tensor


def causal_conv(x: Tensor, state: DeviceDeltaState, shape: DeltaShape, batch: DeviceBatch) -> Tensor:
    """silu of the causal convolution of x float32 [n_tokens, conv_dim]; the state's past moves on."""
    width, taps = shape.conv.shape
    out = torch.empty_like(x)
    bc = min(1024, triton.next_power_of_2(width))
    n_blocks = triton.cdiv(width, bc)
    conv_kernel[(batch.n_tokens, n_blocks)](
        x, state.conv, shape.conv, batch.slots, batch.places, out, width, TAPS=taps, BC=bc
    )
    conv_state_kernel[(len(batch.segments), n_blocks)](
        x, state.conv, batch.segment_slots, batch.starts, batch.counts, width,
        TAPS=taps, BT=triton.next_power_of_2(taps - 1), BC=bc,
    )  # fmt: skip
    return out


def delta_rule(
    qkv: Tensor,
    alpha: Tensor,
    beta: Tensor,
    state: DeviceDeltaState,
    shape: DeltaShape,
    batch: DeviceBatch,
    *,
    chunked: bool | None = None,
) -> Tensor:
    """What queries read from the memory, float32 [n_tokens, n_head_v, head_dim_v]; the memory moves on.

    qkv [n_tokens, conv_dim] after the convolution; alpha, beta [n_tokens, n_head_v] before their
    nonlinearities. `chunked` None: where a segment fills a chunk.
    """
    s = shape
    chunked = batch.most_new >= CHUNK if chunked is None else chunked
    out = torch.empty(len(qkv), s.n_head_v, s.head_dim_v, dtype=torch.float32, device=qkv.device)
    args = (
        qkv, alpha, beta, s.a, s.dt_bias, state.memory, batch.segment_slots, batch.starts, batch.counts, out,
        s.norm_eps, s.head_dim_k**-0.5,
    )  # fmt: skip
    sizes = {"HK": s.n_head_k, "HV": s.n_head_v, "DK": s.head_dim_k, "DV": s.head_dim_v}
    bv = max(16, min(32, triton.next_power_of_2(s.head_dim_v)))
    bdk = max(16, triton.next_power_of_2(s.head_dim_k))
    grid = (len(batch.segments), s.n_head_v, triton.cdiv(s.head_dim_v, bv))
    if chunked:
        chunk_kernel[grid](*args, **sizes, BDK=bdk, BV=bv, C=CHUNK, num_stages=1)
    else:
        step_kernel[grid](*args, **sizes, BDK=bdk, BV=bv, num_stages=1)
    return out


def gated_norm(x: Tensor, z: Tensor, shape: DeltaShape) -> Tensor:
    """rms_norm(x) * norm * silu(z) over the last axis; x [n, n_head_v, head_dim_v], z of as many values."""
    out = torch.empty_like(x)
    dim = shape.head_dim_v
    gated_norm_kernel[(x.numel() // dim,)](
        x, shape.norm, z, out, shape.norm_eps, DIM=dim, BD=triton.next_power_of_2(dim), num_warps=1
    )
    return out


def causal_conv_reference(
    x: Tensor, state: DeviceDeltaState, shape: DeltaShape, batch: DeviceBatch
) -> Tensor:
    """`causal_conv` in plain torch."""
    outs, start = [], 0
    for s in batch.segments:
        full = torch.cat((state.conv[s.slot], x[start : start + s.n]))
        state.conv[s.slot] = full[s.n :]
        outs.append(F.silu((full.unfold(0, shape.conv.shape[1], 1) * shape.conv).sum(-1)))
        start += s.n
    return torch.cat(outs)


def delta_rule_reference(
    qkv: Tensor, alpha: Tensor, beta: Tensor, state: DeviceDeltaState, shape: DeltaShape, batch: DeviceBatch
) -> Tensor:
    """`delta_rule` in plain torch, token by token."""
    p = shape
    width = p.n_head_k * p.head_dim_k
    q, k, v = torch.split(qkv, [width, width, p.n_head_v * p.head_dim_v], dim=1)
    repeat = (1, p.n_head_v // p.n_head_k, 1)
    q, k = (x.view(len(x), p.n_head_k, p.head_dim_k) for x in (q, k))
    q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + p.norm_eps) for x in (q, k))
    q, k = q.repeat(repeat) * p.head_dim_k**-0.5, k.repeat(repeat)
    v = v.view(len(v), p.n_head_v, p.head_dim_v)
    decay = torch.exp(p.a * F.softplus(alpha + p.dt_bias, threshold=80))
    outs = []
    for t, slot in enumerate(batch.slots.tolist()):
        memory = state.memory[slot] * decay[t, :, None, None]
        error = v[t] - torch.einsum("hk,hkv->hv", k[t], memory)
        memory += torch.einsum("hk,hv->hkv", k[t], torch.sigmoid(beta[t])[:, None] * error)
        state.memory[slot] = memory
        outs.append(torch.einsum("hk,hkv->hv", q[t], memory))
    return torch.stack(outs)


def gated_norm_reference(x: Tensor, z: Tensor, shape: DeltaShape) -> Tensor:
    """`gated_norm` in plain torch."""
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + shape.norm_eps) * shape.norm
    return y * F.silu(z.view(x.shape))
