"""NVIDIA GPUs, through the driver's management library (NVML, package nvidia-ml-py).

Any call may fail on its own: old drivers lack functions, virtual GPUs and WSL refuse some, unified-memory
boards report no memory. Every failure costs that one fact and leaves a note.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from pintpot.hardware.catalog import match_gpu
from pintpot.hardware.machine import GPU, Process, pcie_link_bytes_s
from pintpot.hardware.tree import Tree

T = TypeVar("T")

_DRIVER_FILE = "/proc/driver/nvidia/version"
_WSL_DEVICE = "/dev/dxg"
# A clock read wrongly (or doubled by a driver) shows against the catalog.
_PLAUSIBLE = (0.75, 1.35)


def load_nvml() -> Any | None:
    """The module pynvml, or None where nvidia-ml-py is not installed or does not load."""
    try:
        return importlib.import_module("pynvml")
    except (ImportError, OSError):
        return None


def read_nvidia(nvml: Any | None, tree: Tree, notes: list[str]) -> list[GPU]:
    """All NVIDIA GPUs the driver shows. Nothing found and nothing wrong: an empty list and no note."""
    if nvml is None:
        if tree.path(_DRIVER_FILE).exists():
            notes.append("an NVIDIA driver is loaded, but Python cannot ask it: pip install nvidia-ml-py")
        return []
    library = _Library(nvml, notes)
    try:
        nvml.nvmlInit()
    except library.errors as error:
        if tree.path(_DRIVER_FILE).exists():
            notes.append(
                f"NVIDIA driver: nvmlInit failed ({_say(error)}); try `nvidia-smi`, reinstall the driver"
            )
        return []
    try:
        driver = library.ask("driver version", lambda: _text(nvml.nvmlSystemGetDriverVersion()))
        count = library.ask("number of GPUs", lambda: int(nvml.nvmlDeviceGetCount())) or 0
        gpus = [_read_gpu(library, index, driver, tree) for index in range(count)]
        return [gpu for gpu in gpus if gpu is not None]
    finally:
        library.ask("shutdown", lambda: nvml.nvmlShutdown())  # noqa: PLW0108 (nvmlShutdown may be missing)


class _Library:
    """NVML calls whose failure is a note."""

    def __init__(self, nvml: Any, notes: list[str]) -> None:
        self.nvml, self._notes = nvml, notes
        # AttributeError: the driver or the module is older than the call.
        self.errors = (nvml.NVMLError, OSError, AttributeError, ValueError, TypeError)

    def note(self, message: str) -> None:
        self._notes.append(message)

    def ask(self, what: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except self.errors as error:
            self.note(f"NVIDIA driver: {what}: {_say(error)}")
            return None


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _read_gpu(lib: _Library, index: int, driver: str | None, tree: Tree) -> GPU | None:
    nvml, gpu = lib.nvml, f"GPU {index}"
    handle = lib.ask(gpu, lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return None
    name = lib.ask(f"{gpu} name", lambda: _text(nvml.nvmlDeviceGetName(handle)))
    memory = lib.ask(f"{gpu} memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    known = match_gpu(name or "", memory.total if memory else None)
    if memory is None and known is None:
        lib.note(f"{name or gpu}: left out, since neither the driver nor the catalog knows its memory")
        return None
    if memory is None and known is not None:
        lib.note(f"{name}: its memory is taken from the catalog, and taken as free")
    gen = lib.ask(f"{gpu} PCIe generation", lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle))
    width = lib.ask(f"{gpu} PCIe width", lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(handle))
    link = pcie_link_bytes_s(gen, width)
    found = GPU(
        name=name or f"NVIDIA {gpu}",
        vram_total_bytes=memory.total if memory else known.vram_total_bytes if known else 0,
        vram_free_bytes=memory.free if memory else known.vram_total_bytes if known else 0,
        f16_flops=known.f16_flops if known else None,
        pcie_gen=gen,
        pcie_width=width,
        pcie_bytes_s=link,
        pcie_source="link" if link else "unknown",
        driver=driver,
        processes=_processes(lib, handle, gpu, tree),
    )
    return _with_bandwidth(lib, found, handle, known)


def _with_bandwidth(lib: _Library, gpu: GPU, handle: Any, known: GPU | None) -> GPU:
    """The card's own bus width and clock (double data rate), or the catalog where they make no sense."""
    nvml = lib.nvml
    bits = lib.ask(f"{gpu.name}: memory bus width", lambda: nvml.nvmlDeviceGetMemoryBusWidth(handle))
    mhz = lib.ask(
        f"{gpu.name}: memory clock", lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)
    )
    rate = 2 * mhz * 1e6 * bits / 8 if bits and mhz else None
    catalog = known.bandwidth_bytes_s if known else None
    if rate and (not catalog or _PLAUSIBLE[0] <= rate / catalog <= _PLAUSIBLE[1]):
        return replace(gpu, bandwidth_bytes_s=rate, bandwidth_source="driver")
    return replace(gpu, bandwidth_bytes_s=catalog, bandwidth_source="catalog" if catalog else "unknown")


def _processes(lib: _Library, handle: Any, gpu: str, tree: Tree) -> tuple[Process, ...]:
    """Programs on the GPU, biggest first; 0 bytes where the driver does not say how much (Windows, WSL)."""
    nvml = lib.nvml
    found: dict[int, Process] = {}
    calls = (
        (f"{gpu} compute programs", "nvmlDeviceGetComputeRunningProcesses"),
        (f"{gpu} graphics programs", "nvmlDeviceGetGraphicsRunningProcesses"),
    )
    for what, call in calls:
        for p in lib.ask(what, lambda call=call: getattr(nvml, call)(handle)) or ():  # type: ignore[misc]
            nbytes = p.usedGpuMemory or 0
            name = tree.text(f"/proc/{p.pid}/comm") or "?"
            found[p.pid] = Process(name, p.pid, max(nbytes, found[p.pid].nbytes if p.pid in found else 0))
    return tuple(sorted(found.values(), key=lambda p: -p.nbytes))
