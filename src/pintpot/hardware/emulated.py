"""A GPU that is not there: the CPU computes in its place, and its memory is a number of bytes never exceeded.

Plans made for it are those of a card of that memory, so that placement, expert slots, streaming and their
accounts can be rehearsed, and tested, on any machine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pintpot.hardware.catalog import find_gpu
from pintpot.hardware.machine import GPU, Hardware

_SPEEDS_OF: Final = "RTX 5060 Ti 16GB"


def with_emulated_gpu(hardware: Hardware, vram_bytes: int) -> Hardware:
    """The machine with one emulated GPU of `vram_bytes`, all free, planned with a common card's speeds."""
    card = find_gpu(_SPEEDS_OF)
    gpu: GPU = replace(
        card,
        name=f"emulated by the CPU (speeds of {card.name})",
        vram_total_bytes=vram_bytes,
        vram_free_bytes=vram_bytes,
        emulated=True,
    )
    return replace(hardware, gpus=(gpu,))
