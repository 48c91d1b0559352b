"""What a user allows and asks for: constraints to plan around. None leaves a choice to the planner."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pintpot.spec.cache import KVType

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps in bytes, counts in tokens, layers and experts; flags are llama.cpp's.

    `vram_headroom_bytes` and `ram_headroom_bytes` stay free for the driver, the desktop, other programs'
    growth. `override_tensors` are -ot rules: tensors whose names a pattern finds lie in "CPU" or "GPU".
    """

    vram_bytes: int | None = None
    ram_bytes: int | None = None
    ctx_tokens: int | None = None  # -c
    type_k: KVType | None = None  # -ctk
    type_v: KVType | None = None  # -ctv
    n_batch: int | None = None  # -b
    n_gpu_layers: int | None = None  # -ngl
    n_cpu_moe: int | None = None  # -ncmoe: experts of the first so many layers in RAM
    n_threads: int | None = None  # -t
    depth_tokens: int | None = None  # at which decode is judged; None: a quarter of the context
    vram_headroom_bytes: int = 512 * MIB
    ram_headroom_bytes: int = 1024 * MIB

    def with_ctx(self, ctx_tokens: int) -> Limits:
        """The same limits for another context."""
        return replace(self, ctx_tokens=ctx_tokens)
