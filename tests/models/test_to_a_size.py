"""A file made to a size predicts more like the original than the fixed mix of that size: the demo model."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.divergence import Reference

import pintpot
from pintpot.demo import demo_model_path


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(demo_model_path(), n_chunks=8)


@pytest.mark.parametrize("quant", ["Q3_K_M", "Q4_K_M"])
def test_beats_the_mix_of_the_same_size(quant: str, reference: Reference, tmp_path: Path) -> None:
    mix, sized = tmp_path / "mix.gguf", tmp_path / "sized.gguf"
    size = pintpot.quantize("demo", mix, quant).nbytes
    assert pintpot.quantize("demo", sized, target_bytes=size).nbytes <= size
    assert reference.kl(sized) < 0.9 * reference.kl(mix)
