"""pintpot's CPU kernels (csrc/bind).

Arrays are C-contiguous; `out` and what an op changes in place are writable. Ops release the GIL; an Engine
serves one caller at a time.
"""

import enum
from collections.abc import Sequence
from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
U64: TypeAlias = npt.NDArray[np.uint64]

class Isa(enum.IntEnum):
    scalar = 0

    avx2 = 1

    avx512 = 2

def detect_isa() -> Isa:
    """The best kernel level this CPU supports."""

def active_isa() -> Isa:
    """The kernel level in force."""

def set_isa(isa: Isa) -> bool:
    """Force a kernel level (tests, benchmarks); False when the CPU lacks it."""

class Engine:
    """A thread pool and scratch memory; one caller at a time."""

    def __init__(self, n_threads: int) -> None: ...
    @property
    def n_threads(self) -> int: ...
    @property
    def scratch_bytes(self) -> int: ...
    def set_poison(self, on: bool) -> None:
        """Fill scratch memory with NaN before each use (tests)."""

    def start_recording(self) -> None:
        """From now on sum up what matrices with a source are multiplied with, from zero."""

    def stop_recording(self) -> None:
        """Forget the sums."""

    def recorded(self) -> dict[int, tuple[F64, I64]]:
        """
        Sums so far: source to (squares float64 [n_mats, cols], rows int64 [n_mats]).
        """

def read_words(engine: Engine, data: U64) -> int:
    """XOR of all words, read once on the engine's threads (bandwidth)."""

class Matrix:
    """A read-only view of n_mats weight matrices in GGUF blocks."""

    def __init__(
        self,
        data: U8,
        ggml_type: int,
        n_mats: int,
        rows: int,
        cols: int,
        row_bytes: int,
        mat_stride: int,
        keep: object,
        source: int = -1,
    ) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def n_mats(self) -> int: ...

def matmul(engine: Engine, matrix: Matrix, mat: int, x: F32, out: F32, bias: F32 | None = None) -> None:
    """
    out[n, rows] = x[n, cols] @ matrix[mat].T (+ bias[rows]), float32, on the engine's threads.
    """

def mul_tile(matrix: Matrix, mat: int, row0: int, row1: int, x: F32, x_rows: I32 | None, out: F32) -> None:
    """
    One tile on the calling thread (tests): out[i, row0:row1] = x[x_rows[i]] @ matrix[mat, row0:row1].T
    """

def dequantize(matrix: Matrix, mat: int, row: int, out: F32) -> None:
    """Rows row.. of matrix `mat` as float32 [n, cols]."""

def quantize_acts(ggml_type: int, x: F32) -> bytes:
    """
    x as the kernels of a weight type see it (tests): the bytes of ActBlock or ActSuper, or of floats.
    """

class Batch:
    """
    The tokens of a step: runs of `lengths` tokens after `past` ones, by slot.
    """

    @overload
    def __init__(self, slots: I32, past: I32, lengths: I32) -> None: ...
    @overload
    def __init__(self, slots: Sequence[int], past: Sequence[int], lengths: Sequence[int]) -> None: ...
    @property
    def n_tokens(self) -> int: ...

