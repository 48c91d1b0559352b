"""Plain float64 NumPy versions of attention and the gated delta net, and the glue the native tests share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pintpot import _native

F32 = 0  # ggml_type


def matrix(w: np.ndarray) -> Any:
    """An F32 `_native.Matrix` of a [rows, cols] array."""
    data = np.ascontiguousarray(w, np.float32).reshape(-1).view(np.uint8)
    rows, cols = w.shape
    return _native.Matrix(data, F32, 1, rows, cols, cols * 4, rows * cols * 4, data)


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest error over the largest value; a NaN or infinity in `got` is an infinite error."""
    if not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max() / np.abs(want).max())


def batch(*segments: tuple[int, int, int]) -> Any:
    slots, past, lengths = (np.array(column, np.int32) for column in zip(*segments, strict=True))
    return _native.Batch(slots, past, lengths)


def rms_norm(x: np.ndarray, weight: np.ndarray | float, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def rope(
    x: np.ndarray, positions: np.ndarray, inv_freq: np.ndarray, interleaved: bool, mscale: float
) -> np.ndarray:
    """x [tokens, heads, dim]."""
    half = len(inv_freq)
    angle = positions[:, None].astype(np.float64) * inv_freq.astype(np.float64)
    cos, sin = (mscale * f(angle)[:, None, :] for f in (np.cos, np.sin))
    out = x.copy()
    first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
    a, b = x[..., first], x[..., second]
    out[..., first] = a * cos - b * sin
    out[..., second] = a * sin + b * cos
    return out


def stored(x: np.ndarray, kind: str) -> np.ndarray:
    """What a cache of type `kind` gives back."""
    if kind == "f32":
        return x.astype(np.float32).astype(np.float64)
    if kind == "f16":
        return x.astype(np.float32).astype(np.float16).astype(np.float64)
    blocks = x.astype(np.float32).reshape(*x.shape[:-1], -1, 32)
    d = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    q = np.rint(blocks / np.where(d == 0, 1, d))
    return (q * d.astype(np.float16).astype(np.float64)).reshape(x.shape)


@dataclass
class Attention:
    """One layer's random weights as a keyword dict of `_native.AttentionLayer`, and its reference."""

    n_embd: int = 48
    n_head: int = 4
    n_head_kv: int = 2
    head_dim_k: int = 32
    head_dim_v: int = 32
    n_rot: int = 0
    interleaved: bool = False
    mscale: float = 1.0
    scale: float = 0.2
    window: int | None = None
    softcap: float | None = None
    gated: bool = False
    bias: bool = False
    qk_norm: bool = False
    v_norm: bool = False
    sinks: bool = False
    has_k: bool = True
    has_v: bool = True
    seed: int = 0
    w: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)

        def random(*shape: int, spread: float = 1.0) -> np.ndarray:
            return (rng.standard_normal(shape) * spread).astype(np.float32)

        q_rows = self.n_head * self.head_dim_k * (2 if self.gated else 1)
        k_rows, v_rows = self.n_head_kv * self.head_dim_k, self.n_head_kv * self.head_dim_v
        spread = self.n_embd**-0.5
        w = {"wq": random(q_rows, self.n_embd, spread=spread)}
        w["wo"] = random(self.n_embd + 8, self.n_head * self.head_dim_v, spread=0.1)
        if self.has_k:
            w["wk"] = random(k_rows, self.n_embd, spread=spread)
            if self.has_v:
                w["wv"] = random(v_rows, self.n_embd, spread=spread)
        if self.bias:
            w |= {"b" + m[1]: random(len(w[m])) for m in ("wq", "wk", "wv", "wo") if m in w}
        if self.qk_norm:
            w |= {"q_norm": 1 + random(self.head_dim_k, spread=0.2)}
            w |= {"k_norm": 1 + random(self.head_dim_k, spread=0.2)}
        if self.sinks:
            w["sinks"] = random(self.n_head)
        if self.n_rot:
            w["rope_inv_freq"] = (10000.0 ** -(np.arange(0, self.n_rot, 2) / self.n_rot)).astype(np.float32)
        self.w = w

    def layer(self) -> Any:
        kwargs: dict[str, Any] = {"wk": None, "wv": None}
        kwargs |= {k: v if v is None or v.ndim == 1 else matrix(v) for k, v in self.w.items()}
        return _native.AttentionLayer(
            n_head=self.n_head,
            n_head_kv=self.n_head_kv,
            head_dim_k=self.head_dim_k,
            head_dim_v=self.head_dim_v,
            scale=self.scale,
            rope_interleaved=self.interleaved,
            rope_mscale=self.mscale,
            v_norm=self.v_norm,
            norm_eps=1e-5,
            gated=self.gated,
            window=self.window,
            softcap=self.softcap,
            **kwargs,
        )

    def cache(self, n_slots: int, capacity: int, kind: str = "f32", kind_v: str | None = None) -> Any:
        return _native.KVCache(
            n_slots, capacity, self.n_head_kv, self.head_dim_k, self.head_dim_v, kind, kind_v or kind
        )

    def run(
        self, x: np.ndarray, layer: Any, cache: Any, b: Any, threads: int = 2, engine: Any = None
    ) -> np.ndarray:
        engine = engine or _native.Engine(threads)
        engine.set_poison(True)
        out = np.full((len(x), self.n_embd + 8), np.nan, np.float32)
        _native.attention(engine, layer, x, cache, b, out)
        return out

    def _project(self, x: np.ndarray, name: str, heads: int) -> np.ndarray:
        y = x @ self.w["w" + name].T.astype(np.float64)
        if "b" + name in self.w:
            y = y + self.w["b" + name]
        return y.reshape(len(x), heads, -1)

    def keys_values(self, x: np.ndarray, past: int, kind: str, kind_v: str) -> tuple[np.ndarray, np.ndarray]:
        """What the cache holds of these tokens, [tokens, n_head_kv, dim] each."""
        raw = self._project(x, "k", self.n_head_kv)
        v = self._project(x, "v", self.n_head_kv) if self.has_v else raw
        k = rms_norm(raw, self.w["k_norm"], 1e-5) if self.qk_norm else raw
        if self.v_norm:
            v = rms_norm(v, 1.0, 1e-5)
        if self.n_rot:
            positions = past + np.arange(len(x))
            k = rope(k, positions, self.w["rope_inv_freq"], self.interleaved, self.mscale)
        return stored(k, kind), stored(v, kind_v)

    def reference(self, x: np.ndarray, past: int, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        """`keys` and `values` are those of the last positions up to past + len(x)."""
        n = len(x)
        positions = past + np.arange(n)
        q = self._project(x.astype(np.float64), "q", self.n_head)
        gate = 1.0
        if self.gated:
            q, gate = q[..., : self.head_dim_k], sigmoid(q[..., self.head_dim_k :])
        if self.qk_norm:
            q = rms_norm(q, self.w["q_norm"], 1e-5)
        if self.n_rot:
            q = rope(q, positions, self.w["rope_inv_freq"], self.interleaved, self.mscale)
        group = self.n_head // self.n_head_kv
        keys, values = np.repeat(keys, group, 1), np.repeat(values, group, 1)
        scores = q.transpose(1, 0, 2) @ keys.transpose(1, 2, 0) * self.scale  # [n_head, n, keys]
        if self.softcap:
            scores = self.softcap * np.tanh(scores / self.softcap)
        age = positions[:, None] - np.arange(past + n - len(keys), past + n)
        scores = np.where((age >= 0) & (age < (self.window or 1 << 60)), scores, -np.inf)
        if self.sinks:
            sinks = np.broadcast_to(self.w["sinks"][:, None, None], (self.n_head, n, 1))
            scores = np.concatenate([scores, sinks], -1)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p = (p / p.sum(-1, keepdims=True))[..., : len(keys)]
        mixed = (p @ values.transpose(1, 0, 2)).transpose(1, 0, 2) * gate
        out = mixed.reshape(n, -1) @ self.w["wo"].T.astype(np.float64)
        return out + self.w["bo"] if "bo" in self.w else out


@dataclass
class DeltaNet:
    """One gated delta net layer's random weights, native handle and token-by-token reference."""

    n_embd: int = 40
    n_head_k: int = 2
    n_head_v: int = 4
    head_dim_k: int = 32
    head_dim_v: int = 32
    conv_kernel: int = 4
    decay: float = 1.0  # larger: the state forgets faster
    seed: int = 0
    w: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)

        def random(*shape: int, spread: float = 1.0) -> np.ndarray:
            return (rng.standard_normal(shape) * spread).astype(np.float32)

        values, spread = self.n_head_v * self.head_dim_v, self.n_embd**-0.5
        self.w = {
            "wqkv": random(self.conv_dim, self.n_embd, spread=spread),
            "wz": random(values, self.n_embd, spread=spread),
            "wbeta": random(self.n_head_v, self.n_embd, spread=spread),
            "walpha": random(self.n_head_v, self.n_embd, spread=spread),
            "wo": random(self.n_embd + 8, values, spread=values**-0.5),
            "conv": random(self.conv_dim, self.conv_kernel, spread=0.5),
            "dt_bias": random(self.n_head_v),
            "a": -self.decay * np.exp(random(self.n_head_v)),
            "norm": 1 + random(self.head_dim_v, spread=0.2),
        }

    @property
    def conv_dim(self) -> int:
        return 2 * self.n_head_k * self.head_dim_k + self.n_head_v * self.head_dim_v

    def layer(self) -> Any:
        names = ("n_head_k", "n_head_v", "head_dim_k", "head_dim_v", "conv_kernel")
        shape = {name: getattr(self, name) for name in names}
        weights = {k: matrix(v) if k.startswith("w") else v for k, v in self.w.items()}
        return _native.DeltaNetLayer(norm_eps=1e-6, **shape, **weights)

    def state(self, n_slots: int = 1) -> Any:
        return _native.DeltaState(
            n_slots, self.n_head_v, self.head_dim_k, self.head_dim_v, self.conv_dim, self.conv_kernel
        )

    def run(
        self, x: np.ndarray, layer: Any, state: Any, b: Any, threads: int = 2, engine: Any = None
    ) -> np.ndarray:
        engine = engine or _native.Engine(threads)
        engine.set_poison(True)
        out = np.full((len(x), self.n_embd + 8), np.nan, np.float32)
        _native.delta_net(engine, layer, x, state, b, out)
        return out

    def reference(self, x: np.ndarray) -> np.ndarray:
        """A whole sequence from the empty state."""
        w = {k: v.astype(np.float64) for k, v in self.w.items()}
        n, hk, hv, dk, dv = len(x), self.n_head_k, self.n_head_v, self.head_dim_k, self.head_dim_v
        raw = np.concatenate([np.zeros((self.conv_kernel - 1, self.conv_dim)), x @ w["wqkv"].T])
        qkv = silu(sum(raw[j : j + n] * w["conv"][:, j] for j in range(self.conv_kernel)))
        q, k = (qkv[:, i * hk * dk : (i + 1) * hk * dk].reshape(n, hk, dk) for i in (0, 1))
        v = qkv[:, 2 * hk * dk :].reshape(n, hv, dv)
        q, k = (y / np.sqrt((y * y).sum(-1, keepdims=True) + 1e-6) for y in (q, k))
        q = q * dk**-0.5
        beta = sigmoid(x @ w["wbeta"].T)
        decay = np.exp(w["a"] * np.log1p(np.exp(x @ w["walpha"].T + w["dt_bias"])))
        memory = np.zeros((hv, dk, dv))
        read = np.zeros((n, hv, dv))
        head_k = np.arange(hv) % hk
        for t in range(n):
            kt, qt = k[t, head_k], q[t, head_k]  # [n_head_v, dk]
            memory *= decay[t, :, None, None]
            seen = (kt[:, None] @ memory)[:, 0]
            memory += kt[:, :, None] * (beta[t, :, None] * (v[t] - seen))[:, None]
            read[t] = (qt[:, None] @ memory)[:, 0]
        z = (x @ w["wz"].T).reshape(n, hv, dv)
        y = rms_norm(read, w["norm"], 1e-6) * silu(z)
        return y.reshape(n, -1) @ w["wo"].T
