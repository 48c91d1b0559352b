"""Which tokens have a role: begin and end of a sequence, end of a turn, and all that end a generation.

The metadata names some of them. Others are known by their text alone, as in llama.cpp (src/llama-vocab.cpp),
whose list of names and exceptions this follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pintpot.tokenizer.fields import Fields


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # found in text only when special tokens are parsed; not shown
    USER_DEFINED = 4  # always found in text before anything else; shown
    UNUSED = 5
    BYTE = 6  # <0xXX>


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    bos: int | None  # begin of sequence
    eos: int | None  # end of sequence
    eot: int | None  # end of turn
    eom: int | None  # end of message
    pad: int | None
    unk: int | None
    eog: frozenset[int]  # any of these ends a generation


_EOT_NAMES: Final = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "<end_of_utterance>",
)
_EOG_NAMES: Final = (
    *_EOT_NAMES,
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<|eom_id|>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
)
# Fill-in-the-middle tokens that end a generation when a model writes them.
_FIM_NAMES: Final = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# gpt-oss marks its channels with these; they are part of what a reader of the answer needs.
_SHOWN_NAMES: Final = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


def find_special(
    fields: Fields, ids: Mapping[str, int], types: list[int], defaults: Mapping[str, int]
) -> SpecialTokens:
    """The special tokens of a vocabulary of `len(types)` tokens, whose texts are the keys of `ids`.

    `defaults` are ids that hold where the file says nothing. Corrects `types` in place: tokens known to be
    control tokens become so. Raises ModelFileError for an id outside the vocabulary.
    """
    n_vocab = len(types)

    def by_key(role: str) -> int | None:
        key = f"tokenizer.ggml.{role}_token_id"
        if key in fields.metadata:
            return fields.token_id(key, n_vocab)
        default = defaults.get(role)
        return default if default is not None and default < n_vocab else None

    def by_name(names: tuple[str, ...]) -> int | None:
        found = next((ids[name] for name in names if name in ids), None)
        if found is not None:
            types[found] = TokenType.CONTROL
        return found

    bos, eos, pad, unk = by_key("bos"), by_key("eos"), by_key("padding"), by_key("unknown")
    eot, eom = by_key("eot"), by_key("eom")
    if eot is None:
        eot = by_name(_EOT_NAMES)
    if eom is None:
        eom = by_name(("<|eom_id|>",))

    ends = {eos, eot, eom}
    for role, names in _FIM_NAMES.items():
        token = by_key(role)
        ends.add(by_name(names) if token is None else token)
    for name in _EOG_NAMES:
        if name in ids:
            ends.add(ids[name])
            types[ids[name]] = TokenType.CONTROL
    # In Qwen's and Gemma 4's vocabularies </s> is the closing HTML tag, ordinary text.
    strike = ids.get("</s>")
    if strike is not None and types[strike] != TokenType.NORMAL and "<|tool_response>" not in ids:
        ends.add(strike)
    for name in _SHOWN_NAMES:
        if name in ids:
            types[ids[name]] = TokenType.USER_DEFINED
    _apply_exceptions(ids, types, ends)
    eog = frozenset(token for token in ends if token is not None)
    return SpecialTokens(bos=bos, eos=eos, eot=eot, eom=eom, pad=pad, unk=unk, eog=eog)


def _apply_exceptions(ids: Mapping[str, int], types: list[int], ends: set[int | None]) -> None:
    # gpt-oss and Solar Open: <|end|> ends one message of several in the same answer.
    harmony = "<|return|>" in ids and "<|call|>" in ids
    solar = "<|flush|>" in ids and ("<|call|>" in ids or "<|calls|>" in ids)
    if "<|end|>" in ids and (harmony or solar):
        ends.discard(ids["<|end|>"])
        types[ids["<|end|>"]] = TokenType.USER_DEFINED
