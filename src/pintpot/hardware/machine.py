"""What a machine is: the values that `probe` reads, `describe` makes up and the planner plans with.

Sizes are bytes, rates bytes or operations a second. None says that nobody could tell.
"""

from __future__ import annotations

from dataclasses import dataclass

_PCIE_LANE_BYTES_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
_PCIE_EFFICIENCY = (
    0.82  # large pinned copies: 25-26 GB/s of the 31.5 of a 4.0 x16 link, as bandwidthTest reports
)


@dataclass(frozen=True)
class Process:
    """A running program and the memory it holds (RAM: without what files back; or VRAM)."""

    name: str
    pid: int
    nbytes: int


@dataclass(frozen=True)
class CPU:
    """The processor as far as this process may use it (affinity, container quota)."""

    name: str
    cores: int  # physical cores
    threads: int  # logical CPUs
    isa: str  # the kernel level: "avx512" (with VNNI), "avx2", "scalar"
    l2_bytes: int | None = None  # all of them together
    l3_bytes: int | None = None
    numa_nodes: int = 1


@dataclass(frozen=True)
class Memory:
    """RAM and swap. total_bytes is 0 where it is unknown."""

    total_bytes: int
    available_bytes: int  # without swapping, within the limit
    limit_bytes: int | None = None  # the tightest cgroup (container) limit
    swap_total_bytes: int = 0
    swap_used_bytes: int = 0
    swap_rotational: bool | None = None  # on a disk that turns; None: no swap, or unknown


@dataclass(frozen=True)
class GPU:
    """A graphics processor. `unified`: its memory is the machine's RAM, and vram_* the part it may use.
    `emulated`: the CPU computes in its place, within as many bytes (`hardware.emulated`)."""

    name: str
    vram_total_bytes: int
    vram_free_bytes: int
    bandwidth_bytes_s: float | None = None
    f16_flops: float | None = None  # dense matrix units, FP32 accumulation
    pcie_gen: int | None = None
    pcie_width: int | None = None
    pcie_bytes_s: float | None = None  # pinned memory to the GPU
    driver: str | None = None
    processes: tuple[Process, ...] = ()
    unified: bool = False
    bandwidth_source: str = "unknown"  # "measured DATE", "catalog", "driver" (bus width x clock), "flag"
    pcie_source: str = "unknown"  # "measured DATE", "link"
    emulated: bool = False


@dataclass(frozen=True)
class Hardware:
    """A machine, and in `notes` one line for everything that could not be read."""

    cpu: CPU
    memory: Memory
    gpus: tuple[GPU, ...] = ()
    processes: tuple[Process, ...] = ()  # others that hold much RAM, biggest first
    wsl: bool = False
    ram_bandwidth_bytes_s: float = 0.0
    ram_bandwidth_source: str = "unknown"
    notes: tuple[str, ...] = ()


def pcie_link_bytes_s(gen: int | None, width: int | None) -> float | None:
    """What large pinned copies reach on a PCIe link: lanes at their rate after encoding, times 0.82.

    Lane rates: PCI-SIG, 8b/10b encoding in generations 1 and 2, 128b/130b in 3 to 5, FLIT in 6.
    """
    if gen not in _PCIE_LANE_BYTES_S or not width:
        return None
    return _PCIE_LANE_BYTES_S[gen] * width * _PCIE_EFFICIENCY
