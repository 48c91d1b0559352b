"""How large a model's file may be to run on a machine with its usual context."""

from __future__ import annotations

from pintpot.errors import UsageError
from pintpot.hardware.machine import Hardware
from pintpot.planner.limits import Limits
from pintpot.planner.memory import CacheSettings, cache_bytes, process_bytes, step_bytes
from pintpot.spec import ModelSpec
from pintpot.spec.cache import default_context


def weights_budget(spec: ModelSpec, hardware: Hardware, limits: Limits) -> int:
    """Bytes of RAM left for weights beside the cache, a step's buffers and the process.

    This version computes on the CPU: VRAM counts for nothing. Raises UsageError when nothing is left.
    """
    settings = CacheSettings(limits.ctx_tokens or default_context(spec))
    taken = cache_bytes(spec, settings).total + step_bytes(spec, settings.n_batch) + process_bytes(spec)
    allowed = hardware.memory.available_bytes - limits.ram_headroom_bytes
    if allowed <= taken:
        gib = 1 << 30
        raise UsageError(
            f"--fit: {taken / gib:.1f} GiB are needed for a context of {settings.ctx_tokens:,} tokens alone "
            f"and {max(0, allowed) / gib:.1f} GiB of RAM are free: close programs, or give --target-size"
        )
    return allowed - taken
