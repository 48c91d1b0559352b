"""Text to tokens and back as llama.cpp does it, for each pre-tokenizer and kind of vocabulary."""

from __future__ import annotations

from dataclasses import replace

import pytest
import vocabs
from files import with_metadata
from llama_oracle import LlamaCpp

from pintpot.gguf import GGUFFile
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model
from pintpot.tokenizer import Tokenizer

PRE = [
    *("default", "llama-bpe", "dbrx", "glm4", "qwen2", "qwen35", "gpt-4o", "tekken", "smollm", "gpt-2"),
    *("deepseek-v3", "deepseek-coder", "falcon", "bloom", "viking", "seed-coder", "bailingmoe"),
]
KINDS = {
    **{pre: lambda pre=pre: vocabs.byte_level_bpe(pre) for pre in PRE},
    "sentencepiece": vocabs.sentencepiece,
    "sentencepiece-bare": lambda: vocabs.sentencepiece(add_space_prefix=False),
    "gemma4": vocabs.gemma4,
}

# Where llama.cpp approximates the pattern of a model's tokenizer.json, ours is the model's: marks belong to
# letters, and the ideographic space lies within deepseek-coder's range of ideographs.
APPROXIMATED = {"gpt-4o": vocabs.MARKS, "tekken": vocabs.MARKS, "deepseek-coder": [vocabs.WIDE_SPACE]}


@pytest.mark.parametrize("kind", KINDS)
def test_texts(kind, tmp_path) -> None:
    metadata = KINDS[kind]()
    plain = tmp_path / "plain.gguf"
    shape = replace(TOYS["llama"], n_layer=1, n_vocab=len(metadata["tokenizer.ggml.tokens"]))
    write_model(plain, shape, quant="F32")
    path = with_metadata(plain, tmp_path / "vocab.gguf", metadata)
    tokenizer = Tokenizer.from_metadata(GGUFFile.open(path).metadata, str(path))
    with LlamaCpp(path) as oracle:
        wrong = {
            text: (tokenizer.encode(text), expected)
            for text in vocabs.TEXTS
            if text not in APPROXIMATED.get(kind, [])
            and (expected := oracle.tokenize(text)) != tokenizer.encode(text)
        }
    assert not wrong
    for text in vocabs.TEXTS:
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text
