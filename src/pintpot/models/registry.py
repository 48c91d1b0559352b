"""Which class runs which `general.architecture`."""

from __future__ import annotations

from pintpot.errors import UnsupportedError
from pintpot.models.base import Model
from pintpot.models.gemma4 import Gemma4
from pintpot.models.gpt_oss import GptOss
from pintpot.models.llama import Llama
from pintpot.models.qwen2 import Qwen2
from pintpot.models.qwen3 import Qwen3
from pintpot.models.qwen3moe import Qwen3Moe
from pintpot.models.qwen35 import Qwen35

ARCHITECTURES: dict[str, type[Model]] = {
    "llama": Llama,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "qwen3moe": Qwen3Moe,
    "qwen35": Qwen35,
    "qwen35moe": Qwen35,
    "gemma4": Gemma4,
    "gpt-oss": GptOss,
}


def model_class(arch: str) -> type[Model]:
    """Raises UnsupportedError for an architecture nobody here runs."""
    try:
        return ARCHITECTURES[arch]
    except KeyError:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedError(f"architecture {arch!r} cannot be run; supported: {known}") from None
