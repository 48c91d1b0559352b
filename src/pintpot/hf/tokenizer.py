"""The tokenizer of a Hugging Face folder as `tokenizer.*` metadata of a GGUF file.

Keys and token types are those of llama.cpp's converter (gguf-py/gguf/vocab.py, conversion/base.py); where it
and the tokenizer's own files disagree, the files decide (docs/formats/huggingface.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pintpot.errors import ModelFileError
from pintpot.gguf import Typed, ValueType
from pintpot.hf.config import Config, read_optional_json
from pintpot.hf.vocabulary import AddedToken, VocabularyFile, added_token, read_vocabulary
from pintpot.tokenizer.bpe import SPACE
from pintpot.tokenizer.special import TokenType
from pintpot.tokenizer.vocab import VocabKind

_ROLES: Final = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Added tokens that act as control tokens though the file calls them ordinary.
_LOOKS_SPECIAL: Final = re.compile(r"<\|.*\|>|<｜.*｜>|<unused\d*>|<pad>|<mask>", re.DOTALL)  # noqa: RUF001
# Gemma 4's marks around thoughts and tool calls: readers of an answer need them, so they are shown.
_GEMMA4_SHOWN: Final = frozenset(
    (
        "<|channel>",
        "<channel|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        '<|"|>',
    )
)


@dataclass(frozen=True, slots=True)
class TokenizerMetadata:
    values: dict[str, Any]
    notes: tuple[str, ...]


def read_tokenizer(folder: Path, arch: str, n_vocab: int, text: Config) -> TokenizerMetadata:
    """`n_vocab` tokens, the last ones unused where the embedding has more rows than the tokenizer tokens.
    `text` is the model's config, which may state ids of special tokens.

    Raises ModelFileError for files that are missing, damaged or contradictory, UnsupportedError for a
    tokenizer that has no GGUF form this version can run.
    """
    json_path = folder / "tokenizer.json"
    json_file = read_optional_json(json_path) if json_path.exists() else None
    config_path = folder / "tokenizer_config.json"
    config = Config(config_path, read_optional_json(config_path))
    vocabulary = read_vocabulary(folder, arch, json_file)
    vocabulary.added |= _added_elsewhere(folder, config)
    tokens, types = _token_list(vocabulary, n_vocab)
    values: dict[str, Any] = {
        "tokenizer.ggml.model": vocabulary.kind.value,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(kind) for kind in types],
    }
    if vocabulary.scores is not None:
        scores = [vocabulary.scores.get(i, 0.0) for i in range(n_vocab)]
        values |= {"tokenizer.ggml.scores": scores, "tokenizer.ggml.pre": "default"}
    if vocabulary.merges is not None:
        none = Typed(ValueType.ARRAY, [], ValueType.STRING)
        values["tokenizer.ggml.merges"] = vocabulary.merges or none
    if vocabulary.pre is not None:
        values["tokenizer.ggml.pre"] = vocabulary.pre
    if vocabulary.add_space_prefix is not None:
        prefix = vocabulary.add_space_prefix
        if json_file is None:
            prefix = config.flag("add_prefix_space", prefix)
        values["tokenizer.ggml.add_space_prefix"] = prefix
    ids, notes = _special_ids(folder, vocabulary, config, text, tokens)
    values |= ids
    values |= _chat_templates(folder, config)
    return TokenizerMetadata(values, (*vocabulary.notes, *notes))


def _added_elsewhere(folder: Path, config: Config) -> dict[int, AddedToken]:
    """Added tokens of tokenizer_config.json, and of added_tokens.json where older tokenizers have them."""
    path = folder / "added_tokens.json"
    found: dict[int, AddedToken] = {}
    for text, i in read_optional_json(path).items():
        if type(i) is not int:
            raise ModelFileError(f"{path}: token {text[:40]!r} has the impossible id {i!r}")
        found[i] = AddedToken(text, special=False, normalized=False)
    for number, entry in config.section("added_tokens_decoder").values.items():
        if not number.isdecimal():
            raise config.error("added_tokens_decoder", f"has the impossible id {number[:40]!r}")
        found[int(number)] = added_token(config.path, entry)
    return found


def _token_list(vocabulary: VocabularyFile, n_vocab: int) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{i}]" for i in range(n_vocab)]
    types = [int(TokenType.UNUSED)] * n_vocab
    for i in (*vocabulary.tokens, *vocabulary.added):
        if not 0 <= i < n_vocab:
            raise ModelFileError(
                f"{vocabulary.path}: token id {i} has no row in the embedding, which has {n_vocab}:"
                " tokenizer and weights are of different models"
            )
    for i, text in vocabulary.tokens.items():
        tokens[i], types[i] = text, vocabulary.types.get(i, int(TokenType.NORMAL))
    for i, added in vocabulary.added.items():
        tokens[i] = added.text
        kept = types[i] in (TokenType.UNKNOWN, TokenType.BYTE)
        if not kept:
            types[i] = _added_type(added)
        if (
            types[i] == TokenType.USER_DEFINED
            and added.normalized
            and vocabulary.kind is not VocabKind.BYTE_BPE
        ):
            tokens[i] = added.text.replace(SPACE, " ")  # found in text as it is written
    if len(set(tokens)) != n_vocab:
        seen: set[str] = set()
        twice = next(text for text in tokens if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise ModelFileError(f"{vocabulary.path}: token {twice[:40]!r} is there twice")
    return tokens, types


def _added_type(added: AddedToken) -> int:
    if added.text in _GEMMA4_SHOWN:
        return TokenType.USER_DEFINED
    is_control = added.special or _LOOKS_SPECIAL.fullmatch(added.text)
    return TokenType.CONTROL if is_control else TokenType.USER_DEFINED


def _special_ids(
    folder: Path, vocabulary: VocabularyFile, config: Config, text: Config, tokens: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Ids of special tokens, and whether text begins and ends with them."""
    by_text = {token: i for i, token in enumerate(tokens)}
    generation_path = folder / "generation_config.json"
    generation = Config(generation_path, read_optional_json(generation_path))
    found: dict[str, int] = {}
    for role in _ROLES:
        stated = _token_text(config, f"{role}_token")
        if stated is not None and stated in by_text:
            found[role] = by_text[stated]
            continue
        for numbers in (text.values, generation.values, _prefixed(vocabulary.ids)):
            i = numbers.get(f"{role}_token_id")
            i = i[0] if isinstance(i, list) and i else i
            if type(i) is int and 0 <= i < len(tokens):
                found[role] = i
                break
    values: dict[str, Any] = {f"tokenizer.ggml.{_ROLES[role]}_token_id": i for role, i in found.items()}
    notes: list[str] = []
    for role, end in (("bos", vocabulary.first), ("eos", vocabulary.last)):
        added = _adds(role, end, config, found, tokens, notes)
        # tokenizer.json says so by having no template; tokenizer.model alone leaves it to the reader.
        if added is not None or vocabulary.path.suffix == ".json":
            values[f"tokenizer.ggml.add_{role}_token"] = bool(added)
    return values, notes


