"""Both backends record the same inputs for whole models: every architecture, fused tensors, every ISA level.

Sums are of squares, in F32 models: they agree to about twice the error of the activations, 1e-4.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pintpot import _native
from pintpot.gguf import GGUFFile
from pintpot.kernels.api import Segment
from pintpot.kernels.cpu import CpuOps
from pintpot.kernels.reference import ReferenceOps
from pintpot.runtime.cache import ModelState
from pintpot.runtime.loader import load_model
from pintpot.spec.cache import KVType
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model

TOLERANCE = 1e-4
SHAPES = TOYS | {
    "llama-fused-tied": replace(TOYS["llama"], fused_qkv=True, tied=True),
    "qwen35moe-fused": replace(TOYS["qwen35moe"], fused_gate_up=True, fused_qkv=True),
}
N_TOKENS = 40
NO_PRODUCTS = ("norm", "conv1d", "rope_freqs", "token_embd", "ffn_gate_inp_shexp", "scale")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    def make(name):
        path = folder / f"{name}.gguf"
        if not path.exists():
            write_model(path, SHAPES[name])
        return path

    return make


def record(path, ops):
    """The sums of two steps of one sequence."""
    model = load_model(GGUFFile.open(path), ops)
    state = ModelState(model, n_slots=1, ctx_tokens=64, n_batch=64, type_k=KVType.F32, type_v=KVType.F32)
    tokens = np.random.default_rng(1).integers(0, model.spec.n_vocab, N_TOKENS, np.int32)
    ops.start_recording()
    for start, stop in ((0, 33), (33, N_TOKENS)):
        rows = np.arange(stop - start, dtype=np.int32)
        model.forward(tokens[start:stop], ops.batch([Segment(0, start, stop - start)]), state, rows)
    recorded = ops.recorded()
    ops.stop_recording()
    return recorded


@pytest.fixture(scope="module")
def expected(model_file):
    cache = {}

    def make(name):
        if name not in cache:
            cache[name] = record(model_file(name), ReferenceOps(torch.float64))
        return cache[name]

    return make


@pytest.fixture(params=[i for i in _native.Isa if i <= _native.detect_isa()], ids=lambda level: level.name)
def isa(request):
    before = _native.active_isa()
    assert _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


@pytest.mark.parametrize("name", SHAPES)
def test_backends_record_alike(name, isa, model_file, expected):
    got, want = record(model_file(name), CpuOps(2)), expected(name)
    assert set(got) == set(want)
    for tensor, sums in want.items():
        np.testing.assert_array_equal(got[tensor].rows, sums.rows, err_msg=tensor)
        largest = sums.squares.max()
        np.testing.assert_allclose(
            got[tensor].squares, sums.squares, rtol=TOLERANCE, atol=TOLERANCE * largest
        )


@pytest.mark.parametrize("name", SHAPES)
def test_every_matrix_is_recorded_under_its_name(name, model_file, expected):
    """All tokens count once in a dense matrix, once for each chosen expert in a stack."""
    file = GGUFFile.open(model_file(name))
    layer_tensors = {
        n: t
        for n, t in file.tensors.items()
        if n.endswith(".weight") and not any(s in n for s in NO_PRODUCTS)
    }
    sums = {n: s for n, s in expected(name).items() if n != "token_embd.weight"}
    used_elsewhere = {n for n in layer_tensors if len(layer_tensors[n].ne) == 1}
    assert set(layer_tensors) - used_elsewhere - set(sums) <= {"per_layer_token_embd.weight"}
    assert set(sums) <= set(layer_tensors)
    for tensor, recorded in sums.items():
        ne = layer_tensors[tensor].ne
        n_mats = ne[2] if len(ne) > 2 else 1
        assert recorded.squares.shape == (n_mats, ne[0])
        n_used = file.metadata.get(f"{file.metadata['general.architecture']}.expert_used_count", 1)
        assert recorded.rows.sum() == N_TOKENS * (n_used if "_exps" in tensor else 1)
