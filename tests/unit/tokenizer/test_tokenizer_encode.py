"""Text to tokens and back, for the three kinds of vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_vocabs import add_tokens, naive_partition, naive_spm, spm_metadata_of

from pintpot.errors import UsageError
from pintpot.tokenizer import Tokenizer
from pintpot.tokenizer.partition import Partition
from pintpot.tokenizer.pretokenizers import PRETOKENIZERS

relaxed = settings(deadline=None, max_examples=80)
TEXTS = st.text() | st.text(alphabet="helo wrdthaä\n\t '.1🦙<>|", max_size=60)


def pieces(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    ids = tokenizer.encode(text, add_special=False, **options)
    return [tokenizer.token_bytes(i).decode("utf-8", "replace") for i in ids]


class TestByteLevelBPE:
    @relaxed
    @given(TEXTS)
    @example(" \n \r\n\x00 e\u0301 \ufffd")
    def test_round_trip(self, bpe: Tokenizer, text: str) -> None:
        for parse_special in (True, False):
            assert bpe.decode(bpe.encode(text, add_special=False, parse_special=parse_special)) == text

    def test_merges_in_rank_order(self, bpe_metadata: dict) -> None:
        metadata = {
            **bpe_metadata,
            "tokenizer.ggml.tokens": ["a", "b", "c", "ab", "bc", "abc"],
            "tokenizer.ggml.token_type": [1] * 6,
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 0,
        }
        first_bc = Tokenizer.from_metadata({**metadata, "tokenizer.ggml.merges": ["b c", "a b"]}, "x")
        first_ab = Tokenizer.from_metadata({**metadata, "tokenizer.ggml.merges": ["a b", "b c"]}, "x")
        assert pieces(first_bc, "abc") == ["a", "bc"]
        assert pieces(first_ab, "abc") == ["ab", "c"]

    def test_ignore_merges_takes_whole_words(self, bpe_metadata: dict) -> None:
        metadata = {
            **bpe_metadata,
            "tokenizer.ggml.tokens": ["a", "b", "c", "ab", "abc"],
            "tokenizer.ggml.token_type": [1] * 5,
            "tokenizer.ggml.merges": ["a b"],
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 0,
        }
        assert pieces(Tokenizer.from_metadata(metadata, "x"), "abc") == ["ab", "c"]
        llama = Tokenizer.from_metadata({**metadata, "tokenizer.ggml.pre": "llama-bpe"}, "x")
        assert pieces(llama, "abc") == ["abc"]

    @pytest.mark.parametrize(
        ("pre", "text", "words"),
        [
            ("qwen2", "I'M 123 a\u0301b", ["I", "'M", " ", "1", "2", "3", " a", "\u0301b"]),
            ("qwen35", "I'M 123 a\u0301b", ["I", "'M", " ", "1", "2", "3", " a\u0301b"]),
            ("llama-bpe", "x1234  y\n\n z!?\n", ["x", "123", "4", " ", " y", "\n\n", " z", "!?\n"]),
            ("gpt-4o", "fooBar's приВет 12/\n", ["foo", "Bar's", " при", "Вет", " ", "12", "/\n"]),
            ("tekken", "fooBar's 12", ["foo", "Bar", "'s", " ", "1", "2"]),
            ("smollm", "it's 12\t\tx", ["it", "'s", " ", "1", "2", "\t", "\t", "x"]),
            ("gpt-2", "it's 12 ab", ["it", "'s", " 12", " ab"]),
            ("default", "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
            ("deepseek-v3", "你好abc 1234", ["你好", "abc", " ", "123", "4"]),
        ],
    )
    def test_words(self, bpe_metadata: dict, pre: str, text: str, words: list[str]) -> None:
        from tokenizers import pre_tokenizers

        tokenizer = Tokenizer.from_metadata({**bpe_metadata, "tokenizer.ggml.pre": pre}, "x")
        split = tokenizer._encoder._tokenizer.pre_tokenizer.pre_tokenize_str(text)
        spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        assert [word for word, _ in split] == [spelled.pre_tokenize_str(word)[0][0] for word in words]

    @pytest.mark.parametrize("pre", sorted(PRETOKENIZERS))
    def test_every_pre_tokenizer_round_trips(self, bpe_metadata: dict, pre: str) -> None:
        tokenizer = Tokenizer.from_metadata({**bpe_metadata, "tokenizer.ggml.pre": pre}, "x")
        text = "They'RE  12345 über\n\n\t 你好, foo_bar(x) -> приВет 🦙 e\u0301'll \r\n"
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text

    def test_lone_surrogates_become_replacement_characters(self, bpe: Tokenizer) -> None:
        assert bpe.decode(bpe.encode("a\ud800b", add_special=False)) == "a\ufffdb"


class TestSentencePiece:
    @relaxed
    @given(TEXTS.filter(lambda text: "▁" not in text))
    @example("  hello\n the  ")
    def test_round_trip(self, spm: Tokenizer, text: str) -> None:
        assert spm.decode(spm.encode(text, add_special=False, parse_special=False)) == text
        assert spm.decode(spm.encode(text), skip_special=True).replace("<unk>", "") == text.replace(
            "<s>", ""
        ).replace("</s>", "").replace("<unk>", "")

    @relaxed
    @given(st.text(alphabet="helo wrdthaä\n🦙", max_size=40))
    @example("aaaaa aaaa aaaaaaa")
    @example("        the")
    def test_merges_the_best_pair_first(self, spm: Tokenizer, text: str) -> None:
        expected = naive_spm(spm.vocab, "▁" + text.replace(" ", "▁")) if text else []
        assert spm.encode(text, add_special=False) == expected

    @relaxed
    @given(st.text(alphabet="ab ", max_size=20))
    def test_tokens_that_cross_words(self, text: str) -> None:
        metadata = spm_metadata_of(["a▁b", "b▁", "a▁", "▁a", "ab", "a", "b", "▁"])
        tokenizer = Tokenizer.from_metadata(metadata, "x")
        expected = naive_spm(tokenizer.vocab, "▁" + text.replace(" ", "▁")) if text else []
        assert tokenizer.encode(text, add_special=False) == expected

    def test_unknown_characters_become_bytes(self, spm: Tokenizer) -> None:
        assert spm.encode("🦙", add_special=False)[-4:] == [3 + byte for byte in "🦙".encode()]

    def test_space_prefix(self, spm_metadata: dict) -> None:
        spm = Tokenizer.from_metadata(spm_metadata, "x")
        assert pieces(spm, "hello") == [" hello"]
        assert pieces(spm, "</s>hello") == ["</s>", " hello"]
        bare = Tokenizer.from_metadata({**spm_metadata, "tokenizer.ggml.add_space_prefix": False}, "x")
        assert pieces(bare, "hello") == ["h", "ello"]
        assert bare.decode(bare.encode(" hello", add_special=False)) == " hello"

    def test_empty_text(self, spm: Tokenizer) -> None:
        assert spm.encode("") == [1]
        assert spm.encode("", add_special=False) == []
        assert spm.decode([]) == ""

    def test_words_beyond_the_cached_length(self, spm: Tokenizer) -> None:
        text = "aaa" * 100 + " " + "hello" * 50
        ids = spm.encode(text, add_special=False)
        assert ids == naive_spm(spm.vocab, "▁" + text.replace(" ", "▁"))


class TestSpaceBPE:
    @relaxed
    @given(TEXTS.filter(lambda text: "▁" not in text))
    def test_round_trip(self, gemma: Tokenizer, text: str) -> None:
        assert gemma.decode(gemma.encode(text, add_special=False, parse_special=False)) == text

    def test_merges_run_over_spaces_but_not_over_lines(self, gemma: Tokenizer) -> None:
        assert pieces(gemma, "  hello hello\n\nhe") == ["  ", "hello", " hello", "\n\n", "he"]

    def test_unknown_characters_become_bytes(self, gemma: Tokenizer) -> None:
        assert gemma.encode("ä", add_special=False) == [7 + byte for byte in "ä".encode()]

    def test_bos_is_added_whatever_the_file_says(self, gemma: Tokenizer) -> None:
        assert gemma.encode("a")[0] == gemma.bos_id == 2


class TestSpecialTokensInText:
    def test_parse_special(self, bpe: Tokenizer) -> None:
        text = "<|im_start|>hello<|im_end|>"
        ids = bpe.encode(text, add_special=False)
        assert ids[0] == bpe.token_id("<|im_start|>")
        assert ids[-1] == bpe.token_id("<|im_end|>")
        plain = bpe.encode(text, add_special=False, parse_special=False)
        assert not bpe.special_ids & set(plain)
        assert bpe.decode(plain) == bpe.decode(ids) == text
        assert bpe.decode(ids, skip_special=True) == "hello"

    def test_user_defined_tokens_are_always_found_and_shown(self, bpe: Tokenizer) -> None:
        ids = bpe.encode("a<think>b", add_special=False, parse_special=False)
        assert bpe.token_id("<think>") in ids
        assert bpe.decode(ids, skip_special=True) == "a<think>b"

    def test_add_special(self, bpe_metadata: dict) -> None:
        bos, eos = bpe_metadata["tokenizer.ggml.bos_token_id"], bpe_metadata["tokenizer.ggml.eos_token_id"]
        for add_bos in (True, False, None):
            for add_eos in (True, False, None):
                metadata = {
                    **bpe_metadata,
                    "tokenizer.ggml.add_bos_token": add_bos,
                    "tokenizer.ggml.add_eos_token": add_eos,
                }
                tokenizer = Tokenizer.from_metadata({k: v for k, v in metadata.items() if v is not None}, "x")
                body = tokenizer.encode("hello", add_special=False)
                expected = [bos] * (add_bos is True) + body + [eos] * (add_eos is True)
                assert tokenizer.encode("hello") == expected

    @relaxed
    @given(st.text(alphabet="abc<>", max_size=30), st.booleans())
    @example("abcabcab", True)
    def test_longest_first_wherever_it_stands(self, text: str, parse_special: bool) -> None:
        tokens = ["a", "<a>", "abc", "cab<", "ab", "<", "bcabc", "x"]
        types = [1, 3, 4, 3, 4, 1, 3, 4]
        partition = Partition(tokens, types)
        expected = naive_partition(tokens, types, text, parse_special)
        assert partition.split(text, parse_special=parse_special) == expected


class TestTokenBytes:
    def test_ids_outside_the_vocabulary(self, bpe: Tokenizer) -> None:
        for token in (-1, bpe.n_vocab, 1 << 40):
            with pytest.raises(UsageError, match=r"^token id -?\d+ is not in the vocabulary of \d+ tokens$"):
                bpe.token_bytes(token)

    def test_numpy_ids(self, bpe: Tokenizer) -> None:
        ids = np.array(bpe.encode("hello world", add_special=False), dtype=np.int32)
        assert bpe.decode(ids) == "hello world"

    def test_bytes_of_byte_tokens(self, spm: Tokenizer, bpe: Tokenizer) -> None:
        assert spm.token_bytes(3 + 0xE4) == b"\xe4"
        ids = bpe.encode("🦙ÿ\x00", add_special=False)
        assert b"".join(map(bpe.token_bytes, ids)) == "🦙ÿ\x00".encode()

    def test_invalid_utf8_in_the_vocabulary(self, spm_metadata: dict, bpe_metadata: dict) -> None:
        broken = b"\xff<odd".decode("utf-8", "surrogateescape")
        for metadata in (spm_metadata, bpe_metadata):
            tokenizer = Tokenizer.from_metadata(add_tokens(metadata, control=[broken]), "x")
            assert tokenizer.token_bytes(tokenizer.n_vocab - 1) == b"\xff<odd"
            assert tokenizer.decode([tokenizer.n_vocab - 1]) == "\ufffd<odd"
            assert tokenizer.decode(tokenizer.encode("hello", add_special=False)) == "hello"
