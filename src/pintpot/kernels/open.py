"""Opening an accelerator by name. torch is imported here, when one is asked for, and nowhere before."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib.util import find_spec

from pintpot.errors import AcceleratorError, UsageError
from pintpot.kernels.accelerator import Accelerator


class AcceleratorKind(StrEnum):
    """What --accelerator takes."""

    AUTO = "auto"  # a CUDA GPU where there is one that can be used
    NONE = "none"
    CPU = "cpu"  # emulated: the reference ops within a byte budget
    CUDA = "cuda"

    @classmethod
    def parse(cls, name: str) -> AcceleratorKind:
        """Raises UsageError."""
        try:
            return cls(name.lower())
        except ValueError:
            raise UsageError(f"--accelerator {name!r}: expected {', '.join(cls)}") from None


def accelerator_of(kind: AcceleratorKind) -> Callable[[int], Accelerator]:
    """What opens an accelerator (cpu or cuda) of which at most so many bytes are used.

    Raises AcceleratorError, which says what is missing and what to do.
    """
    if kind is AcceleratorKind.CUDA:
        if refusal := cuda_refusal():
            raise AcceleratorError(refusal)
        from pintpot.kernels.triton_accelerator import TritonAccelerator

        return TritonAccelerator
    try:
        from pintpot.kernels.reference_accelerator import ReferenceAccelerator
    except ImportError as error:
        raise AcceleratorError(
            f"--accelerator {kind} needs torch ({error}): pip install torch, or run with --accelerator none"
        ) from error
    import torch

    # Beside the CPU's own threads: torch's wait for each other in spinning loops, which cost both a
    # hundredfold on a machine without cores to spare.
    torch.set_num_threads(1)
    return ReferenceAccelerator


def cuda_refusal() -> str:
    """Why no CUDA GPU can be used; "" where one can."""
    try:
        import torch
    except ImportError as error:
        return (
            f"--accelerator cuda needs torch with CUDA ({error}): pip install 'pintpot[gpu]', or run with "
            "--accelerator none"
        )
    if torch.version.cuda is None:
        return (
            f"--accelerator cuda: torch {torch.__version__} was built without CUDA: install a build with it "
            "(pytorch.org), or run with --accelerator none"
        )
    if not torch.cuda.is_available():
        return (
            f"--accelerator cuda: torch {torch.__version__} finds no GPU: there is none, or its driver is "
            f"older than CUDA {torch.version.cuda} needs (nvidia-smi says); run with --accelerator none"
        )
    if find_spec("triton") is None:
        return "--accelerator cuda needs triton: pip install 'pintpot[gpu]', or run with --accelerator none"
    return ""
