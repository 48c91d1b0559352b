"""The interactive conversation, driven through its prompt."""

import builtins
import signal

import pytest

from pintpot.cli.answer import Answering
from pintpot.cli.chat import Chat
from pintpot.llm import load
from pintpot.runtime.sampler import SamplingParams


@pytest.fixture
def converse(toy, monkeypatch, capfd):
    """A function: types lines into a fresh conversation and returns the Chat, stdout and stderr."""

    def run(*lines, arch="qwen3moe", hook=None):
        llm = load(toy(arch), ctx=512, threads=1)
        typed = iter(lines)

        def fake_input(prompt):
            if hook:
                hook(prompt)
            try:
                line = next(typed)
            except StopIteration:
                raise EOFError from None
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(builtins, "input", fake_input)
        chat = Chat(llm, Answering(SamplingParams(temperature=0), max_tokens=6, ignore_eos=True))
        chat.loop()
        return chat, *capfd.readouterr()

    return run


def test_a_conversation_keeps_its_history_and_its_cache(converse):
    chat, out, err = converse("hello", "and more", "/bye")
    assert [m["role"] for m in chat._messages] == ["user", "assistant"] * 2
    assert out.count("\n") >= 2
    assert "cached" in err


def test_ctrl_c_at_the_prompt_keeps_the_session(converse):
    chat, _, err = converse("hello", KeyboardInterrupt(), "again")
    assert len(chat._messages) == 4
    assert "/bye" in err


def test_ctrl_c_stops_the_answer_and_keeps_the_session(converse, monkeypatch):
    from pintpot.cli import answer

    write, seen = answer.write_answer, []

    def interrupt_once(piece):
        write(piece)
        if not seen:
            seen.append(piece)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(answer, "write_answer", interrupt_once)
    chat, _, err = converse("hello", "again")
    assert "interrupted" in err
    assert len(chat._messages) == 4
    assert len(chat._messages[3]["content"]) > len(chat._messages[1]["content"])


def test_settings_change_and_are_shown(converse):
    chat, _, err = converse(
        "/set temperature 0.5", "/set parameter top_k 3", "/set seed 4", "/set num_predict 2", "/show", "hi"
    )
    params = chat._how.params
    assert (params.temperature, params.top_k, params.seed) == (0.5, 3, 4)
    assert "answer 2 tokens" in err
    assert "top_k" in err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/nosuch", "no such command"),
        ("/set nosuch 3", "no such setting"),
        ("/set temperature", "/set NAME VALUE"),
        ("/set temperature warm", "expected a number"),
        ("/set top_p 7", "between 0 and 1"),
        ("/set ctx 100", "-c"),
        ("/set max_tokens 0", "max_tokens is 0"),
        ("hello " * 600, "context holds 512: shorten it, or ask for a larger context (-c), or /clear"),
    ],
)
def test_mistakes_are_told_and_the_session_goes_on(converse, line, says):
    chat, _, err = converse(line, "hello")
    assert says in err
    assert len(chat._messages) == 2


def test_system_message_and_clear_begin_anew(converse):
    chat, _, _ = converse("hello", "/set system be brief", "hi", "/clear", "/stats")
    assert chat._messages == []
    assert chat._how.system == "be brief"


def test_several_lines_are_one_message(converse):
    chat, _, _ = converse('"""first', "second", 'third"""')
    assert chat._messages[0]["content"] == "first\nsecond\nthird"


def test_stop_strings(converse):
    chat, *_ = converse("/set seed 1", "hello")
    text = chat._messages[1]["content"]
    stopped, *_ = converse(f"/set stop {text[2:4]}", "hello")
    assert stopped._messages[1]["content"] == text[: text.index(text[2:4])]
