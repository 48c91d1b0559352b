"""The JSON files of a Hugging Face folder, read with their values checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Final

from pintpot.errors import ModelFileError

_MAX_JSON_BYTES: Final = 1 << 28


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelFileError when the file cannot be read or holds none."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelFileError(f"{path}: has more than {_MAX_JSON_BYTES} bytes, no model's file has")
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is no JSON ({error}): download it again") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: holds {type(value).__name__}, expected a JSON object")
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """As `read_json`; empty when there is no such file."""
    return read_json(path) if path.exists() else {}


class Config:
    """An object of a JSON file; null counts as absent. Every method raises ModelFileError naming the key."""

    def __init__(self, path: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        self.path = path
        self.values = values
        self._prefix = prefix

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def error(self, key: str, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {self._prefix}{key} {problem}")

    def integer(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        """A whole number from `low`; required when there is no default."""
        value = self._get(key, default)
        if type(value) is not int or not low <= value < 1 << 31:
            raise self.error(key, f"is {_show(value)}, expected a whole number from {low}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; required when there is no default."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.error(key, f"is {_show(value)}, expected a number")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"is {_show(value)}, expected a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"is {_show(value)}, expected true or false")
        return value

    def integers(self, key: str) -> list[int]:
        value = self._get(key, None)
        if not isinstance(value, list) or any(type(n) is not int or n < 0 for n in value):
            raise self.error(key, f"is {_show(value)}, expected a list of whole numbers")
        return value

    def texts(self, key: str, length: int) -> list[str]:
        value = self._get(key, None)
        if not isinstance(value, list) or len(value) != length or any(type(v) is not str for v in value):
            raise self.error(key, f"is {_show(value)}, expected a list of {length} strings")
        return value

    def section(self, key: str) -> Config:
        """The object under `key`; empty when absent."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.error(key, f"is {_show(value)}, expected an object")
        return Config(self.path, value, f"{self._prefix}{key}.")

    def _get(self, key: str, default: object) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            raise self.error(key, "is missing, the model's shape is not known without it")
        return default


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
