"""Metadata keys of one architecture, read with their type and range checked."""

from __future__ import annotations

from math import isfinite
from typing import Final, TypeAlias

from pintpot.errors import ModelFileError
from pintpot.gguf.metadata import Value, show
from pintpot.gguf.reader import GGUFFile
from pintpot.gguf.types import ValueType

# Beyond any model, small enough that products of a few of them stay harmless.
MAX_SIZE: Final = 1 << 24

_Numbers: TypeAlias = "int | tuple[int, ...]"


class Keys:
    """Reads `{arch}.<key>` of a file. Every method raises ModelFileError naming the key."""

    def __init__(self, file: GGUFFile, arch: str) -> None:
        self.file = file
        self.arch = arch

    def __contains__(self, key: str) -> bool:
        return f"{self.arch}.{key}" in self.file.metadata

    def is_array(self, key: str) -> bool:
        """Whether the key, which must be there, holds an array."""
        return self.file.metadata.type_of(f"{self.arch}.{key}") is ValueType.ARRAY

    def integer(self, key: str, default: int | None = None, *, low: int = 1, high: int = MAX_SIZE) -> int:
        """A whole number from `low` to `high`; required when there is no default."""
        value = self._get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.error(key, f"is {show(value)}, expected a whole number from {low} to {high}")
        return value

    def per_layer(
        self, key: str, count: int, default: _Numbers | None = None, *, low: int = 1, high: int = MAX_SIZE
    ) -> tuple[int, ...]:
        """One number for every layer: an array of `count`, or a single number that holds for all."""
        if key not in self and isinstance(default, tuple):
            return default
        if key not in self or not self.is_array(key):
            return (
                self.integer(key, default if isinstance(default, int) else None, low=low, high=high),
            ) * count
        numbers = self.file.metadata.integers(f"{self.arch}.{key}")
        if numbers is None or len(numbers) != count:
            raise self.error(
                key, f"is {self._shown(key)}, expected {count} whole numbers, one for each layer"
            )
        bad = next((n for n in numbers if not low <= n <= high), None)
        if bad is not None:
            raise self.error(key, f"holds {bad}, expected whole numbers from {low} to {high}")
        return numbers

    def integers(self, key: str, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """An array of small numbers from 0, of one of `lengths`."""
        self._require(key)
        numbers = self.file.metadata.integers(f"{self.arch}.{key}")
        if numbers is None or len(numbers) not in lengths:
            raise self.error(key, f"is {self._shown(key)}, expected {lengths[-1]} whole numbers")
        if min(numbers) < 0 or max(numbers) > MAX_SIZE:
            raise self.error(key, f"holds numbers from {min(numbers)} to {max(numbers)}, expected sizes")
        return numbers

    def number(
        self, key: str, default: float | None = None, *, low: float = 0.0, high: float = 1e30
    ) -> float:
        """A finite number from `low` to `high`."""
        value = self._get(key, default)
        if type(value) not in (int, float) or not isinstance(value, int | float):
            raise self.error(key, f"is {show(value)}, expected a number")
        if not isfinite(value) or not low <= value <= high:
            raise self.error(key, f"is {value}, expected a number from {low:g} to {high:g}")
        return float(value)

    def string(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"is {show(value)}, expected a string")
        return value

    def error(self, key: str, problem: str) -> ModelFileError:
        """The error to raise about `key`: the file, the key and the `problem`."""
        return ModelFileError(f"{self.file.path}: metadata key {self.arch}.{key} {problem}")

    def _get(self, key: str, default: Value | None) -> Value:
        if default is not None and key not in self:
            return default
        self._require(key)
        return self.file.metadata[f"{self.arch}.{key}"]

    def _require(self, key: str) -> None:
        if key not in self:
            raise self.error(key, "is missing: the file is incomplete, convert or download it again")

    def _shown(self, key: str) -> str:
        return show(self.file.metadata[f"{self.arch}.{key}"])
