"""Metadata of a GGUF file, decoded on use.

A model's header holds up to half a million strings (tokens, merges). Opening a file walks over them, which
checks their bounds and takes tens of milliseconds; a value becomes Python objects when it is asked for.
NumPy, a tenth of a second to import, is needed for arrays of numbers alone.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pintpot.gguf.types import ValueType

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import TypeIs

Buffer: TypeAlias = mmap.mmap | bytes
Scalar: TypeAlias = bool | int | float | str
# Arrays of numbers and bools are NumPy arrays, arrays of strings and of arrays are lists.
Value: TypeAlias = "Scalar | npt.NDArray[np.generic] | list[str] | list[Value]"

_MAX_DEPTH: Final = 4  # of arrays in arrays
_U64: Final = struct.Struct("<Q")
_ARRAY_HEAD: Final = struct.Struct("<IQ")

_SCALARS: Final = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<B"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}
_SIZES: Final = {int(kind): layout.size for kind, layout in _SCALARS.items()}
_FLOATS: Final = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a value lies in the file."""

    type: ValueType
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class RawValue:
    """A value in its encoded form: what a writer needs to copy it unchanged."""

    type: ValueType
    encoded: bytes


class Metadata(Mapping[str, Value]):
    """Read-only mapping of key to value, in file order.

    Integers, floats, bools and strings are Python's; arrays of numbers or bools are read-only NumPy arrays,
    arrays of strings are lists of str, arrays of arrays lists. Bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self, buffer: Buffer, entries: dict[str, Entry]) -> None:
        self._buffer = buffer
        self._entries = entries
        self._values: dict[str, Value] = {}

    def __getitem__(self, key: str) -> Value:
        value = self._values.get(key)
        if value is None:
            entry = self._entries[key]
            raw = bytes(self._buffer[entry.start : entry.stop])  # quicker to slice than a mmap
            value, _ = _decode(raw, 0, entry.type)
            self._values[key] = value
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def type_of(self, key: str) -> ValueType:
        """The value's type tag. Raises KeyError."""
        return self._entries[key].type

    def array_info(self, key: str) -> tuple[ValueType, int] | None:
        """Element type and length of an array, without decoding it; None for a scalar. Raises KeyError."""
        entry = self._entries[key]
        if entry.type is not ValueType.ARRAY:
            return None
        tag, count = _ARRAY_HEAD.unpack_from(self._buffer, entry.start)
        return ValueType(tag), count

    def integers(self, key: str) -> tuple[int, ...] | None:
        """An array of whole numbers or bools as ints; None for any other value. Raises KeyError."""
        info = self.array_info(key)
        if info is None or info[0] not in _SCALARS or info[0] in _FLOATS:
            return None
        layout, start = _SCALARS[info[0]], self._entries[key].start + _ARRAY_HEAD.size
        raw = self._buffer[start : start + info[1] * layout.size]
        numbers = (value for (value,) in layout.iter_unpack(raw))
        return tuple(map(bool, numbers) if info[0] is ValueType.BOOL else numbers)

    def raw(self, key: str) -> RawValue:
        """The value as it is encoded in the file. Raises KeyError."""
        entry = self._entries[key]
        return RawValue(entry.type, bytes(self._buffer[entry.start : entry.stop]))


def skip_value(buffer: Buffer, position: int, tag: int, depth: int = 0) -> int:
    """Position after the value at `position`.

    Raises ValueError, with the reason, for a value that is no valid one or does not lie within the buffer;
    struct.error where the buffer ends.
    """
    size = _SIZES.get(tag)
    if size is not None:
        if position + size > len(buffer):
            raise ValueError("the file is cut off: download it again")
        return position + size
    if tag == ValueType.STRING:
        return _skip_strings(buffer, position, 1)
    if tag != ValueType.ARRAY:
        raise ValueError(f"its value has the unknown type {tag}")
    if depth == _MAX_DEPTH:
        raise ValueError(f"arrays are nested deeper than {_MAX_DEPTH}")

    item_tag, count = _ARRAY_HEAD.unpack_from(buffer, position)
    position += _ARRAY_HEAD.size
    item_size = _SIZES.get(item_tag)
    shortest = item_size if item_size is not None else 8
    if count > (len(buffer) - position) // shortest:
        raise ValueError(f"its array claims {count} elements, more than the file can hold")
    if item_size is not None:
        return position + int(count) * item_size
    if item_tag == ValueType.STRING:
        return _skip_strings(buffer, position, count)
    for _ in range(count):
        position = skip_value(buffer, position, item_tag, depth + 1)
    return position


def _skip_strings(buffer: Buffer, position: int, count: int) -> int:
    unpack = _U64.unpack_from
    limit = len(buffer) - 8
    for _ in range(count):
        if position > limit:
            raise ValueError("a string lies outside the file, which is damaged or cut off: download it again")
        position += 8 + unpack(buffer, position)[0]
    if position > len(buffer):
        raise ValueError("a string lies outside the file, which is damaged or cut off: download it again")
    return position


def _decode(raw: bytes, position: int, tag: ValueType) -> tuple[Value, int]:
    """Value at `position`, which skip_value has checked, and the position after it."""
    if tag in _SCALARS:
        layout = _SCALARS[tag]
        (value,) = layout.unpack_from(raw, position)
        return (bool(value) if tag is ValueType.BOOL else value), position + layout.size
    if tag is ValueType.STRING:
        strings, position = _decode_strings(raw, position, 1)
        return strings[0], position
    item_tag, count = _ARRAY_HEAD.unpack_from(raw, position)
    position += _ARRAY_HEAD.size
    if item_tag in _SIZES:
        import numpy as np

        layout = _SCALARS[ValueType(item_tag)]
        stop = position + count * layout.size
        array: npt.NDArray[np.generic] = np.frombuffer(raw[position:stop], dtype=np.dtype(layout.format))
        if item_tag == ValueType.BOOL:
            array = array != 0
            array.flags.writeable = False
        return array, stop
    if item_tag == ValueType.STRING:
        return _decode_strings(raw, position, count)
    items: list[Value] = []
    for _ in range(count):
        item, position = _decode(raw, position, ValueType.ARRAY)
        items.append(item)
    return items, position


def _decode_strings(raw: bytes, position: int, count: int) -> tuple[list[str], int]:
    try:
        return _split_strings(raw, position, count, bytes.decode)
    except UnicodeDecodeError:
        return _split_strings(raw, position, count, lambda item: item.decode("utf-8", "replace"))


def _split_strings(
    raw: bytes, position: int, count: int, decode: Callable[[bytes], str]
) -> tuple[list[str], int]:
    unpack = _U64.unpack_from
    strings: list[str] = []
    append = strings.append
    for _ in range(count):
        start = position + 8
        position = start + unpack(raw, position)[0]
        append(decode(raw[start:position]))
    return strings, position


def is_array(value: object) -> TypeIs[npt.NDArray[np.generic]]:
    """Whether it is a NumPy array, which nothing is before NumPy is imported."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def is_scalar(value: object) -> TypeIs[np.generic]:
    """Whether it is a NumPy scalar."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def show(value: object) -> str:
    """A short one-line rendering for error messages: no control characters, at most about 60 characters."""
    if is_array(value):
        return f"an array of {value.size}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 60 and " " not in value:
        return value
    text = repr(value[:60] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 80 else text[:77] + "..."
