"""Small vocabularies made here whose merges cross words, numbers, spaces and lines, so that a text cut in
other places gives other tokens; and the texts."""

from __future__ import annotations

import json
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

MARKS = [
    "caf\u00e9 nai\u0308ve e\u0301tude \u1ec7 \u01b0\u0323",
    "\u1780\u17b6\u1793\u17cb\u178f\u17c2 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\u0939\u093f\u0928\u094d\u0926\u0940",
]  # fmt: skip
WIDE_SPACE = "a\u3000x \u3000"
TEXTS = [
    "\u00c4pfel",
    *(" ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", " \n \n", "\r\n\r\n", "\n \t  x"),
    *("The other", " The other", "THE Other", " The Other!", "The, other!", " the (other)?"),
    *("".join(str(i % 10) for i in range(1, n)) for n in range(2, 12)),
    "1, 22 and 333: 4.4444e5 (1/2)",
    "I'll, you're, THEY'VE; he's WE'D don'T 'tis ''''''''''' \"\"\"",
    "   three spaces,\ttab\t\ttabs  two  spaces   \n   and lines \n\n  indented\n\n\n\nend  ",
    "def f(x):\n    return {x: [1, 2]}  # -> ok\n\n\treturn x != y || z == \"a\\n\"\r\n",
    "http://a.b/c?d=e&f=%20 #tag @name $5 5% <a href='x'>--__--==**",
    "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440, \u043d\u0435 \u0431\u043e\u0439\u0441\u044f",
    *MARKS,
    "\u4f60\u597d\u4e16\u754c\u3002\u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d\uc5b4",
    "\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f (several) \u2705 \U0001f999.cpp",
    WIDE_SPACE,
    "\u2160 \u00bd \u00b2 \u0664\u0665 \u2014\u2026\u00ab\u00bb\u00a0x",
    "<|start|>user\nThe other<|end|>\n <|end|><tool>x</tool>",
]  # fmt: skip
_CORPUS = [
    *TEXTS[:-1],
    "the other thing and then the other one " * 2,
    "in an hour or on the other hand, then",
]


def _train(texts: list[str], *, byte_level: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges of a BPE that knows no words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    alphabet: list[str] = []
    if byte_level:
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, min_frequency=1, show_progress=False, initial_alphabet=alphabet
    )
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [tuple(pair) for pair in model["merges"]]


def _metadata(model: str, tokens: list[str], types: list[int], **more: Any) -> dict[str, Any]:
    n = len(tokens)
    tokens = [*tokens, "<|start|>", "<|end|>", "<tool>"]
    keys = {"model": model, "tokens": tokens, "token_type": [*types, CONTROL, CONTROL, USER_DEFINED]}
    keys |= {"bos_token_id": n, "eos_token_id": n + 1, "padding_token_id": None, "pre": None, "merges": None}
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | more).items()}


def byte_level_bpe(pre: str) -> dict[str, Any]:
    tokens, merges = _train(_CORPUS, byte_level=True)
    return _metadata("gpt2", tokens, [NORMAL] * len(tokens), pre=pre, merges=[f"{a} {b}" for a, b in merges])


def _with_bytes() -> tuple[list[str], list[int], list[tuple[str, str]]]:
    pieces, merges = _train([text.replace(" ", "\u2581") for text in _CORPUS[2:]], byte_level=False)
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    return tokens, [UNKNOWN, *[BYTE] * 256, *[NORMAL] * len(pieces)], merges


def sentencepiece(*, add_space_prefix: bool = True) -> dict[str, Any]:
    """The first piece scores best, so that merges come in the order of training."""
    tokens, types, _ = _with_bytes()
    scores = [0.0] * 257 + [-float(i) for i in range(len(tokens) - 257)] + [0.0] * 3
    return _metadata(
        "llama", tokens, types, scores=scores, unknown_token_id=0, add_space_prefix=add_space_prefix
    )


def gemma4() -> dict[str, Any]:
    tokens, types, merges = _with_bytes()
    merged = [f"{a} {b}" for a, b in merges]
    return _metadata("gemma4", tokens, types, merges=merged, unknown_token_id=0)
