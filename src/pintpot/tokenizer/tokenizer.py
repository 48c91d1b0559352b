"""Tokenizer: text to token ids and back, as the model file's own metadata defines it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from pintpot.errors import UsageError
from pintpot.tokenizer.bpe import SPACE, BPEEncoder, byte_level_bytes
from pintpot.tokenizer.partition import Partition
from pintpot.tokenizer.special import TokenType
from pintpot.tokenizer.spm import SPMEncoder
from pintpot.tokenizer.stream import TokenStream
from pintpot.tokenizer.vocab import VocabKind, Vocabulary

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Thread-safe. `add_space_prefix`: a space precedes words at the start of text (SentencePiece)."""

    def __init__(self, vocab: Vocabulary) -> None:
        """Raises ModelFileError when the vocabulary's merges do not fit it."""
        special = vocab.special
        self.vocab = vocab
        self.n_vocab = len(vocab.tokens)
        self.bos_id = special.bos
        self.eos_id = special.eos
        self.eot_id = special.eot
        self.pad_id = special.pad
        self.eog_ids = special.eog
        hidden = (TokenType.CONTROL, TokenType.UNKNOWN)
        self.special_ids = frozenset(i for i, kind in enumerate(vocab.types) if kind in hidden)
        self.add_space_prefix = vocab.add_space_prefix
        self._partition = Partition(vocab.tokens, vocab.types)
        self._cut_out = frozenset(self._partition.ids.values())
        self._encoder = SPMEncoder(vocab) if vocab.kind is VocabKind.SPM else BPEEncoder(vocab)
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], source: str) -> Tokenizer:
        """The tokenizer `tokenizer.ggml.*` describes; `source` names the file in messages.

        Raises ModelFileError for damaged or contradictory metadata, UnsupportedError for a kind of
        tokenizer this version does not have.
        """
        return cls(Vocabulary.from_metadata(metadata, source))

    def token_id(self, text: str) -> int | None:
        """The token spelled `text` in the vocabulary."""
        return self.vocab.ids.get(text)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`.

        `add_special` adds the begin and end tokens the model wants. `parse_special` finds control tokens
        spelled out in the text (a rendered chat template); without it they are ordinary text, while
        user-defined tokens are found always. Lone surrogates count as U+FFFD.
        """
        if not text.isascii():
            text = _SURROGATE.sub("\ufffd", text)
        vocab = self.vocab
        ids: list[int] = []
        if add_special and vocab.add_bos and self.bos_id is not None:
            ids.append(self.bos_id)
        space = " " if self.add_space_prefix else ""
        prefix = space
        for piece in self._partition.split(text, parse_special=parse_special):
            if isinstance(piece, int):
                ids.append(piece)
                prefix = space
            else:
                ids += self._encoder.encode(prefix + piece)
                prefix = ""
        if add_special and vocab.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of `ids`, the inverse of `encode`; bytes that are not UTF-8 become U+FFFD.

        `skip_special` leaves out control tokens. Raises UsageError for an id outside the vocabulary.
        """
        stream = self.stream(skip_special)
        return "".join(map(stream.push, ids)) + stream.flush()

    def stream(self, skip_special: bool = True, *, after: int | None = None) -> TokenStream:
        """An incremental decoder. `after` is the token before the first one pushed: when text continues
        text, a SentencePiece word's leading space is part of it. None: the start of a text."""
        at_start = after is None or self.is_cut_out(after)
        return TokenStream(self, skip_special=skip_special, at_start=at_start)

    def is_cut_out(self, token: int) -> bool:
        """Whether `token` is found in text as a whole before anything else is tokenized."""
        return token in self._cut_out

    def token_bytes(self, token: int) -> bytes:
        """The bytes `token` stands for, special tokens as spelled in the vocabulary. Not necessarily whole
        UTF-8 characters. Raises UsageError for an id outside the vocabulary."""
        data = self._bytes.get(token)
        if data is None:
            if not 0 <= token < self.n_vocab:
                raise UsageError(f"token id {token} is not in the vocabulary of {self.n_vocab} tokens")
            data = self._bytes[token] = self._spell(token)
        return data

    def _spell(self, token: int) -> bytes:
        text = self.vocab.tokens[token]
        kind = self.vocab.types[token]
        if not self.is_cut_out(token):
            if kind == TokenType.BYTE and (match := _BYTE_TOKEN.fullmatch(text)):
                return bytes([int(match[1], 16)])
            if self.vocab.kind is VocabKind.BYTE_BPE:
                return byte_level_bytes(text)
            text = text.replace(SPACE, " ")
        return text.encode("utf-8", "surrogateescape")
