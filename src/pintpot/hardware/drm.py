"""GPUs as the kernel's graphics drivers show them in /sys/class/drm: AMD with sizes, Intel by presence.

amdgpu documents these files (kernel.org, "AMDGPU driver information"); the names of its chips come from
libdrm's amdgpu.ids. Intel's drivers do not tell the size of a card's memory here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pintpot.hardware.catalog import match_gpu
from pintpot.hardware.machine import GPU, pcie_link_bytes_s
from pintpot.hardware.tree import Tree

_AMD, _INTEL = "0x1002", "0x8086"
_IDS = "/usr/share/libdrm/amdgpu.ids"
_INTEGRATED_BYTES = 2 << 30  # below: the carve-out of a processor's own graphics
_GT_S_GEN = {"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "8": 3, "16.0": 4, "16": 4, "32.0": 5, "32": 5, "64.0": 6}


@dataclass(frozen=True)
class _Card:
    folder: str
    tree: Tree

    def text(self, name: str) -> str:
        return self.tree.text(f"{self.folder}/{name}") or ""

    def number(self, name: str) -> int | None:
        return self.tree.number(f"{self.folder}/{name}")


def read_drm(tree: Tree, notes: list[str]) -> list[GPU]:
    """AMD GPUs with 2 GiB or more of their own; what is passed over leaves a note."""
    gpus = []
    for name in tree.names("/sys/class/drm", "card*"):
        card = _Card(f"/sys/class/drm/{name}/device", tree)
        if not re.fullmatch(r"card\d+", name):
            continue
        if card.text("vendor") == _AMD:
            gpu = _read_amd(card, notes)
            if gpu is not None:
                gpus.append(gpu)
        elif card.text("vendor") == _INTEL and card.text("class").startswith("0x0380"):
            notes.append(f"{name}: an Intel card whose memory cannot be read here; name it with --gpu")
    return gpus


def _read_amd(card: _Card, notes: list[str]) -> GPU | None:
    total, used = card.number("mem_info_vram_total"), card.number("mem_info_vram_used")
    name = card.text("product_name") or _marketing_name(card) or f"AMD GPU {card.text('device')}".strip()
    if total is None:
        notes.append(f"{name}: left out, since {card.folder}/mem_info_vram_total is not readable")
        return None
    if total < _INTEGRATED_BYTES:
        notes.append(f"{name}: integrated graphics with {total >> 20} MiB, left out")
        return None
    if used is None:
        notes.append(f"{name}: {card.folder}/mem_info_vram_used is not readable; its memory is taken as free")
    known = match_gpu(name, total)
    gen = _GT_S_GEN.get(card.text("max_link_speed").partition(" ")[0])
    width = card.number("max_link_width")
    link = pcie_link_bytes_s(gen, width)
    return GPU(
        name=name,
        vram_total_bytes=total,
        vram_free_bytes=max(0, total - (used or 0)),
        bandwidth_bytes_s=known.bandwidth_bytes_s if known else None,
        bandwidth_source="catalog" if known else "unknown",
        f16_flops=known.f16_flops if known else None,
        pcie_gen=gen,
        pcie_width=width,
        pcie_bytes_s=link,
        pcie_source="link" if link else "unknown",
        driver=card.tree.text("/sys/module/amdgpu/version") or "amdgpu",
    )


def _marketing_name(card: _Card) -> str | None:
    """The name in amdgpu.ids (`device, revision, name`, hexadecimal without 0x)."""
    device, revision = (card.text(n).removeprefix("0x").upper() for n in ("device", "revision"))
    for line in card.tree.lines(_IDS):
        fields = [field.strip() for field in line.split(",", 2)]
        if len(fields) == 3 and (fields[0].upper(), fields[1].upper()) == (device, revision):
            return fields[2]
    return None
