"""Finds special tokens in text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pintpot.tokenizer.special import TokenType


class Partition:
    """Cuts text at special tokens: the longest token (in bytes) first wherever it occurs, then the next,
    as llama.cpp does. User-defined tokens are always found, control and unknown ones on demand."""

    def __init__(self, tokens: Sequence[str], types: Sequence[int]) -> None:
        found = {TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN}
        self.ids = {tokens[i]: i for i, kind in enumerate(types) if kind in found}
        self.always = {text: i for text, i in self.ids.items() if types[i] == TokenType.USER_DEFINED}
        self._finders = {True: _Finder(self.ids), False: _Finder(self.always)}

    def split(self, text: str, *, parse_special: bool) -> list[str | int]:
        """`text` in pieces: ordinary text (never empty) and ids of special tokens."""
        pieces: list[str | int] = [text] if text else []
        for special in self._finders[parse_special].occurring(text):
            pieces = _cut(pieces, special, self.ids[special])
        return pieces


def _cut(pieces: list[str | int], special: str, token: int) -> list[str | int]:
    result: list[str | int] = []
    for piece in pieces:
        if isinstance(piece, int) or special not in piece:
            result.append(piece)
            continue
        for i, part in enumerate(piece.split(special)):
            if i:
                result.append(token)
            if part:
                result.append(part)
    return result


class _Finder:
    """Which of some hundreds or thousands of strings occur in a text, in one pass over it."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        lengths: dict[str, set[int]] = {}
        for text in ids:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(sizes) for first, sizes in lengths.items()}
        firsts = "".join(map(re.escape, self._lengths))
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def occurring(self, text: str) -> list[str]:
        """The strings that occur, in the order in which they are to be cut out."""
        if self._first is None:
            return []
        ids = self._ids
        found: set[str] = set()
        for match in self._first.finditer(text):
            start = match.start()
            for size in self._lengths[match[0]]:
                candidate = text[start : start + size]
                if candidate in ids:
                    found.add(candidate)
        return sorted(found, key=lambda special: (-len(special.encode("utf-8", "replace")), ids[special]))
