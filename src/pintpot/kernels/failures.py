"""What torch and the driver raise when a device fails, in our words."""

from __future__ import annotations

import re
from typing import Final

import torch

from pintpot.errors import AcceleratorError, AcceleratorMemoryError, PintpotError

# torch before 2.8 raises RuntimeError for all; Triton's launcher and cuBLAS still do.
_OF_THE_DEVICE: Final = re.compile(r"\b(CUDA|HIP|CUBLAS)\b.*\berror\b|_STATUS_|Triton Error", re.IGNORECASE)
_OUT_OF_MEMORY: Final = re.compile(r"out of memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_LOST: Final[type[Exception]] = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)


def explain_failure(name: str, error: BaseException) -> PintpotError | None:
    """One line for what device `name` failed with; None where `error` is of something else."""
    if isinstance(error, PintpotError):
        return None
    message = str(error)
    of_device = isinstance(error, RuntimeError) and _OF_THE_DEVICE.search(message) is not None
    if not (of_device or isinstance(error, (torch.OutOfMemoryError, _LOST))):
        return None
    first = message.strip().partition("\n")[0]
    if isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(message):
        return AcceleratorMemoryError(f"{name}: its memory ran out, another program took some ({first})")
    return AcceleratorError(
        f"{name} failed and is lost to this process: {first}; start again, "
        "with --accelerator none to do without it"
    )
