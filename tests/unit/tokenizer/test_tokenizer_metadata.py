"""What the metadata says: special tokens, end of generation, and metadata that is wrong."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vocabs import add_tokens

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.tokenizer import Tokenizer

LONG = "tokenizer.ggml."


def build(metadata: dict, **changes: object) -> Tokenizer:
    """A tokenizer of `metadata` with `tokenizer.ggml.*` changed; None removes a key."""
    changed = {**metadata, **{LONG + key: value for key, value in changes.items()}}
    return Tokenizer.from_metadata({k: v for k, v in changed.items() if v is not None}, "m.gguf")


class TestSpecialTokens:
    def test_ids_from_the_file(self, gemma: Tokenizer) -> None:
        assert (gemma.bos_id, gemma.eos_id, gemma.pad_id, gemma.eot_id) == (2, 1, 0, None)

    def test_sentencepiece_defaults(self, spm: Tokenizer) -> None:
        assert (spm.bos_id, spm.eos_id, spm.special_ids) == (1, 2, {0, 1, 2})

    def test_id_that_says_none(self, bpe_metadata: dict) -> None:
        assert build(bpe_metadata, padding_token_id=0xFFFFFFFF).pad_id is None

    def test_end_of_generation_by_name(self, bpe_metadata: dict) -> None:
        names = [
            "<|eot_id|>",
            "<|end_of_text|>",
            "<|eom_id|>",
            "<|fim_pad|>",
            "<|repo_name|>",
            "<|file_sep|>",
        ]
        metadata = add_tokens(bpe_metadata, normal=names)
        tokenizer = build(metadata, eos_token_id=0)
        ids = {tokenizer.token_id(name) for name in [*names, "<|im_end|>"]}
        assert tokenizer.eog_ids == ids | {0}
        assert ids <= tokenizer.special_ids  # though the file says they are ordinary
        assert tokenizer.eot_id == tokenizer.token_id("<|eot_id|>")

    def test_eot_of_the_file_wins(self, bpe_metadata: dict) -> None:
        assert build(bpe_metadata, eot_token_id=5).eot_id == 5

    def test_harmony(self, bpe_metadata: dict) -> None:
        names = ["<|return|>", "<|call|>", "<|end|>", "<|channel|>", "<|message|>", "<|start|>"]
        tokenizer = build(add_tokens(bpe_metadata, control=names))
        ids = [tokenizer.token_id(name) for name in names]
        assert tokenizer.eog_ids & set(ids) == set(ids[:2])
        assert tokenizer.decode(ids, skip_special=True) == "<|end|><|channel|><|message|><|start|>"

    def test_closing_strike_tag_is_text(self, gemma: Tokenizer, bpe_metadata: dict) -> None:
        assert gemma.eog_ids == {1, gemma.token_id("<turn|>"), gemma.token_id("<|tool_response>")}
        assert gemma.token_id("</s>") not in gemma.special_ids
        qwen = build(add_tokens(bpe_metadata, normal=["</s>"]))
        assert qwen.token_id("</s>") not in qwen.eog_ids
        other = build(add_tokens(bpe_metadata, control=["</s>"]))
        assert other.token_id("</s>") in other.eog_ids

    def test_arrays_may_be_numpy(self, spm_metadata: dict, spm: Tokenizer) -> None:
        types = np.array(spm_metadata[LONG + "token_type"], dtype=np.int32)
        scores = np.array(spm_metadata[LONG + "scores"], dtype=np.float32)
        tokenizer = build(spm_metadata, token_type=types, scores=scores)
        assert tokenizer.encode("hello the world") == spm.encode("hello the world")

    def test_token_types_may_be_missing(self, bpe_metadata: dict) -> None:
        tokenizer = build(bpe_metadata, token_type=None)
        assert tokenizer.special_ids == {tokenizer.token_id("<|im_end|>")}

    def test_empty_token(self, bpe_metadata: dict) -> None:
        tokenizer = build(add_tokens(bpe_metadata, normal=["", ""]))
        assert tokenizer.token_id(f"[EMPTY_{tokenizer.n_vocab - 1}]") == tokenizer.n_vocab - 1

    def test_missing_pre_tokenizer_is_the_default(self, bpe_metadata: dict) -> None:
        assert build(bpe_metadata, pre=None).vocab.pre_name == "default"


class TestUnsupported:
    @pytest.mark.parametrize("model", ["bert", "t5", "rwkv", "", "plamo2"])
    def test_model(self, bpe_metadata: dict, model: str) -> None:
        with pytest.raises(UnsupportedError, match=rf"^m\.gguf: tokenizer '{model}' is not supported"):
            build(bpe_metadata, model=model)

    def test_pre_tokenizer(self, bpe_metadata: dict) -> None:
        with pytest.raises(UnsupportedError, match=r"^m\.gguf: pre-tokenizer 'martian' "):
            build(bpe_metadata, pre="martian")


WRONG = [
    ({"model": None}, "tokenizer.ggml.model is missing"),
    ({"model": 3}, "tokenizer.ggml.model is the number 3"),
    ({"pre": ["qwen2"]}, "tokenizer.ggml.pre is an array"),
    ({"tokens": None}, "tokenizer.ggml.tokens is missing or empty"),
    ({"tokens": []}, "tokenizer.ggml.tokens is missing or empty"),
    ({"tokens": "abc"}, "tokenizer.ggml.tokens is a string, expected an array"),
    ({"tokens": [1, 2]}, "tokenizer.ggml.tokens holds something other than strings"),
    ({"tokens": np.arange(3)}, "tokenizer.ggml.tokens holds something other than strings"),
    ({"tokens": ["a", "b", "a"], "token_type": [1, 1, 1]}, "has the token 'a' more than once"),
    ({"token_type": [1, 2]}, "tokenizer.ggml.token_type has 2 entries"),
    ({"token_type": 1}, "tokenizer.ggml.token_type is the number 1, expected an array"),
    ({"merges": None}, "tokenizer.ggml.merges is missing"),
    ({"merges": ["ab"]}, "tokenizer.ggml.merges has an entry that is no pair: 'ab'"),
    ({"merges": [" "]}, "tokenizer.ggml.merges does not fit the vocabulary"),
    ({"merges": ["nosuch token"]}, "tokenizer.ggml.merges does not fit the vocabulary"),
    ({"merges": ["x x"]}, "tokenizer.ggml.merges does not fit the vocabulary"),
    ({"merges": [1.5]}, "tokenizer.ggml.merges holds something other than strings"),
    ({"bos_token_id": 100_000}, "tokenizer.ggml.bos_token_id is 100000, but the vocabulary has"),
    ({"eos_token_id": -5}, "tokenizer.ggml.eos_token_id is -5"),
    ({"eot_token_id": True}, "tokenizer.ggml.eot_token_id is true or false, expected a token id"),
    ({"padding_token_id": 1.0}, "tokenizer.ggml.padding_token_id is the number 1.0"),
    ({"add_bos_token": 1}, "tokenizer.ggml.add_bos_token is the number 1, expected true or false"),
    ({"add_eos_token": "yes"}, "tokenizer.ggml.add_eos_token is a string"),
]


class TestWrongMetadata:
    @pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
    def test_one_clear_line(self, bpe_metadata: dict, changes: dict, message: str) -> None:
        with pytest.raises(ModelFileError) as caught:
            build(bpe_metadata, **changes)
        text = str(caught.value)
        assert text.startswith("m.gguf: ")
        assert message in text
        assert "\n" not in text

    @pytest.mark.parametrize(
        ("scores", "message"),
        [
            ([0.0], "tokenizer.ggml.scores has 1 entries"),
            (["a"] * 3, "tokenizer.ggml.scores has 3 entries"),
            (None, ""),
        ],
    )
    def test_scores(self, spm_metadata: dict, scores: list | None, message: str) -> None:
        if scores is None:
            assert build(spm_metadata, scores=None).encode("hello") != []
            return
        with pytest.raises(ModelFileError, match=message):
            build(spm_metadata, scores=scores)

    def test_scores_that_are_no_numbers(self, spm_metadata: dict) -> None:
        n = len(spm_metadata[LONG + "tokens"])
        for value, message in ((float("nan"), "NaN"), ("a", "other than numbers")):
            with pytest.raises(ModelFileError, match=message):
                build(spm_metadata, scores=[0.0] * (n - 1) + [value])

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_random_damage_never_crashes(self, bpe_metadata: dict, data: st.DataObject) -> None:
        values = st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
            st.lists(st.text(max_size=3), max_size=5), st.lists(st.integers(), max_size=5),
        )  # fmt: skip
        keys = sorted(key.removeprefix(LONG) for key in bpe_metadata)
        changes = data.draw(st.dictionaries(st.sampled_from(keys), values, min_size=1, max_size=3))
        with suppress(ModelFileError):
            tokenizer = build(bpe_metadata, **changes)
            tokenizer.decode(tokenizer.encode("hello world <|im_end|>"))
