"""From pages to token windows: the split, the tokenizer, and the stream of training rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from demo.chat import WELL_KNOWN, conversation, weight

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from demo.docs_text import Entry, Page

END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")

# The pre-tokenizer llama.cpp calls "qwen2" (from the Qwen2 model's tokenizer.json).
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_pages(pages: list[Page], heldout_chars: int) -> tuple[list[Page], list[Page]]:
    """(train, held-out): whole library pages, in the order of their path's hash, until `heldout_chars`.

    Pages of well-known modules stay in training, since the demo is asked about them; so do the large pages,
    one of which would be most of the held-out text.
    """

    def eligible(page: Page) -> bool:
        section, _, name = page.path.partition("/")
        module = name.removesuffix(".html")
        return section in {"library", "howto", "faq"} and module not in WELL_KNOWN and len(page.text) < 60_000

    heldout: list[Page] = []
    for page in sorted(pages, key=lambda p: hashlib.sha256(p.path.encode()).digest()):
        if eligible(page) and sum(len(p.text) for p in heldout) < heldout_chars:
            heldout.append(page)
    chosen = {p.path for p in heldout}
    return [p for p in pages if p.path not in chosen], sorted(heldout, key=lambda p: p.path)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE whose ids 0.. are SPECIAL_TOKENS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Raises KeyError for a token the vocabulary lacks."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def encode_pages(tokenizer: Tokenizer, pages: list[Page]) -> NDArray[np.int32]:
    """All pages as one row of token ids, END_OF_TEXT after each."""
    end = token_id(tokenizer, END_OF_TEXT)
    ids: list[int] = []
    for encoding in tokenizer.encode_batch([p.text for p in pages], add_special_tokens=False):
        ids.extend(encoding.ids)
        ids.append(end)
    return np.array(ids, dtype=np.int32)


@dataclass(slots=True)
class RowStream:
    """Endless training rows of `ctx + 1` tokens, documentation and chat by turns.

    The cursors are all its state: the same seed and cursors give the same rows.
    """

    tokenizer: Tokenizer
    text_ids: NDArray[np.int32]
    entries: list[Entry]
    seed: int
    chat_share: float
    text_cursor: int = 0
    chat_cursor: int = 0
    row_cursor: int = 0
    _deck: list[int] = field(init=False)  # entry indices, each as often as its weight says

    def __post_init__(self) -> None:
        self._deck = [i for i, entry in enumerate(self.entries) for _ in range(weight(entry))]

    def state(self) -> dict[str, int]:
        return {"text": self.text_cursor, "chat": self.chat_cursor, "row": self.row_cursor}

    def restore(self, state: dict[str, int]) -> None:
        self.text_cursor, self.chat_cursor, self.row_cursor = state["text"], state["chat"], state["row"]

    def batch(self, rows: int, ctx: int) -> NDArray[np.int64]:
        """(rows, ctx + 1) token ids."""
        out = np.empty((rows, ctx + 1), dtype=np.int64)
        for i in range(rows):
            chat_before = int(self.row_cursor * self.chat_share)
            self.row_cursor += 1
            is_chat = int(self.row_cursor * self.chat_share) > chat_before
            out[i] = self._chat_row(ctx + 1) if is_chat else self._text_row(ctx + 1)
        return out

    def _text_row(self, length: int) -> NDArray[np.int32]:
        """Windows of the text in shuffled order, cut at another phase in every pass."""
        windows = (len(self.text_ids) - length) // length
        epoch, index = divmod(self.text_cursor, windows)
        self.text_cursor += 1
        rng = np.random.default_rng((self.seed, 0, epoch, length))
        phase = int(rng.integers(length))
        start = phase + int(rng.permutation(windows)[index]) * length
        return self.text_ids[start : start + length]

    def _chat_row(self, length: int) -> NDArray[np.int32]:
        """Conversations one after another from the row's start; what does not fit is cut off."""
        ids: list[int] = []
        end = token_id(self.tokenizer, END_OF_TEXT)
        while len(ids) < length:
            rng = np.random.default_rng((self.seed, 1, self.chat_cursor))
            chosen = [self._next_entry() for _ in range(1 if rng.random() < 0.75 else 2)]
            ids.extend(self.tokenizer.encode(conversation(chosen, rng), add_special_tokens=False).ids)
            ids.append(end)
        return np.array(ids[:length], dtype=np.int32)

    def _next_entry(self) -> Entry:
        epoch, index = divmod(self.chat_cursor, len(self._deck))
        self.chat_cursor += 1
        order = np.random.default_rng((self.seed, 2, epoch)).permutation(len(self._deck))
        return self.entries[self._deck[int(order[index])]]
