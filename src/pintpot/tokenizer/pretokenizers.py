"""How text is cut into words before byte-pair merging, by the name `tokenizer.ggml.pre` gives it.

Patterns are those of the models' own tokenizer.json files, in Oniguruma syntax; the names and what each one
stands for are llama.cpp's (src/llama-vocab.cpp). Patterns apply one after the other, each to the pieces the
one before left; text between matches is a piece too. Where llama.cpp approximates a pattern (letter case
outside ASCII in gpt-4o and tekken), the model's own is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    patterns: tuple[str, ...]
    ignore_merges: bool = False  # a word that is a token is taken whole
    add_bos: bool = False  # when the file does not say


_CONTRACTION: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(letters: str, numbers: str, symbols: str, spaces: str = _SPACES) -> str:
    return f"{_CONTRACTION}|{letters}|{numbers}|{symbols}|{spaces}"


_LETTERS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(suffix: str, numbers: str) -> str:
    """Words split where a capital follows a lower-case letter."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    symbols = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
    return f"{lead}{_UPPER}*{_LOWER}+{suffix}|{lead}{_UPPER}+{_LOWER}*{suffix}|{numbers}|{symbols}|{_SPACES}"


_LLAMA3: Final = _words(_LETTERS, r"\p{N}{1,3}", _SYMBOLS)
_QWEN2: Final = _words(_LETTERS, r"\p{N}", _SYMBOLS)
_QWEN35: Final = _words(r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"\p{N}", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*")
_SEED: Final = _words(_LETTERS, r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+")
_BAILING: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_DEEPSEEK3: Final = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",  # noqa: RUF001
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_DEEPSEEK_CODER: Final = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")
_DEFAULT: Final = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_FALCON: Final = (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")
_BLOOM: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"  # noqa: RUF001

_FAMILIES: Final[tuple[tuple[str, PreTokenizer], ...]] = (
    ("default", PreTokenizer(_DEFAULT)),
    (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
        PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    ),
    ("dbrx smaug-bpe chatglm-bpe", PreTokenizer((_LLAMA3,))),
    ("glm4 glm5", PreTokenizer((_LLAMA3,), ignore_merges=True)),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
        PreTokenizer((_QWEN2,)),
    ),
    ("qwen35", PreTokenizer((_QWEN35,))),
    (
        "gpt-4o llama4 kanana2 talkie minimax-m2",
        PreTokenizer((_cased(f"{_CONTRACTION}?", r"\p{N}{1,3}"),)),
    ),
    ("tekken", PreTokenizer((_cased("", r"\p{N}"),), ignore_merges=True, add_bos=True)),
    (
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
        PreTokenizer((r"\p{N}", _GPT2)),
    ),
    (
        "gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum",
        PreTokenizer((_GPT2,)),
    ),
    ("deepseek-v3 hunyuan-dense joyai-llm", PreTokenizer(_DEEPSEEK3)),
    ("deepseek-coder", PreTokenizer(_DEEPSEEK_CODER)),
    ("falcon", PreTokenizer(_FALCON)),
    ("poro-chat bloom gpt3-finnish", PreTokenizer((_BLOOM,))),
    ("viking", PreTokenizer((_BLOOM, r"\p{N}"))),
    ("seed-coder", PreTokenizer((_SEED,))),
    ("bailingmoe bailingmoe2 llada-moe", PreTokenizer((_BAILING,))),
)

PRETOKENIZERS: Final[dict[str, PreTokenizer]] = {
    name: pre for names, pre in _FAMILIES for name in names.split()
}

# Gemma 4 merges over whole lines.
LINES: Final = PreTokenizer((r"[^\n]+|\n+",))