def _adds(
    role: str, end: str | None, config: Config, found: Mapping[str, int], tokens: list[str], notes: list[str]
) -> bool | None:
    """Whether text gets the token of `role`: as tokenizer_config.json says, else as tokenizer.json's template
    does. None: nothing says so."""
    key = f"add_{role}_token"
    if key in config:
        return config.flag(key, False) and role in found
    if end is None:
        return None
    if role in found and tokens[found[role]] == end:
        return True
    notes.append(f"the tokenizer puts {end!r} around text, which is not its {role} token: it is left out")
    return False


def _token_text(config: Config, key: str) -> str | None:
    value = config.values.get(key)
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _prefixed(ids: Mapping[str, int] | None) -> dict[str, int]:
    return {f"{role}_token_id": i for role, i in (ids or {}).items()}


def _chat_templates(folder: Path, config: Config) -> dict[str, Any]:
    """chat_template.jinja goes before tokenizer_config.json, as in transformers."""
    templates: dict[str, str] = {}
    inside = config.values.get("chat_template")
    if isinstance(inside, str):
        templates["default"] = inside
    elif isinstance(inside, list):
        for entry in inside:
            name, template = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (0, 0)
            if not isinstance(name, str) or not isinstance(template, str):
                raise config.error("chat_template", "has an entry without name and template")
            templates[name] = template
    elif inside is not None:
        raise config.error("chat_template", "is no string")
    paths = {"default": folder / "chat_template.jinja"}
    paths |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    for name, path in paths.items():
        if path.exists():
            templates[name] = _read_text(path)
    values: dict[str, Any] = {}
    if "default" in templates:
        values["tokenizer.chat_template"] = templates.pop("default")
    for name, template in templates.items():
        values[f"tokenizer.chat_template.{name}"] = template
    if templates:
        values["tokenizer.chat_templates"] = list(templates)
    return values


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: cannot be read: {error}") from None
