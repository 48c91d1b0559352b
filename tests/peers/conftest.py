"""Fixtures: one toy file per (shape, quant) and process, one CPU backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cases import SHAPES

from pintpot.gguf import GGMLType
from pintpot.kernels.cpu import CpuOps
from pintpot.synth.synthesize import write_model


@pytest.fixture(scope="session")
def ops() -> CpuOps:
    return CpuOps(2)  # more than one, so that work is really divided


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Path]]:
    """model_file(name, quant) writes the toy once and returns its path; a type's name means it throughout."""
    folder = tmp_path_factory.mktemp("models")
    made: dict[tuple[str, str], Path] = {}

    def make(name: str, quant: str = "F32") -> Path:
        if (name, quant) not in made:
            path = folder / f"{name}-{quant}.gguf"
            write_model(path, SHAPES[name], quant=quant, pure=quant in GGMLType.__members__)
            made[name, quant] = path
        return made[name, quant]

    yield make
    for path in made.values():
        path.unlink()
