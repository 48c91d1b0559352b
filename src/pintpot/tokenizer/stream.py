"""Tokens to text, one at a time."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pintpot.tokenizer.tokenizer import Tokenizer


class TokenStream:
    """Incremental decoding: what `push` and the final `flush` return adds up to `Tokenizer.decode`.

    Never returns part of a UTF-8 character; bytes that cannot be part of one become U+FFFD at once. In
    SentencePiece vocabularies with a space prefix, the space that begins the text, or follows a special
    token, only marks the start of a word and is left out. Not thread-safe: one stream, one sequence.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool, at_start: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._drop_space = at_start and tokenizer.add_space_prefix
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while it ends within a character, and for special tokens
        that are skipped. Raises UsageError for an id outside the vocabulary."""
        tokenizer = self._tokenizer
        data = tokenizer.token_bytes(token)
        if tokenizer.add_space_prefix:
            if tokenizer.is_cut_out(token):
                self._drop_space = True
            elif self._drop_space:
                self._drop_space = False
                data = data.removeprefix(b" ")
        if self._skip_special and token in tokenizer.special_ids:
            return ""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end of the text: U+FFFD when it ends within a character, else nothing."""
        return self._decoder.decode(b"", final=True)
