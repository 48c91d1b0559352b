"""Typed access to tokenizer metadata. A file may say anything: every value is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pintpot.errors import ModelFileError

_NO_TOKEN: Final = (-1, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)  # how writers spell "there is none"


class Fields:
    """Metadata of the file `source`. Every method raises ModelFileError for a value of the wrong kind."""

    def __init__(self, metadata: Mapping[str, object], source: str) -> None:
        self.metadata = metadata
        self.source = source

    def error(self, key: str, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.source}: {key} {problem}")

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise self.error(key, f"is {_kind(value)}, expected a string")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, f"is {_kind(value)}, expected true or false")
        return value

    def token_id(self, key: str, n_vocab: int) -> int | None:
        """A token id below `n_vocab`; None when the key is absent or says that there is none."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f"is {_kind(value)}, expected a token id")
        if value in _NO_TOKEN:
            return None
        if not 0 <= value < n_vocab:
            raise self.error(key, f"is {value}, but the vocabulary has {n_vocab} tokens")
        return value

    def texts(self, key: str) -> list[str] | None:
        values = self._array(key)
        if values is not None and set(map(type, values)) - {str}:
            raise self.error(key, "holds something other than strings")
        return values  # type: ignore[return-value]  # checked one line above

    def integers(self, key: str, length: int) -> list[int] | None:
        values = self._array(key, length)
        if values is not None and set(map(type, values)) - {int}:
            raise self.error(key, "holds something other than integers")
        return values  # type: ignore[return-value]  # checked one line above

    def floats(self, key: str, length: int) -> list[float] | None:
        values = self._array(key, length)
        if values is None:
            return None
        if set(map(type, values)) - {int, float}:
            raise self.error(key, "holds something other than numbers")
        numbers: list[float] = values  # type: ignore[assignment]  # checked above
        if any(number != number for number in numbers):  # noqa: PLR0124  # only NaN differs from itself
            raise self.error(key, "holds a value that is not a number (NaN)")
        return numbers

    def _array(self, key: str, length: int | None = None) -> list[object] | None:
        value = self.metadata.get(key)
        if value is None:
            return None
        tolist = getattr(value, "tolist", None)  # NumPy array
        if tolist is not None:
            value = tolist()
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise self.error(key, f"is {_kind(value)}, expected an array")
        if length is not None and len(value) != length:
            raise self.error(key, f"has {len(value)} entries, but there are {length} tokens")
        return list(value)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a string" if isinstance(value, str) else "an array"
