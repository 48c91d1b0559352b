"""Our quantizer beside llama.cpp's: never a larger error, the same bytes where a format leaves no choice.

The error is the sum of importance * (x - dequantized)^2, which is what an importance matrix stands for: the
squared error of a layer's outputs when its inputs are uncorrelated.
"""

from __future__ import annotations

import ggml_quantizer
import gguf
import numpy as np
import numpy.typing as npt
import pytest

from pintpot.demo import demo_model_path
from pintpot.gguf import GGUFFile
from pintpot.gguf.types import GGMLType, row_bytes
from pintpot.kernels.api import TensorView
from pintpot.kernels.quantize import Quantizer

F32 = npt.NDArray[np.float32]
COLS = 1024
SEARCHED = [
    GGMLType.Q4_1, GGMLType.Q5_0, GGMLType.Q5_1, GGMLType.Q2_K, GGMLType.Q3_K, GGMLType.Q4_K,
    GGMLType.Q5_K, GGMLType.Q6_K, GGMLType.IQ4_XS,
]  # fmt: skip
IDENTICAL = [GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.IQ4_NL, GGMLType.MXFP4]
DISTRIBUTIONS = ["gaussian", "student-t", "small", "demo"]
IMPORTANCE = ["none", "uniform", "activations"]


@pytest.fixture(scope="module")
def weights() -> dict[str, F32]:
    rng = np.random.default_rng(11)
    file = GGUFFile.open(demo_model_path())
    demo = [
        file.data(name).view(np.float16).reshape(-1, COLS)[:6]
        for name, info in file.tensors.items()
        if info.ggml_type == GGMLType.F16
    ]
    return {
        "gaussian": rng.standard_normal((48, COLS)).astype(np.float32),
        "student-t": rng.standard_t(3, (48, COLS)).astype(np.float32),
        "small": (0.01 * rng.standard_normal((48, COLS))).astype(np.float32),
        "demo": np.concatenate(demo).astype(np.float32),
    }


def importance_of(name: str) -> F32 | None:
    rng = np.random.default_rng(12)
    if name == "none":
        return None
    if name == "uniform":
        return rng.uniform(0.1, 1, COLS).astype(np.float32)
    return np.exp(1.5 * rng.standard_normal(COLS)).astype(np.float32)  # mean squares of activations


def quantize(kind: GGMLType, x: F32, importance: F32 | None = None) -> npt.NDArray[np.uint8]:
    raw = np.ascontiguousarray(x).view(np.uint8).reshape(-1)
    source = TensorView("w", GGMLType.F32, raw, 1, len(x), x.shape[1], x.shape[1] * 4, raw.size)
    out = np.empty((len(x), row_bytes(kind, x.shape[1])), np.uint8)
    assert Quantizer(2).quantize(source, 0, 0, kind, out, importance).bad_row is None
    return out


def error(kind: GGMLType, x: F32, blocks: npt.NDArray[np.uint8], importance: F32 | None) -> float:
    diff = x - gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(kind))).astype(np.float64)
    return float(((1.0 if importance is None else importance) * diff * diff).sum())


@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("kind", [*SEARCHED, *IDENTICAL], ids=lambda kind: kind.name)
def test_error_is_never_larger(
    weights: dict[str, F32], kind: GGMLType, distribution: str, importance: str
) -> None:
    x, columns = weights[distribution], importance_of(importance)
    ours = error(kind, x, quantize(kind, x, columns), columns)
    assert ours <= error(kind, x, ggml_quantizer.quantize(kind, x, columns), columns)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("kind", IDENTICAL, ids=lambda kind: kind.name)
def test_same_bytes_without_importance(weights: dict[str, F32], kind: GGMLType, distribution: str) -> None:
    x = weights[distribution].copy()
    x[0, :256], x[1, :256], x[2] = 0, -0.5, np.ldexp(x[2], 12)
    np.testing.assert_array_equal(quantize(kind, x), ggml_quantizer.quantize(kind, x))