class KVCache:
    """Keys and values of one layer; pages cost nothing until written."""

    def __init__(
        self,
        n_slots: int,
        capacity: int,
        n_head_kv: int,
        head_dim_k: int,
        head_dim_v: int,
        type_k: str,
        type_v: str,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def copy_slot(self, src: int, dst: int, n_tokens: int) -> None: ...

class DeltaState:
    """Recurrent state of one gated delta net layer, zero at first."""

    def __init__(
        self, n_slots: int, n_head_v: int, head_dim_k: int, head_dim_v: int, conv_dim: int, conv_kernel: int
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def reset(self, slot: int) -> None: ...
    def copy_slot(self, src: int, dst: int) -> None: ...
    def save(self, slot: int) -> bytes:
        """The slot's state, for restore() of a state of the same shape."""

    def restore(self, slot: int, saved: bytes) -> None: ...

class AttentionLayer:
    """Prepared weights (pintpot.kernels.api.AttentionWeights)."""

    def __init__(
        self,
        *,
        n_head: int,
        n_head_kv: int,
        head_dim_k: int,
        head_dim_v: int,
        scale: float,
        wq: Matrix,
        wk: Matrix | None,
        wv: Matrix | None,
        wo: Matrix,
        rope_inv_freq: F32 | None = None,
        rope_interleaved: bool = False,
        rope_mscale: float = 1.0,
        bq: F32 | None = None,
        bk: F32 | None = None,
        bv: F32 | None = None,
        bo: F32 | None = None,
        q_norm: F32 | None = None,
        k_norm: F32 | None = None,
        v_norm: bool = False,
        norm_eps: float = 1e-06,
        gated: bool = False,
        sinks: F32 | None = None,
        window: int | None = None,
        softcap: float | None = None,
    ) -> None: ...

def attention(
    engine: Engine, layer: AttentionLayer, x: F32, cache: KVCache, batch: Batch, out: F32
) -> None: ...

class DeltaNetLayer:
    """Prepared weights (pintpot.kernels.api.DeltaNetWeights)."""

    def __init__(
        self,
        *,
        n_head_k: int,
        n_head_v: int,
        head_dim_k: int,
        head_dim_v: int,
        conv_kernel: int,
        norm_eps: float,
        wqkv: Matrix,
        wz: Matrix,
        wbeta: Matrix,
        walpha: Matrix,
        wo: Matrix,
        conv: F32,
        dt_bias: F32,
        a: F32,
        norm: F32,
    ) -> None: ...

def delta_net(
    engine: Engine, layer: DeltaNetLayer, x: F32, state: DeltaState, batch: Batch, out: F32
) -> None: ...
def rms_norm(engine: Engine, x: F32, weight: F32 | None, eps: float, out: F32) -> None:
    """out = x / sqrt(mean(x^2) + eps) (* weight), row by row."""

def add_rms_norm(engine: Engine, x: F32, delta: F32, weight: F32, eps: float, out: F32) -> None:
    """x += delta in place, then out = rms_norm(x)."""

def add(engine: Engine, x: F32, delta: F32) -> None:
    """x += delta in place."""

def scale(engine: Engine, x: F32, factor: float) -> None:
    """x *= factor in place."""

def softcap(engine: Engine, x: F32, cap: float) -> None:
    """x = cap * tanh(x / cap) in place."""

def gated(engine: Engine, gate: F32, up: F32, activation: str, out: F32) -> None:
    """out = activation(gate) * up."""

def embed(engine: Engine, matrix: Matrix, tokens: I32, out: F32) -> None:
    """Rows of the matrix as float32; ValueError for an id outside it."""

class FFNLayer:
    """A gated feed-forward: down . (activation(gate . x) * (up . x))."""

    def __init__(self, gate: Matrix, up: Matrix, down: Matrix, activation: str) -> None: ...

def ffn(engine: Engine, layer: FFNLayer, x: F32, out: F32) -> None:
    """out [n, n_embd] = the feed-forward of x."""

class MoELayer:
    """Router, experts and shared expert; see pintpot.kernels.api.MoEWeights."""

    def __init__(
        self,
        *,
        n_expert: int,
        n_expert_used: int,
        gating: str,
        normalize: bool,
        router: Matrix,
        gate: Matrix,
        up: Matrix,
        down: Matrix,
        activation: str,
        weight_scale: float = 1.0,
        router_bias: F32 | None = None,
        gate_bias: F32 | None = None,
        up_bias: F32 | None = None,
        down_bias: F32 | None = None,
        down_scale: F32 | None = None,
        shared: FFNLayer | None = None,
        shared_gate: F32 | None = None,
    ) -> None: ...

def moe(
    engine: Engine, layer: MoELayer, x: F32, out: F32, router_x: F32 | None = None, routes: I32 | None = None
) -> None:
    """
    The whole layer. routes, int32 [n, n_expert_used], receives the chosen experts.
    """

def moe_route(engine: Engine, layer: MoELayer, x: F32, ids: I32, weights: F32) -> None:
    """
    The routing step alone: ids and weights [n, n_expert_used], best first.
    """

def moe_experts(
    engine: Engine, layer: MoELayer, x: F32, ids: I32, weights: F32, with_shared: bool, out: F32
) -> None:
    """The expert step alone: negative ids are skipped."""

def quantize(
    engine: Engine,
    source: Matrix,
    mat: int,
    row0: int,
    ggml_type: int,
    out: U8,
    importance: F32 | None,
    measure: bool,
) -> tuple[int, float]:
    """
    Rows row0.. of matrix `mat` as blocks of ggml_type, uint8 [n, row_bytes]; the first row that holds what
    the type cannot (or -1), and the squared error where it is measured.
    """
