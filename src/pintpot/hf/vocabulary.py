"""The vocabulary of a Hugging Face tokenizer, from tokenizer.json or SentencePiece's tokenizer.model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.hf.pretokenizer import detect_pretokenizer
from pintpot.hf.sentencepiece import read_sentencepiece
from pintpot.tokenizer.bpe import SPACE
from pintpot.tokenizer.special import TokenType
from pintpot.tokenizer.vocab import VocabKind

_BYTE: Final = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is cut out of text before anything else."""

    text: str
    special: bool
    normalized: bool


@dataclass(slots=True)
class VocabularyFile:
    """What the file says; None where it says nothing. `tokens` and the others by id, `types` of those that
    are not NORMAL. `first` and `last` are texts of tokens put around every text, `ids` those of roles."""

    path: Path
    kind: VocabKind
    tokens: dict[int, str]
    types: dict[int, int]
    added: dict[int, AddedToken]
    merges: list[str] | None = None
    scores: dict[int, float] | None = None
    pre: str | None = None
    add_space_prefix: bool | None = None
    first: str | None = None
    last: str | None = None
    ids: dict[str, int] | None = None
    notes: tuple[str, ...] = ()


def read_vocabulary(folder: Path, arch: str, json_file: Mapping[str, Any] | None) -> VocabularyFile:
    """`json_file` is the content of tokenizer.json where there is one.

    Raises UnsupportedError for a kind of tokenizer that has no GGUF form here, ModelFileError for damage.
    """
    sentencepiece = folder / "tokenizer.model"
    if json_file is None:
        if sentencepiece.exists():
            return _from_sentencepiece(sentencepiece)
        raise ModelFileError(
            f"{folder}: has neither tokenizer.json nor tokenizer.model: a model needs its tokenizer"
        )
    file = _from_json(folder / "tokenizer.json", arch, json_file)
    if file.kind is VocabKind.SPM and sentencepiece.exists():
        # Its scores and types are the originals, which tokenizer.json was made from.
        original = _from_sentencepiece(sentencepiece)
        file.tokens, file.types, file.scores = original.tokens, original.types, original.scores
        file.ids, file.notes = original.ids, original.notes
    return file


def _from_sentencepiece(path: Path) -> VocabularyFile:
    model = read_sentencepiece(path)
    notes: list[str] = []
    if model.normalizer not in ("", "identity"):
        notes.append(f"{path.name} normalizes text ({model.normalizer}), GGUF tokenizers do not")
    if model.remove_extra_whitespaces:
        notes.append(f"{path.name} removes repeated spaces, GGUF tokenizers do not")
    roles = {"bos": model.bos_id, "eos": model.eos_id, "unk": model.unk_id, "pad": model.pad_id}
    return VocabularyFile(
        path=path,
        kind=VocabKind.SPM,
        tokens={i: piece.text for i, piece in enumerate(model.pieces)},
        types={i: piece.type for i, piece in enumerate(model.pieces) if piece.type != TokenType.NORMAL},
        added={},
        scores={i: piece.score for i, piece in enumerate(model.pieces)},
        add_space_prefix=model.add_dummy_prefix,
        ids={role: i for role, i in roles.items() if 0 <= i < len(model.pieces)},
        notes=tuple(notes),
    )


def _from_json(path: Path, arch: str, content: Mapping[str, Any]) -> VocabularyFile:
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or "merges" not in model:
        kind = model.get("type") if isinstance(model, dict) else None
        raise UnsupportedError(f"{path}: a tokenizer of type {kind!r}, only BPE is converted")
    tokens = _tokens(path, model.get("vocab"))
    merges = _merges(path, model["merges"])
    steps = _normalizer_steps(path, content.get("normalizer"))
    first, last = _template_ends(content.get("post_processor"))
    file = VocabularyFile(
        path,
        VocabKind.BYTE_BPE,
        tokens,
        {},
        _added(path, content.get("added_tokens")),
        first=first,
        last=last,
    )
    if not model.get("byte_fallback"):
        if steps - {"NFC"}:
            raise UnsupportedError(f"{path}: normalizer {', '.join(sorted(steps))} has no GGUF form")
        file.pre = detect_pretokenizer(
            content.get("pre_tokenizer"), ignore_merges=bool(model.get("ignore_merges")), source=str(path)
        )
        file.merges = merges
        return file
    if steps - {"Prepend", "Replace"}:
        raise UnsupportedError(f"{path}: normalizer {', '.join(sorted(steps))} has no GGUF form")
    file.types = {i: TokenType.BYTE for i, text in tokens.items() if _BYTE.fullmatch(text)}
    unknown = next((i for i, text in tokens.items() if text == model.get("unk_token")), None)
    if unknown is not None:
        file.types[unknown] = TokenType.UNKNOWN
        file.ids = {"unk": unknown}
    if arch == "gemma4":
        file.kind, file.merges, file.add_space_prefix = VocabKind.SPACE_BPE, merges, False
        return file
    file.kind = VocabKind.SPM
    file.add_space_prefix = "Prepend" in steps or _metaspace_prepends(content.get("pre_tokenizer"))
    file.scores, is_exact = _scores(tokens, merges)
    if not is_exact:
        file.notes = (
            f"{path.name} has merges that SentencePiece would not have: some text may become other tokens",
        )
    return file


