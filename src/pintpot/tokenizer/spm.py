"""SentencePiece-style tokenizing with scores, exactly as llama.cpp does it.

The `tokenizers` library has no such model: its BPE orders merges by rank, its Unigram finds the best path.
Here the adjacent pair whose union has the best score merges first, the leftmost of equals; what is no token
in the end becomes byte tokens.
"""

from __future__ import annotations

import re
from heapq import heapify, heappop, heappush
from typing import Final

from pintpot.tokenizer.bpe import SPACE
from pintpot.tokenizer.vocab import Vocabulary

_CACHE_WORDS: Final = 1 << 16
_CACHED_CHARS: Final = 64
_WORD: Final = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_CROSSING: Final = re.compile(f"[^{SPACE}]{SPACE}")


class SPMEncoder:
    """Tokenizes text that holds no special tokens. Thread-safe."""

    def __init__(self, vocab: Vocabulary) -> None:
        self._ids = vocab.ids
        self._scores = vocab.scores or [0.0] * len(vocab.tokens)
        self._unknown = vocab.special.unk
        self._cache: dict[str, tuple[int, ...]] = {}
        # No merge crosses from a letter to a space unless some token does: words are independent.
        self._by_word = not any(_CROSSING.search(token) for token in vocab.tokens)

    def encode(self, text: str) -> list[int]:
        text = text.replace(" ", SPACE)
        if not self._by_word:
            return self._merge(text)
        ids: list[int] = []
        for word in _WORD.findall(text):
            ids += self._word(word)
        return ids

    def _word(self, word: str) -> tuple[int, ...] | list[int]:
        cached = self._cache.get(word)
        if cached is not None:
            return cached
        if len(word) > _CACHED_CHARS:
            return self._merge(word)
        if len(self._cache) >= _CACHE_WORDS:
            self._cache.clear()
        result = self._cache[word] = tuple(self._merge(word))
        return result

    def _merge(self, text: str) -> list[int]:
        ids, scores = self._ids, self._scores
        parts: list[str] = list(text)  # "" once merged into its left neighbour
        before = list(range(-1, len(parts) - 1))
        after = [*range(1, len(parts)), -1]
        queue: list[tuple[float, int, int, int]] = []  # -score, left, right, length of the union
        for i in range(len(parts) - 1):
            token = ids.get(parts[i] + parts[i + 1])
            if token is not None:
                queue.append((-scores[token], i, i + 1, 2))
        heapify(queue)

        while queue:
            _, left, right, length = heappop(queue)
            if not parts[left] or not parts[right] or len(parts[left]) + len(parts[right]) != length:
                continue  # one of the two has merged with something else since
            parts[left] += parts[right]
            parts[right] = ""
            following = after[right]
            after[left] = following
            if following >= 0:
                before[following] = left
            for a, b in ((before[left], left), (left, following)):
                if a >= 0 and b >= 0:
                    token = ids.get(parts[a] + parts[b])
                    if token is not None:
                        heappush(queue, (-scores[token], a, b, len(parts[a]) + len(parts[b])))

        result: list[int] = []
        for part in parts:
            if part:
                token = ids.get(part)
                result += self._bytes(part) if token is None else (token,)
        return result

    def _bytes(self, char: str) -> list[int]:
        tokens = [self._ids.get(f"<0x{byte:02X}>", self._unknown) for byte in char.encode()]
        return [token for token in tokens if token is not None]
