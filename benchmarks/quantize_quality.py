"""Quantization beside llama.cpp: the error of every type, and the speed on one core.

    python -m benchmarks.quantize_quality [--ggml PATH] [--types Q4_K,Q6_K] [--rounds 5]

Both get the same float32 rows: Gaussian, Student-t with 3 degrees of freedom, and matrices of the demo
model; without importance, and with one weight a column as an importance matrix gives them (log-normal). The
ratio is that of the sums of importance * (x - dequantized)^2: below 1, pintpot's is the smaller. Speed is M
weights/s of processor time on one thread, without importance, in rounds that alternate; the medians.
llama.cpp is called through ggml_quantize_chunk, of the `xllamacpp` wheel or of the library named with --ggml
(build it with optimization). Prints Markdown.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import statistics
import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.demo import demo_model_path
from pintpot.gguf import GGUFFile
from pintpot.gguf.types import GGMLType, row_bytes
from pintpot.kernels.api import TensorView
from pintpot.kernels.quantize import Quantizer
from pintpot.quants.reference import dequantize

F32: TypeAlias = npt.NDArray[np.float32]
U8: TypeAlias = npt.NDArray[np.uint8]
Quantize: TypeAlias = Callable[[GGMLType, F32, F32 | None], U8]

COLS = 2048
ROWS = 128
TYPES = [kind for kind in GGMLType if kind not in {GGMLType.F32, GGMLType.F16, GGMLType.BF16}]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ggml", default=None, help="a library with ggml_quantize_chunk (libggml-base.so)")
    parser.add_argument("--types", default=",".join(kind.name for kind in TYPES), help="comma-separated")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    theirs = _llama_cpp(args.ggml)
    data = _weights()
    importance = np.exp(1.5 * np.random.default_rng(2).standard_normal(COLS)).astype(np.float32)
    cases = [(name, x, weights) for weights in (None, importance) for name, x in data.items()]
    heads = [f"{name}{', importance' if weights is not None else ''}" for name, _, weights in cases]
    print(f"| type | {' | '.join(heads)} | M weights/s | llama.cpp | faster |")
    print("|---|" + "---:|" * (len(cases) + 3))
    for kind in (GGMLType[name] for name in args.types.split(",")):
        ratios = [
            _error(kind, x, _pintpot(kind, x, weights), weights)
            / _error(kind, x, theirs(kind, x, weights), weights)
            for _, x, weights in cases
        ]
        ours, llama = _speeds(kind, data["Gaussian"], theirs, args.rounds)
        errors = " | ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"| {kind.name} | {errors} | {ours:.0f} | {llama:.0f} | {ours / llama:.1f}x |", flush=True)


def _weights() -> dict[str, F32]:
    rng = np.random.default_rng(1)
    file = GGUFFile.open(demo_model_path())
    demo = [
        file.data(name).view(np.float16).reshape(-1, COLS)[:8]
        for name, info in file.tensors.items()
        if info.ggml_type == GGMLType.F16
    ]
    return {
        "Gaussian": rng.standard_normal((ROWS, COLS)).astype(np.float32),
        "Student-t": rng.standard_t(3, (ROWS, COLS)).astype(np.float32),
        "demo model": np.concatenate(demo).astype(np.float32),
    }


def _llama_cpp(path: str | None) -> Quantize:
    if path is None:
        path = str(importlib.import_module("xllamacpp.xllamacpp").__file__)
    lib = ctypes.CDLL(path)
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t

    def quantize(kind: GGMLType, x: F32, importance: F32 | None) -> U8:
        lib.ggml_quantize_init(int(kind))
        out = np.empty((len(x), row_bytes(kind, x.shape[1])), np.uint8)
        weights = None if importance is None else importance.ctypes.data
        lib.ggml_quantize_chunk(int(kind), x.ctypes.data, out.ctypes.data, 0, len(x), x.shape[1], weights)
        return out

    return quantize


_QUANTIZER = Quantizer(1)


def _pintpot(kind: GGMLType, x: F32, importance: F32 | None) -> U8:
    raw = x.view(np.uint8).reshape(-1)
    source = TensorView("w", GGMLType.F32, raw, 1, len(x), x.shape[1], 4 * x.shape[1], raw.size)
    out = np.empty((len(x), row_bytes(kind, x.shape[1])), np.uint8)
    _QUANTIZER.quantize(source, 0, 0, kind, out, importance)
    return out


def _error(kind: GGMLType, x: F32, blocks: U8, importance: F32 | None) -> float:
    diff = x.astype(np.float64) - dequantize(kind, blocks, x.shape)
    return float(((1.0 if importance is None else importance) * diff * diff).sum())


def _speeds(kind: GGMLType, x: F32, theirs: Quantize, rounds: int) -> tuple[float, float]:
    ours, llama = [], []
    for _ in range(rounds):
        ours.append(_speed(_pintpot, kind, x))
        llama.append(_speed(theirs, kind, x))
    return statistics.median(ours), statistics.median(llama)


def _speed(quantize: Quantize, kind: GGMLType, x: F32) -> float:
    start = time.process_time()
    quantize(kind, x, None)
    return x.size / (time.process_time() - start) / 1e6


if __name__ == "__main__":
    main()
