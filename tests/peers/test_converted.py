"""Files that `pintpot.convert` writes of Hugging Face folders are the same models in llama.cpp."""

from __future__ import annotations

import pytest
from cases import relative_error
from llama_oracle import LlamaCpp
from ours import Ours
from tiny import CASES, tokens

import pintpot
from pintpot.gguf import GGUFFile
from pintpot.tokenizer import Tokenizer

F32_ERROR = 1e-3
GEMMA_ERROR = 4e-2  # llama.cpp's table of half-precision GELU values; see test_llama_cpp.py


@pytest.mark.parametrize("name", CASES)
def test_logits(name, tmp_path, ops) -> None:
    path = pintpot.convert(CASES[name].save(tmp_path / "hf"), tmp_path / "model.gguf").path
    ids = tokens(40).tolist()
    with LlamaCpp(path) as oracle:
        expected = oracle.step(ids)
        spelled = oracle.tokenize("<s>Some'text,12</s>")
    assert spelled == Tokenizer.from_metadata(GGUFFile.open(path).metadata, "model").encode(
        "<s>Some'text,12</s>"
    )
    tolerance = GEMMA_ERROR if name.startswith("gemma4") else F32_ERROR
    assert relative_error(Ours(path, ops).step(ids), expected) <= tolerance
