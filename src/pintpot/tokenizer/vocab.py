"""The vocabulary of a model file: what `tokenizer.ggml.*` says, checked, and nothing built from it yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.tokenizer.fields import Fields
from pintpot.tokenizer.pretokenizers import LINES, PRETOKENIZERS, PreTokenizer
from pintpot.tokenizer.special import SpecialTokens, TokenType, find_special


class VocabKind(StrEnum):
    """`tokenizer.ggml.model`: how text becomes tokens."""

    BYTE_BPE = "gpt2"  # byte-pair merges over bytes spelled as printable characters
    SPM = "llama"  # SentencePiece: the best-scored adjacent pair merges first; unknown characters as bytes
    SPACE_BPE = (
        "gemma4"  # byte-pair merges over characters, spaces spelled U+2581; unknown characters as bytes
    )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens[id]` is a token's text as the file spells it, `types[id]` its TokenType, as corrected by
    find_special. `scores` are present for SPM, `pre` and `merges` for the others."""

    source: str
    kind: VocabKind
    tokens: list[str]
    types: list[int]
    ids: dict[str, int]
    special: SpecialTokens
    scores: list[float] | None
    merges: list[str] | None
    pre_name: str | None
    pre: PreTokenizer | None
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], source: str) -> Vocabulary:
        """Reads and checks `tokenizer.ggml.*`; `source` names the file in messages.

        Raises ModelFileError for missing, inconsistent or mistyped values, UnsupportedError for a
        tokenizer or pre-tokenizer this version does not have.
        """
        fields = Fields(metadata, source)
        kind = _kind(fields)
        tokens, ids = _tokens(fields)
        types = fields.integers("tokenizer.ggml.token_type", len(tokens))
        if types is None:
            types = [int(TokenType.NORMAL)] * len(tokens)
        defaults = {"bos": 1, "eos": 2, "unknown": 0} if kind is VocabKind.SPM else {}
        special = find_special(fields, ids, types, defaults)
        pre_name, pre = _pre_tokenizer(fields, kind)
        return cls(
            source=source,
            kind=kind,
            tokens=tokens,
            types=types,
            ids=ids,
            special=special,
            scores=_scores(fields, len(tokens)) if kind is VocabKind.SPM else None,
            merges=None if kind is VocabKind.SPM else _merges(fields),
            pre_name=pre_name,
            pre=pre,
            add_bos=_add_bos(fields, kind, pre),
            add_eos=fields.flag("tokenizer.ggml.add_eos_token") or False,
            add_space_prefix=_add_space_prefix(fields, kind),
        )


_KEY_TOKENS: Final = "tokenizer.ggml.tokens"


def _kind(fields: Fields) -> VocabKind:
    name = fields.text("tokenizer.ggml.model")
    if name is None:
        raise ModelFileError(f"{fields.source}: has no tokenizer (tokenizer.ggml.model is missing)")
    try:
        return VocabKind(name)
    except ValueError:
        known = ", ".join(kind.value for kind in VocabKind)
        raise UnsupportedError(
            f"{fields.source}: tokenizer {name!r} is not supported (supported: {known})"
        ) from None


def _tokens(fields: Fields) -> tuple[list[str], dict[str, int]]:
    tokens = fields.texts(_KEY_TOKENS)
    if not tokens:
        raise fields.error(_KEY_TOKENS, "is missing or empty: the file has no vocabulary")
    if "" in tokens:
        tokens = [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        first = next(text for i, text in enumerate(tokens) if ids[text] != i)
        raise fields.error(_KEY_TOKENS, f"has the token {first[:40]!r} more than once")
    return tokens, ids


def _scores(fields: Fields, n_vocab: int) -> list[float]:
    scores = fields.floats("tokenizer.ggml.scores", n_vocab)
    return [0.0] * n_vocab if scores is None else scores


def _merges(fields: Fields) -> list[str]:
    merges = fields.texts("tokenizer.ggml.merges")
    if merges is None:
        raise fields.error("tokenizer.ggml.merges", "is missing: this tokenizer needs it")
    return merges


def _pre_tokenizer(fields: Fields, kind: VocabKind) -> tuple[str | None, PreTokenizer | None]:
    if kind is VocabKind.SPM:
        return None, None
    if kind is VocabKind.SPACE_BPE:
        return "gemma4", LINES
    name = fields.text("tokenizer.ggml.pre") or "default"
    pre = PRETOKENIZERS.get(name)
    if pre is None:
        raise UnsupportedError(
            f"{fields.source}: pre-tokenizer {name!r} (tokenizer.ggml.pre) is not supported"
        )
    return name, pre


def _add_bos(fields: Fields, kind: VocabKind, pre: PreTokenizer | None) -> bool:
    if kind is VocabKind.SPACE_BPE:
        return True  # Gemma 4 needs it whatever the file says; early conversions say no
    said = fields.flag("tokenizer.ggml.add_bos_token")
    if said is not None:
        return said
    return kind is VocabKind.SPM or (pre is not None and pre.add_bos)


def _add_space_prefix(fields: Fields, kind: VocabKind) -> bool:
    if kind is not VocabKind.SPM:
        return False
    said = fields.flag("tokenizer.ggml.add_space_prefix")
    return True if said is None else said
