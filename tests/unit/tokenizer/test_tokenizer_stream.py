"""Streaming decode: never part of a character, and in sum what decode returns."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pintpot.tokenizer import Tokenizer

relaxed = settings(deadline=None, max_examples=80)


def streamed(tokenizer: Tokenizer, ids: list[int], *, skip_special: bool) -> list[str]:
    stream = tokenizer.stream(skip_special)
    return [*map(stream.push, ids), stream.flush()]


class TestSum:
    @relaxed
    @given(st.data(), st.booleans())
    def test_pieces_add_up_to_the_bytes(self, bpe: Tokenizer, data: st.DataObject, skip: bool) -> None:
        ids = data.draw(st.lists(st.integers(0, bpe.n_vocab - 1), max_size=30))
        shown = [i for i in ids if not (skip and i in bpe.special_ids)]
        expected = b"".join(map(bpe.token_bytes, shown)).decode("utf-8", "replace")
        assert "".join(streamed(bpe, ids, skip_special=skip)) == expected
        assert bpe.decode(ids, skip_special=skip) == expected

    @relaxed
    @given(st.lists(st.sampled_from([1, 2, *range(3, 320)]), max_size=30))
    def test_random_sentencepiece_tokens(self, spm: Tokenizer, ids: list[int]) -> None:
        ids = [i for i in ids if i < spm.n_vocab]
        assert "".join(streamed(spm, ids, skip_special=False)) == spm.decode(ids)

    @relaxed
    @given(st.text(max_size=30))
    def test_every_piece_is_whole_characters(self, bpe: Tokenizer, text: str) -> None:
        pieces = streamed(bpe, bpe.encode(text, add_special=False), skip_special=True)
        assert "".join(pieces) == text
        assert all(set(piece) <= set(text) for piece in pieces)


class TestPartialCharacters:
    def test_held_back_until_complete(self, spm: Tokenizer) -> None:
        stream = spm.stream()
        pieces = [stream.push(3 + byte) for byte in "a🦙".encode()]
        assert pieces == ["a", "", "", "", "🦙"]
        assert stream.flush() == ""

    def test_invalid_bytes_are_replaced_at_once(self, spm: Tokenizer) -> None:
        stream = spm.stream()
        pushed = [stream.push(3 + byte) for byte in (0xFF, 0xF0, 0x9F, 0x41, 0xC3)]
        assert pushed == ["\ufffd", "", "", "\ufffdA", ""]
        assert stream.flush() == "\ufffd"

    def test_special_token_within_a_character(self, spm: Tokenizer) -> None:
        hidden, shown = spm.stream(True), spm.stream(False)
        assert [hidden.push(i) for i in (3 + 0xC3, 2, 3 + 0xA4)] == ["", "", "ä"]
        assert [shown.push(i) for i in (3 + 0xC3, 2, 3 + 0xA4)] == ["", "\ufffd</s>", "\ufffd"]


class TestLeadingSpace:
    def test_dropped_at_the_start_and_after_special_tokens(self, spm: Tokenizer) -> None:
        hello, the = spm.token_id("▁hello"), spm.token_id("▁the")
        stream = spm.stream()
        assert [stream.push(i) for i in (1, hello, the, 2, the, hello)] == [
            "",
            "hello",
            " the",
            "",
            "the",
            " hello",
        ]

    def test_kept_when_text_goes_on(self, spm: Tokenizer) -> None:
        hello, the = spm.token_id("▁hello"), spm.token_id("▁the")
        assert spm.stream(after=hello).push(the) == " the"
        assert spm.stream(after=1).push(the) == "the"

    def test_only_one_space_is_dropped(self, spm: Tokenizer) -> None:
        stream = spm.stream()
        assert [stream.push(spm.token_id(t)) for t in ("▁▁▁▁", "▁the")] == ["   ", " the"]

    def test_byte_level_vocabularies_keep_theirs(self, bpe: Tokenizer) -> None:
        assert bpe.stream().push(bpe.token_id("Ġthe")) == " the"
