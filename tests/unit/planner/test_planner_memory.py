"""Counted bytes are those of the file and of the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pintpot
from pintpot.gguf import GGUFFile
from pintpot.planner.memory import (
    CacheSettings,
    TensorSize,
    cache_bytes,
    cache_read_bytes,
    weigh,
    weigh_file,
)
from pintpot.spec import AttentionLayer, DeltaNetLayer, ModelSpec, MoEFFN
from pintpot.spec.cache import KVType
from pintpot.synth.presets import TOYS
from pintpot.synth.synthesize import write_model


@pytest.fixture(scope="module", params=sorted(TOYS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toys") / f"{request.param}.gguf"
    write_model(path, TOYS[request.param], quant="Q4_K_M")
    return path


def test_weights_are_the_file_s_to_the_byte(model: Path) -> None:
    file = GGUFFile.open(model)
    spec = ModelSpec.from_gguf(file)
    weights = weigh_file(file, spec)
    assert weights.total == sum(t.nbytes for t in file.tensors.values())
    assert weights.experts == sum(t.nbytes for n, t in file.tensors.items() if "_exps." in n)
    assert weights.embedding == sum(t.nbytes for n, t in file.tensors.items() if n.startswith("token_embd."))
    assert weights.rows == sum(t.nbytes for n, t in file.tensors.items() if n.startswith("per_layer_tok"))
    for layer, counted in zip(spec.layers, weights.layers, strict=True):
        if isinstance(layer.ffn, MoEFFN):
            assert counted.expert * layer.ffn.n_expert == counted.experts
            assert counted.routed == counted.expert * layer.ffn.n_expert_used
        else:
            assert (counted.experts, counted.n_expert) == (0, 0)


def test_what_is_never_read_is_counted_apart(model: Path) -> None:
    spec = replace(ModelSpec.from_gguf(GGUFFile.open(model)), n_layer_mtp=1)
    sharing = [
        i for i, a in enumerate(spec.layers) if isinstance(a.mixer, AttentionLayer) and a.mixer.kv_layer != i
    ]
    extra = [
        TensorSize(f"blk.{spec.n_layer}.attn_q.weight", 100, 200),
        TensorSize("v.blk.0.attn_q.weight", 10, 20),
        TensorSize("mm.0.weight", 1, 2),
        *(TensorSize(f"blk.{i}.attn_k.weight", 1000, 2000) for i in sharing),
    ]
    weights = weigh(spec, extra)
    assert weights.unread == weights.total == 111 + 1000 * len(sharing)


@pytest.mark.parametrize(("type_k", "type_v"), [("f16", "f16"), ("q8_0", "q8_0"), ("f32", "f16")])
def test_caches_are_what_the_engine_allocates(model: Path, type_k: str, type_v: str) -> None:
    llm = pintpot.load(model, ctx=96, batch=16, slots=2, cache_type_k=type_k, cache_type_v=type_v, threads=1)
    counted = cache_bytes(llm.spec, CacheSettings(96, KVType(type_k), KVType(type_v), n_batch=16, n_slots=2))
    allocated = llm.memory.cache_bytes
    assert counted.total <= allocated <= counted.total + 4096 * llm.spec.n_layer


def test_reads_grow_with_depth_where_a_layer_sees_it(model: Path) -> None:
    spec = ModelSpec.from_gguf(GGUFFile.open(model))
    settings = CacheSettings(4096)
    near, far = (cache_read_bytes(spec, settings, depth) for depth in (16, 4096))
    for layer, a, b in zip(spec.layers, near, far, strict=True):
        mixer = layer.mixer
        if isinstance(mixer, DeltaNetLayer):
            assert a == b > 0
        elif isinstance(mixer, AttentionLayer) and mixer.window is not None:
            assert b == a * mixer.window // 16
        else:
            assert b == a * 256
