"""The GGUF file format: opening, validating and writing."""

from __future__ import annotations

from pintpot.gguf.metadata import Metadata, RawValue
from pintpot.gguf.reader import GGUFFile, Part, TensorInfo
from pintpot.gguf.types import (
    RUNNABLE_TYPES,
    TYPES,
    GGMLType,
    TypeInfo,
    ValueType,
    row_bytes,
    type_by_name,
    type_name,
)
from pintpot.gguf.writer import GGUFWriter, TensorDecl, Typed, remove_unfinished

__all__ = [
    "RUNNABLE_TYPES",
    "TYPES",
    "GGMLType",
    "GGUFFile",
    "GGUFWriter",
    "Metadata",
    "Part",
    "RawValue",
    "TensorDecl",
    "TensorInfo",
    "TypeInfo",
    "Typed",
    "ValueType",
    "remove_unfinished",
    "row_bytes",
    "type_by_name",
    "type_name",
]
