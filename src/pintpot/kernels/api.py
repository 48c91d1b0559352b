"""The operations models are composed of, and the interface every backend implements.

Arrays (`Array`) are activations and belong to the backend: NumPy on the CPU engine, torch elsewhere. Models
pass them from op to op and never look inside. Activations are float32, row-major, [n_tokens, width].
Weights are handed over once, at load, as `TensorView`s of the GGUF file inside a `*Weights` value; the
backend answers with a prepared layer, an opaque handle that the op then takes. Optional weights are None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.spec.cache import DeltaStateLayout, KVLayout

Array: TypeAlias = Any
Prepared: TypeAlias = Any
F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TensorView:
    """A read-only view of a weight in its GGUF blocks: `n_mats` matrices of [rows, cols].

    `data` is uint8 and starts at row 0 of matrix 0; matrices are `mat_stride` bytes apart. Fused tensors
    are cut with `row_slice`, without a copy; `first_row` is where a slice began in the tensor.
    """

    name: str
    ggml_type: int
    data: npt.NDArray[np.uint8]
    n_mats: int
    rows: int
    cols: int
    row_bytes: int
    mat_stride: int
    first_row: int = 0

    def row_slice(self, start: int, stop: int) -> TensorView:
        """Rows [start, stop) of every matrix."""
        return replace(
            self,
            data=self.data[start * self.row_bytes :],
            rows=stop - start,
            first_row=self.first_row + start,
        )


@dataclass(frozen=True, slots=True)
class InputSums:
    """What the matrices of a tensor were multiplied with: `squares`, float64 [n_mats, cols], is the sum of
    squares of each input column, `rows`, int64 [n_mats], the number of inputs (tokens) of each matrix."""

    squares: F64
    rows: I64


class Activation(StrEnum):
    SILU = "silu"
    GELU_TANH = "gelu_tanh"
    SWIGLU_OAI = "swiglu_oai"  # gpt-oss: clamped, (up + 1) * gate * sigmoid(1.702 gate)


class Gating(StrEnum):
    """How router logits become expert weights."""

    SOFTMAX = "softmax"  # softmax over all experts, then the top k
    SOFTMAX_TOPK = "softmax_topk"  # the top k logits, then softmax over those
    SIGMOID = "sigmoid"


@dataclass(frozen=True, slots=True)
class Rope:
    """`inv_freq`: radians a position, float32 [n_rot/2], every scaling and factor already folded in."""

    inv_freq: F32
    interleaved: bool
    mscale: float = 1.0  # multiplies cos and sin (YaRN)


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """q/k/v projection, optional norms of q, k, v heads, RoPE, attention over the cache, output projection.

    Order: project (+bias); split the output gate; norm q and k per head; RoPE q and k; store k, v; attend;
    multiply by sigmoid(gate); project (+bias). With `wk` None the layer only reads the cache of another.
    With `wv` None and `wk` given, v is the raw k projection (before norm and RoPE).
    """

    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    scale: float
    wq: TensorView  # [n_head * head_dim_k (* 2 when gated: q then gate within each head), n_embd]
    wk: TensorView | None
    wv: TensorView | None
    wo: TensorView
    rope: Rope | None = None
    bq: F32 | None = None
    bk: F32 | None = None
    bv: F32 | None = None
    bo: F32 | None = None
    q_norm: F32 | None = None  # RMSNorm weight [head_dim_k]
    k_norm: F32 | None = None
    v_norm: bool = False  # RMSNorm of v heads without a weight
    norm_eps: float = 1e-6
    gated: bool = False
    sinks: F32 | None = None  # [n_head]
    window: int | None = None  # tokens a query sees, itself included
    softcap: float | None = None


@dataclass(frozen=True, slots=True)
class DeltaNetWeights:
    """Gated delta net (Yang et al. 2024, arXiv:2412.06464), Qwen 3.5 flavour.

    (q | k | v) = silu(causal_conv(wqkv x)); q and k are divided by sqrt(sum of squares + norm_eps) per head,
    q also by sqrt(head_dim_k); v head h uses q and k head h % n_head_k. With
    g = exp(a * softplus(walpha x + dt_bias)) and beta = sigmoid(wbeta x), the memory S [head_dim_k,
    head_dim_v] of a head becomes gS + k (beta (v - k.gS)); it reads q.S. Output: wo (rms_norm(read) * norm
    * silu(wz x)).
    """

    n_head_k: int
    n_head_v: int
    head_dim_k: int
    head_dim_v: int
    conv_kernel: int
    norm_eps: float
    wqkv: TensorView  # [conv_dim, n_embd]
    wz: TensorView  # output gate [n_head_v * head_dim_v, n_embd]
    wbeta: TensorView  # [n_head_v, n_embd]
    walpha: TensorView  # [n_head_v, n_embd]
    wo: TensorView
    conv: F32  # [conv_dim, conv_kernel]
    dt_bias: F32  # [n_head_v]
    a: F32  # [n_head_v], -exp(A_log) as GGUF stores it
    norm: F32  # [head_dim_v]


@dataclass(frozen=True, slots=True)
class FFNWeights:
    gate: TensorView
    up: TensorView
    down: TensorView
    activation: Activation = Activation.SILU


@dataclass(frozen=True, slots=True)
class MoEWeights:
    """Router, experts, and an optional shared expert whose output is gated by sigmoid(x . shared_gate)."""

    n_expert: int
    n_expert_used: int
    gating: Gating
    normalize: bool  # divide the chosen weights by their sum
    router: TensorView  # [n_expert, n_embd]
    gate: TensorView  # n_expert x [n_ff, n_embd]
    up: TensorView
    down: TensorView  # n_expert x [n_embd, n_ff]
    activation: Activation = Activation.SILU
    weight_scale: float = 1.0
    router_bias: F32 | None = None  # [n_expert], added to the logits
    gate_bias: F32 | None = None  # [n_expert, n_ff]
    up_bias: F32 | None = None
    down_bias: F32 | None = None  # [n_expert, n_embd]
    down_scale: F32 | None = None  # [n_expert], multiplies an expert's output
    shared: FFNWeights | None = None
    shared_gate: F32 | None = None  # [n_embd]


@dataclass(frozen=True, slots=True)
class Segment:
    """`n` consecutive tokens of the sequence in `slot`, of which `past` are in the cache already."""

    slot: int
    past: int
    n: int


class Ops(ABC):
    """A backend. Every op allocates and returns its result unless it says otherwise."""

    name: str

    # --- load time -------------------------------------------------------------------------------
    @abstractmethod
    def matrix(self, view: TensorView) -> Prepared:
        """A weight for `linear` and `embed`."""

    @abstractmethod
    def vector(self, values: F32, name: str) -> Prepared:
        """A float32 vector (norm weight, bias) where the backend wants it; `name` is its tensor's."""

    @abstractmethod
    def attention_layer(self, w: AttentionWeights) -> Prepared: ...

    @abstractmethod
    def delta_net_layer(self, w: DeltaNetWeights) -> Prepared: ...

    @abstractmethod
    def ffn_layer(self, w: FFNWeights) -> Prepared: ...

    @abstractmethod
    def moe_layer(self, w: MoEWeights) -> Prepared: ...

    @abstractmethod
    def kv_cache(self, layout: KVLayout, layer: int) -> Prepared:
        """Memory for the keys and values of a layer; has `.nbytes` and `.copy_slot(src, dst, n_tokens)`."""

    @abstractmethod
    def delta_state(self, layout: DeltaStateLayout, layer: int) -> Prepared:
        """Zeroed state of a layer; has `.nbytes`, `.reset(slot)`, `.copy_slot(src, dst)`,
        `.save(slot) -> bytes-like` and `.restore(slot, saved)`."""

    # --- recording -------------------------------------------------------------------------------
    @abstractmethod
    def start_recording(self) -> None:
        """From now on every product of a weight matrix adds its inputs to that tensor's sums, which begin at
        zero. Inputs are the float activations, before any rounding the backend does to multiply them."""

    @abstractmethod
    def stop_recording(self) -> None:
        """Ends recording and forgets the sums; products cost what they cost without it."""

    @abstractmethod
    def recorded(self) -> dict[str, InputSums]:
        """The sums so far by tensor name, a copy; tensors that multiplied nothing are absent.

        Slices of a fused tensor share their inputs: the slice that starts at row 0 stands for all. Lookups
        (`embed`) are no products, nor are vectors that weigh a token (`shared_gate`). Sums do not depend on
        the number of threads.
        """

    # --- step time -------------------------------------------------------------------------------
    @abstractmethod
    def batch(self, segments: Sequence[Segment]) -> Prepared:
        """What attention and delta_net need to know of a step; tokens lie segment after segment."""

    @abstractmethod
    def embed(self, matrix: Prepared, tokens: I32) -> Array:
        """Rows of `matrix`, float32 [n_tokens, cols]."""

    @abstractmethod
    def rms_norm(self, x: Array, weight: Prepared | None, eps: float) -> Array:
        """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    @abstractmethod
    def add_rms_norm(self, x: Array, delta: Array, weight: Prepared, eps: float) -> Array:
        """x += delta in place, then rms_norm(x)."""

    @abstractmethod
    def add(self, x: Array, delta: Array) -> None:
        """x += delta in place."""

    @abstractmethod
    def scale(self, x: Array, factor: float) -> None:
        """x *= factor in place."""

    @abstractmethod
    def softcap(self, x: Array, cap: float) -> None:
        """x = cap * tanh(x / cap) in place."""

    @abstractmethod
    def gated(self, gate: Array, up: Array, activation: Activation) -> Array:
        """activation(gate) * up, for compositions that are no plain FFN (Gemma 4 per-layer embeddings)."""

    @abstractmethod
    def linear(self, x: Array, matrix: Prepared, bias: Prepared | None = None) -> Array:
        """x @ matrix.T (+ bias)."""

    @abstractmethod
    def rows(self, x: Array, index: I32) -> Array:
        """The rows of x whose logits are wanted."""

    @abstractmethod
    def reshape(self, x: Array, width: int) -> Array:
        """The same values, row-major, as rows of `width` (a view where the backend can)."""

    @abstractmethod
    def columns(self, x: Array, start: int, stop: int) -> Array:
        """Columns [start, stop) of x, contiguous."""

    @abstractmethod
    def attention(self, x: Array, layer: Prepared, cache: Prepared, batch: Prepared) -> Array: ...

    @abstractmethod
    def delta_net(self, x: Array, layer: Prepared, state: Prepared, batch: Prepared) -> Array: ...

    @abstractmethod
    def ffn(self, x: Array, layer: Prepared) -> Array: ...

    @abstractmethod
    def moe(
        self, x: Array, layer: Prepared, router_x: Array | None = None, routes: I32 | None = None
    ) -> Array:
        """`router_x`: what the router sees, when not x. `routes`, int32 [n_tokens, n_expert_used], receives
        the chosen experts."""

    @abstractmethod
    def to_numpy(self, x: Array) -> F32:
        """x as a float32 NumPy array on the host."""
