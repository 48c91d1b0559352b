"""Collecting: chunks, what counts, perplexity, and that recording ends with the collector."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pintpot.errors import ModelFileError, UsageError
from pintpot.llm import load
from pintpot.quantization.collect import Collector
from pintpot.quantization.importance import expert_reach
from pintpot.synth.synthesize import synthesize

CHUNK = 16


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "toy.gguf"
    synthesize(path, "qwen35moe", preset="toy", quant="F32")
    return load(path, ctx=CHUNK, threads=2, batch=CHUNK)


@pytest.fixture(scope="module")
def tokens(llm):
    return np.random.default_rng(0).integers(0, llm.tokenizer.n_vocab, 4 * CHUNK + 5).tolist()


def collect(llm, tokens, **options):
    with Collector(llm.engine, tokens, chunk_tokens=CHUNK, **options) as collector:
        assert list(collector.run()) == list(range(1, collector.n_chunks + 1))
        return collector, collector.imatrix()


def test_whole_chunks_are_read_and_counted(llm, tokens):
    _, got = collect(llm, tokens, dataset="t.txt")
    assert (got.datasets, got.chunk_count, got.chunk_tokens) == (("t.txt",), 4, CHUNK)
    n_used = llm.file.metadata["qwen35moe.expert_used_count"]
    for name, tensor in got.tensors.items():
        assert name.startswith("blk."), name
        assert tensor.counts.sum() == 4 * CHUNK * (n_used if "_exps" in name else 1), name


def test_chunks_are_independent(llm, tokens):
    """What a chunk adds does not depend on what was read before it."""
    _, whole = collect(llm, tokens)
    parts = [collect(llm, tokens, first_chunk=i, max_chunks=1)[1] for i in range(4)]
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(tensor.counts, sum(p.tensors[name].counts for p in parts))
        np.testing.assert_allclose(tensor.sum2, sum(p.tensors[name].sum2 for p in parts), rtol=1e-5)


def test_max_chunks(llm, tokens):
    collector, got = collect(llm, tokens, max_chunks=2)
    assert (collector.n_chunks, got.chunk_count) == (2, 2)
    assert collect(llm, tokens, max_chunks=99)[0].n_chunks == 4


@pytest.mark.parametrize("batch", [1, 5, CHUNK])
def test_steps_make_no_difference(llm, tokens, batch):
    _, whole = collect(llm, tokens)
    other = load(llm.path, ctx=CHUNK, threads=1, batch=batch)
    collector, got = collect(other, tokens)
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(tensor.counts, got.tensors[name].counts)
        np.testing.assert_allclose(
            tensor.sum2, got.tensors[name].sum2, rtol=1e-3, atol=1e-3 * tensor.sum2.max()
        )
    assert collector.perplexity.value == pytest.approx(collect(llm, tokens)[0].perplexity.value, rel=1e-3)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_the_first_token_gives_way_to_bos(llm, monkeypatch, adds_bos):
    """Where the tokenizer adds one: then it does not matter what the chunk began with."""
    assert llm.tokenizer.bos_id is not None
    monkeypatch.setattr(llm.tokenizer, "vocab", replace(llm.tokenizer.vocab, add_bos=adds_bos))
    first, second = (collect(llm, [t, *range(20, 20 + CHUNK - 1)])[1] for t in (30, 31))
    name = "blk.0.attn_gate.weight"
    assert np.array_equal(first.tensors[name].sum2, second.tensors[name].sum2) is adds_bos


def test_output_head_on_request(llm, tokens):
    assert "output.weight" not in collect(llm, tokens)[1].tensors
    head = collect(llm, tokens, process_output=True)[1].tensors["output.weight"]
    assert head.counts.tolist() == [4 * CHUNK]


def test_perplexity_is_of_the_second_half_of_each_chunk(llm, tokens):
    found = collect(llm, tokens)[0].perplexity
    losses = []
    for start in range(0, 4 * CHUNK, CHUNK):
        text = tokens[start : start + CHUNK]
        read = text
        if llm.tokenizer.vocab.add_bos:
            read = [llm.tokenizer.bos_id, *text[1:]]
        logits = llm.logits(read).astype(np.float64)[:, : llm.engine.n_tokens]
        for i in range(CHUNK // 2, CHUNK - 1):
            losses.append(np.log(np.exp(logits[i]).sum()) - logits[i, text[i + 1]])  # noqa: PERF401
    assert found.n_tokens == len(losses) == 4 * (CHUNK // 2 - 1)
    assert found.value == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert found.error == pytest.approx(found.value * np.std(losses) / math.sqrt(len(losses) - 1), rel=1e-4)


def test_perplexity_on_request_only(llm, tokens):
    found = collect(llm, tokens, perplexity=False)[0].perplexity
    assert found.n_tokens == 0
    assert math.isnan(found.value)


def test_experts_a_text_never_reaches(llm):
    """One token at a time over and over goes where it always goes."""
    _, got = collect(llm, [7] * CHUNK)
    reach = expert_reach(got)
    assert [r.layer for r in reach] == list(range(llm.spec.n_layer))
    for layer in reach:
        counts = got.tensors[f"blk.{layer.layer}.ffn_down_exps.weight"].counts
        assert layer.n_expert == len(counts)
        assert layer.unreached == tuple(np.flatnonzero(counts == 0))
    assert any(layer.unreached for layer in reach)
    for name, tensor in got.tensors.items():
        weights = got.weights(name)
        assert np.isfinite(weights).all()
        np.testing.assert_array_equal(weights[tensor.unreached], 1)


@pytest.mark.parametrize(("n", "options"), [(CHUNK - 1, {}), (0, {}), (3 * CHUNK, {"first_chunk": 3})])
def test_too_little_text(llm, n, options):
    with pytest.raises(UsageError, match=rf"has {n} tokens, expected at least"):
        Collector(llm.engine, [1] * n, chunk_tokens=CHUNK, **options)


def test_recording_ends_with_the_collector(llm, tokens):
    collect(llm, tokens)
    assert llm.engine.model.ops.recorded() == {}
    with pytest.raises(ZeroDivisionError), Collector(llm.engine, tokens, chunk_tokens=CHUNK) as collector:
        next(collector.run()) / 0
    assert llm.engine.model.ops.recorded() == {}


def test_activations_beyond_a_float_name_the_tensor(llm, tokens, monkeypatch):
    ops = llm.engine.model.ops
    with Collector(llm.engine, tokens, chunk_tokens=CHUNK) as collector:
        list(collector.run())
        recorded = ops.recorded()
        name = min(n for n in recorded if n.startswith("blk."))
        recorded[name].squares[0, 3] = 1e39
        monkeypatch.setattr(ops, "recorded", lambda: recorded)
        with pytest.raises(ModelFileError, match=name):
            collector.imatrix()
