"""Kernels compile for NVIDIA and AMD cards: the compiler needs none of them. Nothing runs here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "compile_kernels.py"
TARGETS = ["cuda:80", "cuda:89", "cuda:90", "cuda:120", "hip:gfx942", "hip:gfx1100"]
OTHERS = ["small", "delta_net", "windowed_attention", "attention-F32", "attention-F16", "attention-Q8_0"]
TYPES = ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS"]
TYPES += ["MXFP4", "F16", "BF16", "F32"]


def compile_kernels(target: str, *names: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), target, *names]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_small_kernels() -> None:
    compile_kernels("cuda:89", "small")


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_all_but_products(target: str) -> None:
    compile_kernels(target, *OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", TYPES)
def test_products(kind: str, target: str) -> None:
    compile_kernels(target, f"products-{kind}", f"experts-{kind}")
