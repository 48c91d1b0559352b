"""Byte-pair encoding on the `tokenizers` library, for byte-level and SentencePiece-style vocabularies."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pintpot.errors import ModelFileError
from pintpot.tokenizer.vocab import VocabKind, Vocabulary

if TYPE_CHECKING:
    import tokenizers

SPACE: Final = "\u2581"  # how SentencePiece vocabularies spell a space


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 stands for itself, the rest for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF: Final = _byte_alphabet()


def byte_level_bytes(text: str) -> bytes:
    """The bytes a byte-level token stands for. A character outside the alphabet stands for itself."""
    try:
        return bytes([_BYTE_OF[char] for char in text])
    except KeyError:
        return b"".join(
            bytes([_BYTE_OF[char]]) if char in _BYTE_OF else char.encode("utf-8", "surrogateescape")
            for char in text
        )


class BPEEncoder:
    """Tokenizes text that holds no special tokens. Thread-safe."""

    def __init__(self, vocab: Vocabulary) -> None:
        """Raises ModelFileError when the merges do not fit the vocabulary."""
        self._spaces = vocab.kind is VocabKind.SPACE_BPE
        self._tokenizer = _build(vocab)

    def encode(self, text: str) -> list[int]:
        if self._spaces:
            text = text.replace(" ", SPACE)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _build(vocab: Vocabulary) -> tokenizers.Tokenizer:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    pre = vocab.pre
    if pre is None or vocab.merges is None:
        raise ModelFileError(f"{vocab.source}: tokenizer.ggml.merges is missing: this tokenizer needs it")
    byte_level = vocab.kind is VocabKind.BYTE_BPE
    with _no_collection():
        try:
            model = models.BPE(
                vocab=_writable_ids(vocab),
                merges=_pairs(vocab),
                byte_fallback=not byte_level,
                ignore_merges=pre.ignore_merges,
            )
        except Exception as error:  # noqa: BLE001  # what the library raises for parts that are no tokens
            reason = " ".join(str(error).split())[:160]
            raise ModelFileError(
                f"{vocab.source}: tokenizer.ggml.merges does not fit the vocabulary: {reason}"
            ) from None
    tokenizer = Tokenizer(model)
    steps: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    if byte_level:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


def _pairs(vocab: Vocabulary) -> list[tuple[str, str]]:
    """Merges as pairs, split at their first space."""
    merges = vocab.merges or []
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    if pairs and set(map(len, pairs)) != {2}:
        odd = next(merge for merge, pair in zip(merges, pairs, strict=True) if len(pair) != 2)
        raise ModelFileError(
            f"{vocab.source}: tokenizer.ggml.merges has an entry that is no pair: {odd[:40]!r}"
        )
    return pairs  # type: ignore[return-value]  # lengths checked above


def _writable_ids(vocab: Vocabulary) -> dict[str, int]:
    """Token to id, without tokens that are not valid Unicode: the library cannot hold them, text never
    contains them, and merges that make them are refused."""
    try:
        "".join(vocab.tokens).encode()
    except UnicodeEncodeError:
        return {text: i for text, i in vocab.ids.items() if text.isascii() or _is_unicode(text)}
    return vocab.ids


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Half a million new tuples would set off the garbage collector again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
