"""Metadata of small vocabularies, and slow, obvious versions of what the tokenizers do."""

from __future__ import annotations

from itertools import pairwise

from pintpot.tokenizer import Vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def add_tokens(metadata: dict, **tokens_by_type: list[str]) -> dict:
    """`metadata` with tokens appended: control=[...], user_defined=[...]."""
    kinds = {"normal": NORMAL, "control": CONTROL, "user_defined": USER_DEFINED, "unused": UNUSED}
    result = dict(metadata)
    for kind, tokens in tokens_by_type.items():
        result["tokenizer.ggml.tokens"] = [*result["tokenizer.ggml.tokens"], *tokens]
        result["tokenizer.ggml.token_type"] = [
            *result["tokenizer.ggml.token_type"],
            *[kinds[kind]] * len(tokens),
        ]
        if "tokenizer.ggml.scores" in result:
            result["tokenizer.ggml.scores"] = [*result["tokenizer.ggml.scores"], *[0.0] * len(tokens)]
    return result


def spm_metadata_of(pieces: list[str]) -> dict:
    """A SentencePiece vocabulary of `pieces`, the first scoring best."""
    pieces = list(dict.fromkeys(pieces))
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *byte_tokens, *pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(pieces))],
    }


def naive_spm(vocab: Vocabulary, text: str) -> list[int]:
    """Merges the best-scored adjacent pair, the leftmost of equals, until none is left."""
    scores = vocab.scores or []
    parts = list(text)
    while True:
        pairs = [
            (-scores[vocab.ids[a + b]], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in vocab.ids
        ]
        if not pairs:
            break
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    ids: list[int] = []
    for part in parts:
        ids += [vocab.ids[part]] if part in vocab.ids else [3 + byte for byte in part.encode()]
    return ids


def naive_partition(tokens: list[str], types: list[int], text: str, parse_special: bool) -> list[str | int]:
    """Cuts out every special token in turn, the longest first."""
    wanted = {UNKNOWN, CONTROL, USER_DEFINED} if parse_special else {USER_DEFINED}
    specials = [i for i in range(len(tokens)) if types[i] in wanted]
    pieces: list[str | int] = [text] if text else []
    for special in sorted(specials, key=lambda i: (-len(tokens[i].encode()), i)):
        cut: list[str | int] = []
        for piece in pieces:
            rest = piece
            while isinstance(rest, str) and tokens[special] in rest:
                left, _, rest = rest.partition(tokens[special])
                cut += [left, special] if left else [special]
            if rest != "":
                cut.append(rest)
        pieces = cut
    return pieces
