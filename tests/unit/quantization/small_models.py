"""Source files for quantizing: toys of F16, a tensor or two by hand, and splits of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl, Typed, ValueType
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model


def write_toy(path: Path, name: str = "llama", quant: str = "F16") -> Path:
    write_model(path, TOYS[name], quant=quant)
    return path


def write_matrices(path: Path, values: dict[str, np.ndarray]) -> Path:
    """A file of float32 and float16 tensors and hardly any metadata."""
    kinds = {"float32": GGMLType.F32, "float16": GGMLType.F16}
    decls = [TensorDecl(name, kinds[v.dtype.name], v.shape[::-1]) for name, v in values.items()]
    metadata = {"general.architecture": "llama", "llama.block_count": 1, "general.file_type": 1}
    with GGUFWriter(path, metadata, decls) as writer:
        for name, v in values.items():
            writer.write(name, v)
    return path


def split(source: Path, n_parts: int) -> Path:
    """The parts of `source`, as llama-gguf-split names them; the path of the first."""
    file = GGUFFile.open(source)
    infos = list(file.tensors.values())
    paths = [source.with_name(f"{source.stem}-{i + 1:05}-of-{n_parts:05}.gguf") for i in range(n_parts)]
    for i, path in enumerate(paths):
        part = infos[i * len(infos) // n_parts : (i + 1) * len(infos) // n_parts]
        metadata = {key: file.metadata.raw(key) for key in file.metadata} if i == 0 else {}
        metadata |= {
            "split.no": Typed(ValueType.UINT16, i),
            "split.count": Typed(ValueType.UINT16, n_parts),
            "split.tensors.count": Typed(ValueType.INT32, len(infos)),
        }
        with GGUFWriter(path, metadata, [TensorDecl(t.name, t.ggml_type, t.ne) for t in part]) as writer:
            for t in part:
                writer.write(t.name, file.data(t.name))
    return paths[0]
