"""Triton kernels run on a GPU where there is one, else in Triton's interpreter, on CPU tensors."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest
import torch

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise pytest.UsageError("triton was imported before tests/gpu could choose its interpreter")
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported and when kernels are
if importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]  # no wheel for this platform
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if ON_GPU else "cpu"
