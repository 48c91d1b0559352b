"""A byte-level BPE vocabulary of any size: every byte, a few real merges, pronounceable filler, specials.

Text tokenizes with the bytes and the merges; the filler is what a random model mostly says, so that a
streamed answer looks like (nonsense) words. Everything is generated; no model's vocabulary is copied.
"""

from __future__ import annotations

from pintpot.errors import UsageError
from pintpot.spec.shape import Shape
from pintpot.synth.metadata import MetadataValue

NORMAL, CONTROL = 1, 3  # llama.cpp's token types

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# Pre-tokenizer by architecture, as the models' own files name it. Gemma's tokenizer is no byte-level
# BPE; its synthetic files use the GPT-2 rules.
PRE_TOKENIZER = {
    "llama": "llama-bpe",
    "qwen2": "qwen2",
    "qwen3": "qwen2",
    "qwen3moe": "qwen2",
    "qwen35": "qwen35",
    "qwen35moe": "qwen35",
    "gemma4": "gpt-2",
    "gpt-oss": "gpt-4o",
}

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

_CONSONANTS = "bcdfghjklmnprstvwz"
_ONSETS = (
    *_CONSONANTS,
    "br",
    "ch",
    "cl",
    "cr",
    "dr",
    "fl",
    "fr",
    "gl",
    "gr",
    "kr",
    "pl",
    "pr",
    "sh",
    "st",
    "th",
)
_VOWELS = (*"aeiou", "ai", "ea", "io", "ou")
# Merges in order of precedence; each one's parts are bytes or results of earlier ones.
_MERGES = (
    "t h", "i n", "a n", "e r", "o n", "r e", "o r", "a t", "e n", "i s", "Ġ t", "Ġ a", "Ġ o", "Ġ w",
    "Ġt h", "Ġth e", "th e", "in g", "an d", "Ġ i", "Ġ s", "o u", "Ġ b", "Ġ m", "Ġ p",
)  # fmt: skip


def byte_characters() -> list[str]:
    """The printable stand-in of each byte value, as GPT-2's byte-level BPE defines it."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(moved)) for b in range(256)]


def tokenizer_metadata(shape: Shape) -> dict[str, MetadataValue]:
    """`tokenizer.*` keys for `shape.n_vocab` tokens. Raises UsageError when bytes and specials do not fit."""
    n_special = len(SPECIALS)
    n_room = shape.n_vocab - 256 - n_special
    if n_room < 0:
        raise UsageError(f"a vocabulary of {shape.n_vocab} tokens is too small; at least {256 + n_special}")
    tokens = byte_characters()
    merges = list(_MERGES[:n_room])
    tokens.extend(pair.replace(" ", "") for pair in merges)
    tokens.extend(_filler(shape.n_vocab - n_special - len(tokens), set(tokens)))
    first_special = len(tokens)
    tokens.extend(SPECIALS)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE_TOKENIZER[shape.arch],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * first_special + [CONTROL] * n_special,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": first_special,
        "tokenizer.ggml.eos_token_id": first_special + 2,
        "tokenizer.ggml.padding_token_id": first_special,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _filler(n: int, taken: set[str]) -> list[str]:
    """n distinct words of two or more syllables, half of them starting a word (Ġ is the space)."""
    syllables = [onset + vowel for vowel in _VOWELS for onset in _ONSETS]
    base = number = len(syllables)
    words: list[str] = []
    while len(words) < n:
        rest, word = number // 2, ""
        while rest:
            rest, digit = divmod(rest, base)
            word += syllables[digit]
        word = ("Ġ" if number % 2 else "") + word
        if word not in taken:
            taken.add(word)
            words.append(word)
        number += 1
    return words
