"""Known GPUs (`data/gpus.json`) and finding one by what people call it.

A name is compared by its words, whatever their order, case or spacing, and without maker's names:
`5060ti 16gb`, `GeForce RTX 5060 Ti 16 GB` and, with its size, the driver's `NVIDIA GeForce RTX 5060 Ti` are
one card. Memory sizes are those on the box: 16 GB is 16 GiB here, as memory chips count.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pintpot.errors import UsageError
from pintpot.hardware.machine import GPU, pcie_link_bytes_s

_FILE = Path(__file__).parents[1] / "data" / "gpus.json"
_GIB = 1 << 30
_MAKERS = frozenset(
    {"nvidia", "geforce", "tesla", "amd", "radeon", "intel", "apple"}
    | {"r", "tm", "gpu", "graphics", "generation", "workstation", "edition"}
)
_SERIES = frozenset({"rtx", "gtx", "rx", "arc"})
# What drivers call the same thing.
_REWRITES = (("with max-q design", "laptop"), ("mobile", "laptop"), ("h100 80gb hbm3", "h100 sxm5 80gb"))
_LISTED = 12
# A driver reports up to this share less than the size on the box (ECC, firmware).
_REPORTED = 0.12


@dataclass(frozen=True)
class _Card:
    gpu: GPU
    words: Counter[str]
    gib: float  # on the box; of unified memory, all of it


def _words(name: str) -> tuple[Counter[str], float | None]:
    """A name's words without makers, and the memory size in it (GB)."""
    name = name.lower()
    for said, meant in _REWRITES:
        name = name.replace(said, meant)
    size = re.search(r"\b(\d+(?:\.\d+)?) ?gi?b\b", name)
    if size:
        name = name[: size.start()] + " " + name[size.end() :]
    words = Counter(w for w in re.findall(r"[a-z]+|\d+", name) if w not in _MAKERS)
    return words, float(size[1]) if size else None


@cache
def _catalog() -> tuple[_Card, ...]:
    data = json.loads(_FILE.read_text(encoding="utf-8"))
    sizes = Counter(entry["name"] for entry in data["gpus"])
    cards = []
    for entry in data["gpus"]:
        for gib in entry.get("unified_gib") or [entry["vram_gib"]]:
            several = sizes[entry["name"]] > 1 or "unified_gib" in entry
            name = f"{entry['name']} {gib:g} GB" if several else entry["name"]
            cards.append(_Card(_gpu(name, gib, entry), _words(entry["name"])[0], gib))
    return tuple(cards)


def _gpu(name: str, gib: float, entry: dict[str, Any]) -> GPU:
    unified = "unified_gib" in entry
    # What macOS lets the GPU use (Metal's recommendedMaxWorkingSetSize, as llama.cpp logs it): two thirds of
    # up to 32 GiB, three quarters of more.
    usable = gib * (2 / 3 if gib <= 32 else 3 / 4) if unified else gib
    link = pcie_link_bytes_s(entry.get("pcie_gen"), entry.get("pcie_width"))
    return GPU(
        name=name,
        vram_total_bytes=int(usable * _GIB),
        vram_free_bytes=int(usable * _GIB),
        bandwidth_bytes_s=entry["bandwidth_gb_s"] * 1e9,
        bandwidth_source="catalog",
        f16_flops=entry["f16_tflops"] * 1e12,
        pcie_gen=entry.get("pcie_gen"),
        pcie_width=entry.get("pcie_width"),
        pcie_bytes_s=link,
        pcie_source="link" if link else "unknown",
        unified=unified,
    )


def known_gpus() -> tuple[GPU, ...]:
    """Every card of the catalog; those sold with several sizes carry the size in their name."""
    return tuple(card.gpu for card in _catalog())


def unified_memory_bytes(gpu: GPU) -> int | None:
    """All memory of the machine of a catalog GPU with unified memory; None for a card."""
    return next((int(c.gib * _GIB) for c in _catalog() if c.gpu.name == gpu.name and gpu.unified), None)


def _candidates(name: str) -> list[_Card]:
    """Cards with these words and no others; else those that have all of them."""
    words, _ = _words(name)
    series = Counter(w for w in words.elements() if w in _SERIES)
    core = words - series
    cards = [c for c in _catalog() if series <= c.words] if core else []
    exact = [c for c in cards if Counter({w: n for w, n in c.words.items() if w not in _SERIES}) == core]
    return exact or [c for c in cards if core <= c.words]


def find_gpu(name: str) -> GPU:
    """The catalog's GPU of that name, all of its memory free.

    Raises UsageError, one line: unknown names get near matches, ambiguous ones the variants there are.
    """
    cards = _candidates(name)
    _, gib = _words(name)
    if not cards:
        near = _near(name)
        hint = f"did you mean {', '.join(near)}?" if near else "write it as in `RTX 5060 Ti 16GB`"
        raise UsageError(f"GPU {name!r} is not in the catalog; {hint}")
    fitting = [c for c in cards if gib is None or c.gib == gib]
    if len(fitting) == 1:
        return fitting[0].gpu
    shown = [c.gpu.name for c in fitting or cards]
    listed = ", ".join(shown[:_LISTED]) + (
        f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
    )
    if not fitting:
        raise UsageError(
            f"GPU {name!r}: not sold with {gib:g} GB; there are {listed}; --vram sets another size"
        )
    raise UsageError(f"GPU {name!r} could be any of {listed}; name one of them")


def _near(name: str) -> list[str]:
    def plain(text: str) -> str:
        return " ".join(sorted(_words(text)[0].elements()))

    by_words = {plain(card.gpu.name): card.gpu.name for card in _catalog()}
    return [by_words[w] for w in difflib.get_close_matches(plain(name), by_words, n=4, cutoff=0.6)]


def match_gpu(name: str, vram_bytes: int | None) -> GPU | None:
    """The catalog's card for what a driver reports; None where none, or more than one, fits."""
    cards = _candidates(name)
    if vram_bytes is not None:
        cards = [c for c in cards if abs(vram_bytes / _GIB / c.gib - 1) <= _REPORTED]
        cards.sort(key=lambda c: abs(vram_bytes / _GIB - c.gib))
        exact_size = [c for c in cards if c.gib == cards[0].gib]
        cards = exact_size
    return replace(cards[0].gpu, name=name) if len(cards) == 1 else None