def _tokens(path: Path, vocab: object) -> dict[int, str]:
    if not isinstance(vocab, dict) or not vocab:
        raise ModelFileError(f"{path}: model.vocab is missing or no object")
    tokens: dict[int, str] = {}
    for text, i in vocab.items():
        if type(i) is not int or i < 0 or i in tokens:
            raise ModelFileError(f"{path}: model.vocab gives token {text[:40]!r} the impossible id {i!r}")
        tokens[i] = text
    return tokens


def _merges(path: Path, merges: object) -> list[str]:
    """As GGUF has them, "left right"; older files have them so, newer ones as pairs."""
    if not isinstance(merges, list):
        raise ModelFileError(f"{path}: model.merges is no list")
    out: list[str] = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or any(type(p) is not str or " " in p for p in pair):
            raise UnsupportedError(f"{path}: merge {merge!r} is no pair of two tokens without spaces")
        out.append(f"{pair[0]} {pair[1]}")
    return out


def _added(path: Path, entries: object) -> dict[int, AddedToken]:
    added: dict[int, AddedToken] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or type(entry.get("id")) is not int:
            raise ModelFileError(f"{path}: added_tokens has an entry without an id: {str(entry)[:80]}")
        added[entry["id"]] = added_token(path, entry)
    return added


def added_token(path: Path, entry: object) -> AddedToken:
    """An entry of added_tokens in tokenizer.json, or of added_tokens_decoder in tokenizer_config.json."""
    text = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(text, str):
        raise ModelFileError(f"{path}: an added token has no content: {str(entry)[:80]}")
    return AddedToken(text, bool(entry.get("special")), bool(entry.get("normalized")))


def _normalizer_steps(path: Path, normalizer: object) -> set[str]:
    """Types of its steps. Raises UnsupportedError for a replacement other than of spaces by U+2581."""
    if normalizer is None:
        return set()
    if not isinstance(normalizer, dict):
        raise ModelFileError(f"{path}: normalizer is no object")
    if normalizer.get("type") == "Sequence":
        parts = [_normalizer_steps(path, step) for step in normalizer.get("normalizers") or ()]
        return set().union(*parts)
    is_space = normalizer.get("pattern") == {"String": " "} and normalizer.get("content") == SPACE
    if normalizer.get("type") == "Replace" and not is_space:
        raise UnsupportedError(
            f"{path}: normalizer replaces {str(normalizer.get('pattern'))[:80]}, not spaces"
        )
    return {str(normalizer.get("type"))}


def _metaspace_prepends(pre: object) -> bool:
    if not isinstance(pre, dict):
        return False
    if pre.get("type") == "Sequence":
        return any(_metaspace_prepends(step) for step in pre.get("pretokenizers") or ())
    if pre.get("type") != "Metaspace":
        return False
    default = "always" if pre.get("add_prefix_space", True) else "never"
    return bool(pre.get("prepend_scheme", default) != "never")


def _template_ends(processor: object) -> tuple[str | None, str | None]:
    """The special tokens a post-processor puts around a single text."""
    if not isinstance(processor, dict):
        return None, None
    if processor.get("type") == "Sequence":
        for step in processor.get("processors") or ():
            ends = _template_ends(step)
            if ends != (None, None):
                return ends
    if processor.get("type") != "TemplateProcessing" or not isinstance(processor.get("single"), list):
        return None, None
    special = [
        step.get("SpecialToken", {}).get("id") if isinstance(step, dict) else None
        for step in processor["single"]
    ]
    return (special[0], special[-1]) if len(special) > 1 else (None, None)


def _scores(tokens: Mapping[int, str], merges: list[str]) -> tuple[dict[int, float], bool]:
    """Scores by which SentencePiece's algorithm merges in the order of `merges`, and whether it then finds
    the same merges: it knows no list, any two neighbours merge that make a token."""
    rank: dict[str, int] = {}
    is_exact = True
    for i, merge in enumerate(merges):
        made = merge.replace(" ", "")
        is_exact &= rank.setdefault(made, i) == i or merges[i - 1].replace(" ", "") == made
    texts = set(tokens.values())
    listed = set(merges)
    for text in texts:
        if not _BYTE.fullmatch(text):
            is_exact &= all(
                f"{text[:k]} {text[k:]}" in listed
                for k in range(1, len(text))
                if text[:k] in texts and text[k:] in texts
            )
    return {i: -float(rank.get(text, len(merges))) for i, text in tokens.items()}, is_exact
