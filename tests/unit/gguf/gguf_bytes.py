"""GGUF headers byte by byte, free to be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


def u64(n: int) -> bytes:
    return struct.pack("<Q", n)


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return u64(len(raw)) + raw


def kv(key: str | bytes, tag: int, value: bytes) -> bytes:
    return string(key) + u32(tag) + value


def array(item: int, count: int, body: bytes) -> bytes:
    return u32(item) + u64(count) + body


def tensor(name: str | bytes, ne: Sequence[int], ggml_type: int = 0, offset: int = 0) -> bytes:
    dims = b"".join(u64(n) for n in ne)
    return string(name) + u32(len(ne)) + dims + u32(ggml_type) + u64(offset)


def gguf(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    n_entries: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    head = magic + u32(version)
    head += u64(len(tensors) if n_tensors is None else n_tensors)
    head += u64(len(entries) if n_entries is None else n_entries)
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data
