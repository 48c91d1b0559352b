"""Text to tokens and back, and conversations to text, from a model file's own metadata."""

from __future__ import annotations

from pintpot.tokenizer.chat_template import CHATML, ChatTemplate
from pintpot.tokenizer.stream import TokenStream
from pintpot.tokenizer.tokenizer import Tokenizer
from pintpot.tokenizer.vocab import VocabKind, Vocabulary

__all__ = ["CHATML", "ChatTemplate", "TokenStream", "Tokenizer", "VocabKind", "Vocabulary"]
