"""Which of the known ways to cut text into words a tokenizer.json uses.

llama.cpp's converter recognizes a tokenizer by a hash of what its vocabulary makes of a text, so every new
vocabulary must be added by name. Here the cutting itself is compared: the tokenizer's rule and each known one
get a text on which no two known ones agree.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.tokenizer.pretokenizers import PRETOKENIZERS

# Letter case, contractions, digits in runs, marks, symbols before line ends, all kinds of space, scripts.
PROBE: Final = (
    "Hello HelloWorld camelCase ABCdef GHI I've I'LL they're 'tis it's DON'T ŒUVRE'S x'\u017f\n"
    " 1 12 123 1234 12345 3.14 2x2 ２４ ½ ४५६७ a1b22c333 1,000,000\n\n\n \n \t\n  \r\n\r\nend  of   line \n"  # noqa: RUF001
    "foo/bar //x /\n\n!!\n\n ?!\r\n...\n\n===>>> a==b <=> $5+3^2~|`c` (x) [y] {z} \"q\" 'r' #h @u %p &a *s\n"
    "हिन्दी भाषा ไทยภาษา កាន់តែ العَرَبِيَّة עִבְרִית é e\u0301 A\u030angstro\u0308m Ünï ǅ ʰx 中文字123 日本語テスト"
    "、。 한국어 кириллица Ελληνικά 🦙🦙 👩\u200d👩\u200d👧 ☃️ ™ © «ok» „ja“ … ، ؟ \u06d4 ¿que?"
    " a\u00a0b\u2003c\u3000d \tTab\t\tTabs   x\n   \n\n  y\ndef f(x):\n    return x+1  # c\n\t\tpass\n   "
)  # fmt: skip


def detect_pretokenizer(spec: Any, *, ignore_merges: bool, source: str) -> str:
    """The `tokenizer.ggml.pre` name of tokenizer.json's `pre_tokenizer` object.

    `ignore_merges` decides between known ones that cut alike. Raises UnsupportedError when none does.
    """
    words = _cut(spec, source)
    alike = [name for name in PRETOKENIZERS if words == _known(name)]
    if not alike:
        raise UnsupportedError(
            f"{source}: pre_tokenizer cuts text in a way this version does not know: {json.dumps(spec)[:200]}"
        )
    exact = (name for name in alike if PRETOKENIZERS[name].ignore_merges == ignore_merges)
    return next(exact, alike[0])


@cache
def _known(name: str) -> tuple[str, ...]:
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in PRETOKENIZERS[name].patterns
    ]
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False})
    return _cut({"type": "Sequence", "pretokenizers": steps}, name)


def _cut(spec: Any, source: str) -> tuple[str, ...]:
    from tokenizers import Tokenizer

    empty = {"type": "BPE", "vocab": {}, "merges": []}
    try:
        cutter = Tokenizer.from_str(json.dumps({"model": empty, "pre_tokenizer": spec})).pre_tokenizer
    except Exception as error:  # noqa: BLE001  # what the library raises for what it cannot read
        reason = " ".join(str(error).split())[:160]
        raise ModelFileError(f"{source}: pre_tokenizer cannot be read: {reason}") from None
    return tuple(word for word, _ in cutter.pre_tokenize_str(PROBE))
