"""Stop strings found in a stream, however it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from pintpot.runtime.stopping import StopMatcher

ALPHABET = st.text("ab\n", max_size=12)


@given(st.lists(ALPHABET, max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_equals_cutting_the_whole_text(pieces, stops):
    matcher = StopMatcher(stops)
    seen = ""
    for piece in pieces:
        seen += matcher.push(piece)
        if matcher.stopped:
            break
    whole = "".join(pieces)
    found = [at for at in (whole.find(s) for s in stops) if at >= 0]
    assert matcher.stopped == bool(found)
    if not found:
        assert seen + matcher.flush() == whole
    else:
        # The stream stops at the first stop string to be complete, which need not be the first to begin.
        assert whole.startswith(seen)
        assert any(whole[len(seen) :].startswith(s) for s in stops)
        assert matcher.flush() == ""


def test_holds_back_only_what_may_become_a_stop():
    matcher = StopMatcher(["###"])
    assert matcher.push("one #") == "one "
    assert matcher.push("two ##") == "#two "
    assert matcher.push("#") == ""
    assert matcher.stopped


def test_empty_stop_strings_are_ignored():
    assert StopMatcher(["", ""]).push("text") == "text"
