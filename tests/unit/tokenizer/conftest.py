"""Small vocabularies, made here: byte-level BPE trained on a few lines, SentencePiece ones by hand."""

from __future__ import annotations

import json

import pytest
from small_vocabs import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, add_tokens, spm_metadata_of

from pintpot.tokenizer import Tokenizer

CORPUS = [
    "the quick brown fox jumps over the lazy dog, and the dog sleeps on",
    "hello world! hello hello worlds; they're there, it's 2024 or 1999",
    "def main(args):\n    return [x for x in args if x]\n\n\n",
    "ein Käfer läuft über die Straße; привет мир; 你好世界 🦙🦙",
]


@pytest.fixture(scope="session")
def bpe_metadata() -> dict:
    from tokenizers import Tokenizer as HFTokenizer
    from tokenizers import models, pre_tokenizers, trainers

    hf = HFTokenizer(models.BPE())
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        show_progress=False,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    hf.train_from_iterator(CORPUS * 3, trainer)
    model = json.loads(hf.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * len(tokens),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
    }
    n = len(tokens)
    return {
        **add_tokens(metadata, control=["<|bos|>", "<|im_start|>", "<|im_end|>"], user_defined=["<think>"]),
        "tokenizer.ggml.bos_token_id": n,
        "tokenizer.ggml.eos_token_id": n + 2,
    }


@pytest.fixture(scope="session")
def bpe(bpe_metadata: dict) -> Tokenizer:
    return Tokenizer.from_metadata(bpe_metadata, "bpe.gguf")


@pytest.fixture(scope="session")
def spm_metadata() -> dict:
    words = [
        "▁hello",
        "▁the",
        "▁world",
        "▁▁▁▁",
        "▁▁",
        "ll",
        "llo",
        "ello",
        "ell",
        "he",
        "el",
        "th",
        "▁w",
        "or",
        "ld",
        "aa",
        "aaa",
    ]
    letters = [*"▁abcdefghijklmnopqrstuvwxyz.,!'", "ä"]
    return spm_metadata_of([*words, "▁h", "▁t", "▁wor", "▁th", "▁he", "lo", *letters])


@pytest.fixture(scope="session")
def spm(spm_metadata: dict) -> Tokenizer:
    return Tokenizer.from_metadata(spm_metadata, "spm.gguf")


@pytest.fixture(scope="session")
def gemma_metadata() -> dict:
    """The kind Gemma 4 uses: merges over characters, spaces spelled out, whole lines at a time."""
    merges = [("▁", "▁"), ("\n", "\n"), ("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello")]
    letters = [*"▁\nabcdefghijklmnopqrstuvwxyz"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    made = [a + b for a, b in merges]
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|tool_response>"]
    tokens = [*specials, *byte_tokens, *letters, *made, "</s>"]
    types = [*[CONTROL] * 3, UNKNOWN, *[CONTROL] * 2, USER_DEFINED, *[BYTE] * 256]
    types += [NORMAL] * (len(tokens) - len(types))
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": False,
    }


@pytest.fixture(scope="session")
def gemma(gemma_metadata: dict) -> Tokenizer:
    return Tokenizer.from_metadata(gemma_metadata, "gemma.gguf")
