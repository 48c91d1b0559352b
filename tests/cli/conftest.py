"""Toy models for the command line and the Python API, and a way to call the command."""

import sys
from dataclasses import dataclass

import pytest

from pintpot.cli import main
from pintpot.synth.synthesize import synthesize


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A function: the path of a toy model of an architecture."""
    folder = tmp_path_factory.mktemp("models")

    def make(arch="qwen3moe", quant="Q8_0"):
        path = folder / f"{arch}-{quant}.gguf"
        if not path.exists():
            synthesize(path, arch, preset="toy", quant=quant)
        return path

    return make


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def pintpot(capfd, monkeypatch, tmp_path):
    """A function that runs `pintpot ARGS...` in this process, on the real streams."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # what is learnt here is kept here

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["pintpot", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code or 0
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call
