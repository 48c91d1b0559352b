"""What each layer keeps of a conversation: keys and values, or a recurrent state, and their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pintpot.errors import UsageError
from pintpot.spec.layers import AttentionLayer, DeltaNetLayer
from pintpot.spec.model import ModelSpec

# Memory for keys and values is touched only as it fills: a generous context costs nothing unused.
DEFAULT_CTX_TOKENS: Final = 32_768
BLOCK_TOKENS: Final = 64  # of a cache; csrc/kv_cache.h


class KVType(StrEnum):
    F32 = "f32"
    F16 = "f16"
    Q8_0 = "q8_0"

    @property
    def bits(self) -> float:
        """Bits a value takes, block scales included."""
        return {KVType.F32: 32.0, KVType.F16: 16.0, KVType.Q8_0: 8.5}[self]

    @classmethod
    def parse(cls, name: str, what: str = "cache type") -> KVType:
        """The type called `name` (any case). Raises UsageError that begins with `what`."""
        try:
            return cls(name.lower())
        except ValueError:
            raise UsageError(f"{what} {name!r}: expected {', '.join(cls)}") from None


@dataclass(frozen=True, slots=True)
class KVLayout:
    """KV cache of one layer: `n_slots` sequences of `capacity` tokens. A token at position p lies at
    p % capacity, so a sliding-window layer needs only window + (tokens a step) - 1."""

    n_slots: int
    capacity: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    type_k: KVType
    type_v: KVType

    @property
    def token_bytes(self) -> float:
        """Bytes a token takes."""
        return self.n_head_kv * (self.head_dim_k * self.type_k.bits + self.head_dim_v * self.type_v.bits) / 8

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, which are allocated in blocks of tokens."""
        return int(self.n_slots * _round_up(self.capacity, BLOCK_TOKENS) * self.token_bytes)


@dataclass(frozen=True, slots=True)
class CacheSteps:
    """Multiples, in tokens, to which an engine rounds up the context and the room of a sliding window."""

    ctx_tokens: int = 1
    window_tokens: int = 32


@dataclass(frozen=True, slots=True)
class DeltaStateLayout:
    """Recurrent state of one gated delta net layer, float32: the last conv_kernel-1 inputs of the
    convolution [n_slots, conv_kernel-1, conv_dim] and the memory [n_slots, n_head_v, head_dim_k,
    head_dim_v]."""

    n_slots: int
    n_head_v: int
    head_dim_k: int
    head_dim_v: int
    conv_dim: int
    conv_kernel: int

    @property
    def nbytes(self) -> int:
        """Bytes of all slots; a backend may round up."""
        memory = self.n_head_v * self.head_dim_k * self.head_dim_v
        return 4 * self.n_slots * ((self.conv_kernel - 1) * self.conv_dim + memory)


def default_context(spec: ModelSpec) -> int:
    """Tokens of context where nobody asks for a number: what the model was trained for, at most 32,768."""
    return min(spec.ctx_train, DEFAULT_CTX_TOKENS)


def layer_layouts(
    spec: ModelSpec,
    *,
    n_slots: int,
    ctx_tokens: int,
    n_batch: int,
    type_k: KVType = KVType.F16,
    type_v: KVType = KVType.F16,
    steps: CacheSteps | None = None,
) -> list[KVLayout | DeltaStateLayout | None]:
    """What each layer keeps; None for one that reads another layer's cache.

    A sliding-window layer keeps a ring of window + n_batch tokens (rounded up), never more than the context:
    enough for `n_batch` new tokens to be written before the oldest of them attends to its window. `steps` are
    another engine's rounding; None: this one's.
    """
    steps = steps or CacheSteps()
    ctx_tokens = _round_up(ctx_tokens, steps.ctx_tokens)
    layouts: list[KVLayout | DeltaStateLayout | None] = []
    for i, layer in enumerate(spec.layers):
        match layer.mixer:
            case AttentionLayer() as a if a.kv_layer != i:
                layouts.append(None)
            case AttentionLayer() as a:
                capacity = ctx_tokens
                if a.window is not None:
                    capacity = min(ctx_tokens, _round_up(a.window + n_batch, steps.window_tokens))
                layouts.append(
                    KVLayout(n_slots, capacity, a.n_head_kv, a.head_dim_k, a.head_dim_v, type_k, type_v)
                )
            case DeltaNetLayer() as d:
                layouts.append(
                    DeltaStateLayout(
                        n_slots, d.n_head_v, d.head_dim_k, d.head_dim_v, d.conv_dim, d.conv_kernel
                    )
                )
    return layouts


def _round_up(tokens: int, step: int) -> int:
    return -(-tokens // step) * step
