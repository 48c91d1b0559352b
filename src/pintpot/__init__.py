"""pintpot: local LLM inference for models bigger than your GPU.

`load` opens a GGUF file; see `pintpot.llm` for what a loaded model can do. Names are imported on first use,
so that `import pintpot` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pintpot.errors import (
        AcceleratorError,
        AcceleratorMemoryError,
        ContextLengthError,
        MemoryLimitError,
        ModelFileError,
        PintpotError,
        TemplateError,
        UnsupportedError,
        UsageError,
    )
    from pintpot.hf import Conversion, convert
    from pintpot.llm import LLM, Generation, load
    from pintpot.quantization.run import QuantizeResult, quantize
    from pintpot.runtime.sampler import SamplingParams, TokenLogprob
    from pintpot.runtime.sequence import FinishReason

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AcceleratorError",
    "AcceleratorMemoryError",
    "ContextLengthError",
    "Conversion",
    "FinishReason",
    "Generation",
    "MemoryLimitError",
    "ModelFileError",
    "PintpotError",
    "QuantizeResult",
    "SamplingParams",
    "TemplateError",
    "TokenLogprob",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "convert",
    "load",
    "quantize",
]

_HOME = {
    "Conversion": "pintpot.hf",
    "convert": "pintpot.hf",
    "LLM": "pintpot.llm",
    "Generation": "pintpot.llm",
    "load": "pintpot.llm",
    "QuantizeResult": "pintpot.quantization.run",
    "quantize": "pintpot.quantization.run",
    "FinishReason": "pintpot.runtime.engine",
    "SamplingParams": "pintpot.runtime.sampler",
    "TokenLogprob": "pintpot.runtime.sampler",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_HOME.get(name, "pintpot.errors")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
