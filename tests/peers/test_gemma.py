"""Gemma 4 against transformers on the same file, where llama.cpp's half-precision GELU is no oracle."""

from __future__ import annotations

import pytest
from cases import ARCHITECTURES, prompt, relative_error
from llama_oracle import LlamaCpp
from ours import Ours
from transformers_oracle import load_transformers, transformers_logits

EXACT = 2e-5


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name.startswith("gemma4")])
def test_closer_to_transformers_than_llama_cpp_is(name, model_file, ops) -> None:
    shape = ARCHITECTURES[name]
    path = model_file(name, "F32")
    tokens = prompt(shape, 96, seed=4)
    expected = transformers_logits(load_transformers(path, shape), tokens)
    ours = relative_error(Ours(path, ops).step(tokens), expected)
    with LlamaCpp(path) as oracle:
        theirs = relative_error(oracle.step(tokens), expected)
    assert ours <= EXACT < theirs
