"""What rendering one template may cost."""

from __future__ import annotations

from collections.abc import Mapping
from time import thread_time
from typing import Any, Final

_SIZE: Final = 4_000_000
_NODE: Final = 16  # what an item of a list counts, in characters
_SECONDS: Final = 1.0


class LimitExceededError(Exception):
    """The template asked for too much; the message completes "the chat template ..."."""


class Budget:
    """Limits in characters, generous multiples of what goes in: `max_size` for any one value, 2x that for
    the output, 16x that for all that is made on the way; and CPU time of the calling thread."""

    def __init__(self, input_size: int) -> None:
        self.max_size = _SIZE + 8 * input_size
        self._unwritten = 2 * self.max_size
        self._unmade = 16 * self.max_size
        self._deadline = thread_time() + _SECONDS + input_size / 1e7

    def tick(self) -> None:
        """To be called at every step."""
        if thread_time() > self._deadline:
            raise LimitExceededError("takes too long")

    def fit(self, size: int) -> None:
        """Checks that a value of `size` characters may exist."""
        if size > self.max_size:
            raise LimitExceededError("makes a text or list that is too large")

    def make(self, size: int) -> None:
        """Counts a value of `size` characters that is being made."""
        self.fit(size)
        self._unmade -= size
        if self._unmade < 0:
            raise LimitExceededError("makes too much text")

    def write(self, size: int) -> None:
        """Counts output."""
        self._unwritten -= size
        if self._unwritten < 0:
            raise LimitExceededError("writes too much text")

    def made(self, value: Any) -> Any:
        """`value`, counted if it is a text or a container."""
        if isinstance(value, str | bytes | list | tuple | dict | set | frozenset):
            self.make(self.size(value))
        return value

    def size(self, value: Any) -> int:
        """Characters in `value`, its parts included each time they occur. Stops beyond `max_size`."""
        return measure(value, self.max_size)


def measure(value: Any, limit: float = float("inf")) -> int:
    """Characters in `value` and its parts, an item counting 16. Raises LimitExceededError beyond `limit`."""
    if isinstance(value, str | bytes):
        return len(value)
    from jinja2.utils import Namespace

    size = 0
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str | bytes):
            size += len(item)
            continue
        if isinstance(item, Namespace):
            item = item._Namespace__attrs
        if isinstance(item, Mapping):
            parts = [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            parts = list(item)
        else:
            continue
        size += _NODE * (1 + len(parts))
        if size > limit:
            raise LimitExceededError("makes a text or list that is too large")
        pending += parts
    if size > limit:
        raise LimitExceededError("makes a text or list that is too large")
    return size
