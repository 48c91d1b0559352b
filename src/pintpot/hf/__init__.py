"""From a Hugging Face folder to a GGUF file, without torch or transformers."""

from __future__ import annotations

from pintpot.hf.plan import OutType
from pintpot.hf.run import Conversion, convert

__all__ = ["Conversion", "OutType", "convert"]
