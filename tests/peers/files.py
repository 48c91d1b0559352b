"""Files made from others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pintpot.gguf import GGUFFile, GGUFWriter, TensorDecl


def with_metadata(source: Path, out: Path, changes: Mapping[str, Any]) -> Path:
    """A copy of `source` with other metadata; None removes a key."""
    file = GGUFFile.open(source)
    metadata = {key: file.metadata[key] for key in file.metadata if changes.get(key, 0) is not None}
    metadata |= {key: value for key, value in changes.items() if value is not None}
    tensors = list(file.tensors.values())
    with GGUFWriter(out, metadata, [TensorDecl(t.name, t.ggml_type, t.ne) for t in tensors]) as writer:
        for t in tensors:
            writer.write(t.name, file.data(t.name))
    return out
