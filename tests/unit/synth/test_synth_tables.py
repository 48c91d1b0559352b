import math
from pathlib import Path

import pytest

from pintpot.errors import UsageError
from pintpot.quants.recipes import RECIPES, find_recipe
from pintpot.synth.metadata import model_metadata
from pintpot.synth.presets import DEFAULT_PRESET, PRESETS, TOYS, find_shape
from pintpot.synth.synthesize import tensor_types, write_model
from pintpot.synth.tensors import tensor_table
from pintpot.synth.vocab import SPECIALS, tokenizer_metadata

# Parameters of the published models, in billions (embeddings included; MTP and vision towers not).
PUBLISHED = {
    "llama-3.1-8b": 8.03, "mistral-7b": 7.25, "mistral-small-24b": 23.6, "mixtral-8x7b": 46.7,
    "qwen2.5-7b": 7.62, "qwen3-4b": 4.02, "qwen3-8b": 8.19, "qwen3-30b-a3b": 30.5, "qwen3.5-4b": 4.2,
    "qwen3.5-9b": 9.0, "qwen3.5-35b-a3b": 34.7, "gemma-4-e2b": 4.65, "gemma-4-e4b": 7.5,
    "gemma-4-31b": 30.7, "gemma-4-26b-a4b": 25.2, "gpt-oss-20b": 20.9,
}  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_count(preset: str) -> None:
    n = sum(t.n_values for t in tensor_table(PRESETS[preset])) / 1e9
    assert n == pytest.approx(PUBLISHED[preset], rel=0.03)


def test_experts_of_the_35b() -> None:
    """design.md: experts are 32.2 G of 34.6 G parameters, 256 of 3 x 2048 x 512 in 40 layers."""
    experts = [t for t in tensor_table(PRESETS["qwen3.5-35b-a3b"]) if t.name.endswith("_exps.weight")]
    assert len(experts) == 120
    assert sum(t.n_values for t in experts) == 40 * 256 * 3 * 2048 * 512


@pytest.mark.parametrize("name", [*PRESETS, *TOYS])
def test_names_are_unique(name: str) -> None:
    shape = PRESETS.get(name) or TOYS[name]
    names = [t.name for t in tensor_table(shape)]
    assert len(names) == len(set(names))


def test_layers_cut_keeps_shared_kv_consistent() -> None:
    shape = PRESETS["gemma-4-e2b"].with_layers(12)
    own = [layer for layer in range(12) if shape.has_kv(layer)]
    assert own == list(range(5))
    assert not shape.is_sliding(own[-1])
    assert shape.is_sliding(own[-2])


def test_find_shape() -> None:
    assert find_shape("qwen35moe") is PRESETS["qwen3.5-35b-a3b"]
    assert find_shape("qwen3.5-35b-a3b") is PRESETS["qwen3.5-35b-a3b"]
    assert find_shape("gpt-oss", "toy") is TOYS["gpt-oss"]
    assert set(DEFAULT_PRESET.values()) <= set(PRESETS)
    with pytest.raises(UsageError, match="of architecture 'qwen3'"):
        find_shape("llama", "qwen3-4b")
    with pytest.raises(UsageError, match="unknown architecture"):
        find_shape("bert")


def test_any_model_of_the_catalog_is_a_preset() -> None:
    assert find_shape("qwen3.5:122b-a10b").n_layer == 48
    assert find_shape("qwen3", "qwen3:32b").n_embd == 5120
    with pytest.raises(UsageError, match="phi4:14b: architecture phi3 is not supported"):
        find_shape("phi4:14b")


def test_q4_k_m_types() -> None:
    shape = PRESETS["qwen3.5-35b-a3b"]
    types = tensor_types(find_recipe("q4_k_m"), shape, tensor_table(shape))
    kinds = {name: kind.name for name, kind in types.items()}
    assert kinds["output.weight"] == "Q6_K"
    assert kinds["token_embd.weight"] == "Q4_K"
    assert kinds["blk.0.ffn_down_exps.weight"] == "Q6_K"
    assert kinds["blk.5.ffn_down_exps.weight"] == "Q4_K"
    assert kinds["blk.7.ffn_gate_exps.weight"] == "Q4_K"
    assert kinds["blk.7.ffn_gate_inp.weight"] == "F32"
    assert kinds["blk.0.ssm_conv1d.weight"] == "F32"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize("quant", [name for name in RECIPES if name != "COPY"])
@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("pure", [False, True])
def test_rows_fit_their_type(quant: str, name: str, pure: bool) -> None:
    table = tensor_table(TOYS[name])
    types = tensor_types(find_recipe(quant), TOYS[name], table, pure=pure)
    for tensor in table:
        assert tensor.shape[-1] % types[tensor.name].block_values == 0, tensor


def test_unknown_quant(tmp_path: Path) -> None:
    for quant in ("Q9_Z", "COPY"):
        with pytest.raises(UsageError, match=f"--quant {quant}"):
            write_model(tmp_path / "x.gguf", TOYS["llama"], quant=quant)


@pytest.mark.parametrize("name", TOYS)
def test_vocabulary(name: str) -> None:
    shape = TOYS[name]
    meta = tokenizer_metadata(shape)
    tokens, merges = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.merges"]
    assert isinstance(tokens, list)
    assert isinstance(merges, list)
    assert len(tokens) == len(set(tokens)) == shape.n_vocab == len(meta["tokenizer.ggml.token_type"])
    assert tokens[-len(SPECIALS) :] == list(SPECIALS)
    for merge in merges:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= set(tokens)


def test_big_vocabulary_is_distinct() -> None:
    tokens = tokenizer_metadata(PRESETS["gemma-4-31b"])["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert len(set(tokens)) == 262144


def test_llama3_factors() -> None:
    """Llama 3.1 8B's published rope_freqs: 1 for fast pairs, 8 for slow ones, smooth between."""
    factors = next(t for t in tensor_table(PRESETS["llama-3.1-8b"]) if t.name == "rope_freqs.weight").fill
    values = factors.values  # type: ignore[union-attr]
    assert values[0] == 1.0
    assert values[-1] == 8.0
    assert sorted(values) == list(values)
    assert 0 < sum(1.0 < v < 8.0 for v in values) < 10


def test_metadata_of_cut_gemma() -> None:
    meta = model_metadata(PRESETS["gemma-4-e2b"].with_layers(10), 15)
    widths = meta["gemma4.feed_forward_length"]
    assert widths == [6144] * 5 + [12288] * 5
    assert meta["gemma4.attention.shared_kv_layers"] == 5
    assert math.isclose(float(meta["gemma4.final_logit_softcapping"]), 30.0)
