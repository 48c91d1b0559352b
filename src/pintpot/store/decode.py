"""From JSON to frozen dataclasses: a field that is unknown, missing or of another type is an error."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from pintpot.errors import PintpotError
from pintpot.gguf.metadata import show

_T = TypeVar("_T")


def decode(cls: type[_T], value: object, where: str, **given: object) -> _T:
    """An instance of the dataclass `cls` from a JSON object; `given` fields come from elsewhere.

    Raises PintpotError that begins with `where` and names the field.
    """
    if not isinstance(value, dict):
        raise PintpotError(f"{where}: is {show(value)}, expected an object")
    hints = _hints(typing.cast("Any", cls))  # mypy holds no type for hashable
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    expected = [name for name in known if name not in given]
    for name in value:
        if name not in expected:
            raise PintpotError(f"{where}: unknown field {show(name)}; known are: {', '.join(expected)}")
    for name in expected:
        field = known[name]
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise PintpotError(f"{where}: field '{name}' is missing")
    read = {name: _convert(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    return cls(**given, **read)


@cache
def _hints(cls: type[object]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: object, where: str) -> object:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (hint,) = (arg for arg in args if arg is not type(None))
        return _convert(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise PintpotError(f"{where}: is {show(value)}, expected a list")
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise PintpotError(f"{where}: is {show(value)}, expected an object")
        items = {key: _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
        return types.MappingProxyType(items)
    if is_dataclass(hint):
        return decode(typing.cast("type[object]", hint), value, where)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise PintpotError(f"{where}: is {show(value)}, expected {hint.__name__}")
    return value
