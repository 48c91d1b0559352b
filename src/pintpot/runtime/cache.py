"""The memory of conversations: per layer a KV cache or a recurrent state, for a number of slots."""

from __future__ import annotations

from typing import Any, TypeAlias

from pintpot.errors import MemoryLimitError, UsageError
from pintpot.hardware.memory import memory_limit_bytes
from pintpot.kernels.api import Prepared
from pintpot.models.base import Model
from pintpot.spec import AttentionLayer, DenseFFN, ModelSpec
from pintpot.spec.cache import DeltaStateLayout, KVLayout, KVType, layer_layouts

SavedState: TypeAlias = list[Any]  # per layer what `delta_state` saved; None where nothing was

Q8_BLOCK = 32  # head dimensions of a q8_0 cache are multiples of this
_LEAST_CTX_TOKENS = 512  # below this no context is chosen: the refusal says more


class ModelState:
    """The caches of `model` for `n_slots` sequences of up to `ctx_tokens` tokens, `n_batch` new ones a step.

    `layers[i]` is what layer i reads and writes; layers that share a cache hold the same object.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_slots: int,
        ctx_tokens: int,
        n_batch: int,
        type_k: KVType = KVType.F16,
        type_v: KVType = KVType.F16,
    ) -> None:
        spec = model.spec
        _check_head_dims(spec, type_k, type_v)
        self.n_slots = n_slots
        self.ctx_tokens = ctx_tokens
        self._layouts = layer_layouts(
            spec,
            n_slots=n_slots,
            ctx_tokens=ctx_tokens,
            n_batch=n_batch,
            type_k=type_k,
            type_v=type_v,
        )
        refusal = _memory_refusal(spec, self._layouts, ctx_tokens, n_batch)
        if refusal is not None:
            raise MemoryLimitError(refusal)
        self.layers: list[Prepared] = []
        for i, (layer, layout) in enumerate(zip(spec.layers, self._layouts, strict=True)):
            match layout:
                case KVLayout():
                    self.layers.append(model.ops.kv_cache(layout, i))
                case DeltaStateLayout():
                    self.layers.append(model.ops.delta_state(layout, i))
                case None:
                    owner = layer.mixer.kv_layer if isinstance(layer.mixer, AttentionLayer) else 0
                    self.layers.append(self.layers[owner])
        self._windows = [
            (layer.mixer.window, layout.capacity)
            for layer, layout in zip(spec.layers, self._layouts, strict=True)
            if isinstance(layer.mixer, AttentionLayer) and isinstance(layout, KVLayout) and layer.mixer.window
        ]
        # Whether there is state that cannot go back to an earlier token, unless it was saved there.
        self.recurrent = any(isinstance(layout, DeltaStateLayout) for layout in self._layouts)
        # How far each slot was ever written since its reset: rings have lost what lies a capacity before.
        self._written = [0] * n_slots

    @property
    def nbytes(self) -> int:
        """Memory of all slots together."""
        return sum(
            layer.nbytes
            for layer, layout in zip(self.layers, self._layouts, strict=True)
            if layout is not None
        )

    def reset(self, slot: int) -> None:
        """Empties a slot."""
        self._written[slot] = 0
        for layer, layout in zip(self.layers, self._layouts, strict=True):
            if isinstance(layout, DeltaStateLayout):
                layer.reset(slot)

    def keepable(self, slot: int, cached: int, wanted: int) -> int:
        """How many of the first `wanted` of the `cached` tokens in a slot can be built upon: all or none.

        A recurrent state cannot go back, and a sliding-window ring only as far as it still holds the window.
        """
        written = self._written[slot] = max(self._written[slot], cached)
        if wanted == cached == written:
            return wanted
        if self.recurrent:
            return 0
        return wanted if self._windows_hold(wanted, written) else 0

    def _windows_hold(self, wanted: int, written: int) -> bool:
        """Whether rings written up to token `written` still have what the token after `wanted` sees."""
        return all(max(0, wanted + 1 - window) >= written - capacity for window, capacity in self._windows)

    def save(self, slot: int) -> SavedState:
        """The recurrent states of a slot. Keys and values are not saved: the slot itself keeps them."""
        return [
            layer.save(slot) if isinstance(layout, DeltaStateLayout) else None
            for layer, layout in zip(self.layers, self._layouts, strict=True)
        ]

    def restore(self, slot: int, saved: SavedState, *, cached: int, wanted: int) -> bool:
        """Takes a slot of `cached` tokens back to its first `wanted`, after which `saved` was saved.

        False, with nothing changed, where a sliding-window ring has lost what it held then.
        """
        written = max(self._written[slot], cached)
        if not self._windows_hold(wanted, written):
            return False
        for layer, layout, state in zip(self.layers, self._layouts, saved, strict=True):
            if isinstance(layout, DeltaStateLayout):
                layer.restore(slot, state)
        self._written[slot] = written if self._windows else wanted
        return True

    def copy_slot(self, src: int, dst: int, n_tokens: int) -> None:
        """Makes slot `dst` hold what slot `src` holds, `n_tokens` tokens."""
        for layer, layout in zip(self.layers, self._layouts, strict=True):
            match layout:
                case KVLayout():
                    layer.copy_slot(src, dst, n_tokens)
                case DeltaStateLayout():
                    layer.copy_slot(src, dst)
                case None:
                    pass
        self._written[dst] = max(self._written[src], n_tokens)


def _check_head_dims(spec: ModelSpec, type_k: KVType, type_v: KVType) -> None:
    for i, layer in enumerate(spec.layers):
        a = layer.mixer
        if not isinstance(a, AttentionLayer):
            continue
        for kind, dim, flag in ((type_k, a.head_dim_k, "k"), (type_v, a.head_dim_v, "v")):
            if kind is KVType.Q8_0 and dim % Q8_BLOCK:
                raise UsageError(
                    f"cache type q8_0 for {flag} needs heads of a multiple of {Q8_BLOCK} values, "
                    f"and layer {i} of {spec.name} has {dim}: use f16"
                )


def largest_context(
    spec: ModelSpec, at_most: int, *, n_slots: int, n_batch: int, type_k: KVType, type_v: KVType
) -> int:
    """`at_most` tokens, halved until the caches fit this machine's memory.

    Where not even a small context would fit it is `at_most`, which ModelState refuses with the reason.
    """
    ctx_tokens = at_most
    while ctx_tokens >= min(at_most, _LEAST_CTX_TOKENS):
        layouts = layer_layouts(
            spec, n_slots=n_slots, ctx_tokens=ctx_tokens, n_batch=n_batch, type_k=type_k, type_v=type_v
        )
        if _memory_refusal(spec, layouts, ctx_tokens, n_batch) is None:
            return ctx_tokens
        ctx_tokens //= 2
    return at_most


def _memory_refusal(
    spec: ModelSpec, layouts: list[KVLayout | DeltaStateLayout | None], ctx_tokens: int, n_batch: int
) -> str | None:
    """Why these caches cannot be had, asked before anything is allocated: Linux grants more than there is,
    and kills whoever touches it. None: they can."""
    limit = memory_limit_bytes()
    if limit is None:
        return None
    gib = 1 << 30
    n_batch = min(n_batch, ctx_tokens)
    cache = sum(layout.nbytes for layout in layouts if isinstance(layout, KVLayout))
    state = sum(layout.nbytes for layout in layouts if isinstance(layout, DeltaStateLayout))
    step = 4 * n_batch * _widest_activation(spec)
    has = f"this machine has {limit / gib:.1f} GiB of memory"
    if state + step > limit:
        return (
            f"{spec.name}: its recurrent state takes {state / gib:,.1f} GiB and a step of {n_batch:,} tokens"
            f" {step / gib:,.1f} GiB, {has}: choose a smaller batch (-b) or another model"
        )
    if cache + state + step > limit:
        return (
            f"{spec.name}: the cache of a context of {ctx_tokens:,} tokens takes {cache / gib:,.1f} GiB,"
            f" {has}: choose a smaller context (-c) or cache type (-ctk, -ctv)"
        )
    return None


def _widest_activation(spec: ModelSpec) -> int:
    """Values a token has in the widest layer: what a step needs at the very least."""
    widest = spec.n_embd
    for layer in spec.layers:
        mixer, ffn = layer.mixer, layer.ffn
        width = mixer.n_head * mixer.head_dim_k if isinstance(mixer, AttentionLayer) else mixer.conv_dim
        n_ff = ffn.n_ff if isinstance(ffn, DenseFFN) else max(ffn.n_ff, ffn.n_ff_shared, ffn.n_ff_dense)
        widest = max(widest, width, n_ff)
    return widest
