"""What a user allows and asks for: constraints to plan around. None leaves a choice to the planner."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from pintpot.errors import UsageError
from pintpot.hardware.machine import Hardware
from pintpot.spec.cache import KVType

MIB = 1 << 20
_GPU_NAMES: Final = re.compile(r"gpu|(cuda|vulkan|rocm|sycl|metal)\d*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TensorRule:
    """-ot: tensors in whose name `pattern` is found lie in VRAM (`on_gpu`) or RAM."""

    pattern: str
    on_gpu: bool

    def __str__(self) -> str:
        return f"{self.pattern}={'GPU' if self.on_gpu else 'CPU'}"


def parse_tensor_rules(values: Iterable[str], flag: str = "-ot") -> tuple[TensorRule, ...]:
    """Rules as llama.cpp writes them: `PATTERN=CPU` or `PATTERN=GPU` (or CUDA0), several joined by commas.

    Raises UsageError, which begins with `flag`.
    """
    rules = []
    for item in (part for value in values for part in value.split(",")):
        pattern, equals, place = item.rpartition("=")
        on_gpu = _GPU_NAMES.fullmatch(place) is not None
        if not (equals and pattern) or not (on_gpu or place.upper() == "CPU"):
            raise UsageError(f"{flag} {item!r}: expected PATTERN=CPU or PATTERN=GPU")
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{flag} {item!r}: no regular expression: {error}") from None
        rules.append(TensorRule(pattern, on_gpu))
    return tuple(rules)


def place_by_rules(name: str, rules: Iterable[TensorRule]) -> bool | None:
    """Whether a tensor must lie in VRAM; None where no rule speaks of it. The first that does counts."""
    return next((rule.on_gpu for rule in rules if re.search(rule.pattern, name)), None)


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps in bytes, counts in tokens, layers and experts; flags are llama.cpp's.

    `vram_headroom_bytes` and `ram_headroom_bytes` stay free for the driver, the desktop, other programs'
    growth. `override_tensors` come before `n_cpu_moe`, as in llama.cpp the first match does.
    """

    vram_bytes: int | None = None
    ram_bytes: int | None = None
    ctx_tokens: int | None = None  # -c
    type_k: KVType | None = None  # -ctk
    type_v: KVType | None = None  # -ctv
    n_batch: int | None = None  # -b
    n_gpu_layers: int | None = None  # -ngl
    n_cpu_moe: int | None = None  # -ncmoe: experts of the first so many layers in RAM
    override_tensors: tuple[TensorRule, ...] = ()  # -ot
    n_gpu_experts: int | None = None  # --gpu-experts: slots in every layer whose experts may lie in VRAM
    n_threads: int | None = None  # -t
    n_slots: int = 1  # sequences kept side by side
    use_gpu: bool = False  # as far as it goes, faster or not
    depth_tokens: int | None = None  # at which decode is judged; None: a quarter of the context
    vram_headroom_bytes: int = 512 * MIB
    ram_headroom_bytes: int = 1024 * MIB

    def with_ctx(self, ctx_tokens: int) -> Limits:
        """The same limits for another context."""
        return replace(self, ctx_tokens=ctx_tokens)

    @property
    def gpu_flags(self) -> tuple[str, ...]:
        """The flags that say something of a GPU, as far as they are given."""
        given = {
            "--vram": self.vram_bytes,
            "-ngl": self.n_gpu_layers,
            "-ncmoe": self.n_cpu_moe,
            "-ot": self.override_tensors or None,
            "--gpu-experts": self.n_gpu_experts,
        }
        return tuple(flag for flag, value in given.items() if value is not None)

    def usable_vram(self, hardware: Hardware) -> int:
        """Bytes that may be used of the first GPU; 0 without one."""
        if not hardware.gpus:
            return 0
        gpu = hardware.gpus[0]
        free = gpu.vram_free_bytes - (0 if gpu.emulated else self.vram_headroom_bytes)
        return max(0, free if self.vram_bytes is None else min(free, self.vram_bytes))

    def usable_ram(self, hardware: Hardware) -> int:
        """Bytes that may be used of what is available."""
        free = hardware.memory.available_bytes - self.ram_headroom_bytes
        return max(0, free if self.ram_bytes is None else min(free, self.ram_bytes))
