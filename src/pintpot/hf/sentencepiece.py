"""Reading `tokenizer.model`: SentencePiece's ModelProto, as far as a GGUF file needs it.

Source: sentencepiece_model.proto, field numbers and defaults as there; the protobuf wire format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pintpot.errors import ModelFileError, UnsupportedError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_TYPES: Final = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True, slots=True)
class Piece:
    """`type` has the numbers of GGUF's token types."""

    text: str
    score: float
    type: int


@dataclass(slots=True)
class SentencePieceModel:
    pieces: list[Piece] = field(default_factory=list)
    model_type: str = "unigram"
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    normalizer: str = ""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Raises ModelFileError for a damaged file, UnsupportedError for a model that does not merge pairs."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    model = SentencePieceModel()
    try:
        _read_model(raw, model)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path}: is no SentencePiece model ({error})") from None
    if not model.pieces:
        raise ModelFileError(f"{path}: is no SentencePiece model (it has no pieces)")
    if model.model_type != "bpe":
        raise UnsupportedError(f"{path}: a {model.model_type} model, only BPE models are converted")
    return model


def _read_model(raw: bytes, model: SentencePieceModel) -> None:
    for number, value in _fields(raw):
        if number == 1:
            parts = dict(_fields(_message(value)))
            (score,) = struct.unpack("<f", _message(parts.get(2, bytes(4))))
            text = _message(parts.get(1, b"")).decode()
            model.pieces.append(Piece(text, score, _number(parts.get(3, 1))))
        elif number == 2:
            for key, item in _fields(_message(value)):
                if key == 3:
                    model.model_type = _MODEL_TYPES.get(_number(item), "unknown")
                elif key in (40, 41, 42, 43):
                    name = ("unk_id", "bos_id", "eos_id", "pad_id")[key - 40]
                    setattr(model, name, _signed(_number(item)))
        elif number == 3:
            for key, item in _fields(_message(value)):
                if key == 1:
                    model.normalizer = _message(item).decode()
                elif key == 3:
                    model.add_dummy_prefix = bool(item)
                elif key == 4:
                    model.remove_extra_whitespaces = bool(item)


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of one message, those of fixed size as bytes."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(raw, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(raw, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if size > len(raw) - at:
            raise ValueError("it is truncated")
        yield tag >> 3, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a field has another type")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise TypeError("a field has another type")
    return value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
