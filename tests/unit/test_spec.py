from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toy_files import METADATA, N_EMBD, N_VOCAB, declarations, write_toy

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl
from pintpot.spec import (
    SUPPORTED_ARCHITECTURES,
    AttentionLayer,
    DeltaNetLayer,
    DenseFFN,
    ModelSpec,
    MoEFFN,
    RopeScaling,
    RopeSpec,
    RopeStyle,
    measure,
    summarize_types,
)


@pytest.fixture
def spec_of(tmp_path):
    def read(kind: str, changes: dict[str, Any] | None = None) -> ModelSpec:
        return ModelSpec.from_gguf(GGUFFile.open(write_toy(tmp_path / "m.gguf", kind, changes)))

    return read


def attention(layer: int, **changes: Any) -> AttentionLayer:
    plain = AttentionLayer(
        n_head=4,
        n_head_kv=2,
        head_dim_k=16,
        head_dim_v=16,
        rope=RopeSpec(theta=1e6, n_rot=16, style=RopeStyle.NEOX),
        window=None,
        scale=0.25,
        kv_layer=layer,
    )
    return replace(plain, **changes)


def test_every_toy_file_has_a_spec(spec_of):
    assert {m["general.architecture"] for m in METADATA.values()} == set(SUPPORTED_ARCHITECTURES)
    for kind, metadata in METADATA.items():
        spec = spec_of(kind)
        assert spec.arch == metadata["general.architecture"]
        assert spec.name == f"toy {spec.arch}"
        assert len(spec.layers) == spec.n_layer
        assert (spec.n_embd, spec.n_vocab, spec.ctx_train) == (N_EMBD, N_VOCAB, 4096)
        assert spec.norm_eps == pytest.approx(1e-6)
        assert spec.tied_output == (kind != "qwen3moe")


def test_llama(spec_of):
    rope = RopeSpec(1e6, 16, RopeStyle.INTERLEAVED, use_freq_factors=True)
    layers = spec_of("llama").layers
    assert [layer.mixer for layer in layers] == [attention(i, rope=rope) for i in range(2)]
    assert all(layer.ffn == DenseFFN(96) for layer in layers)
    mixtral = spec_of("mixtral").layers[1]
    assert mixtral.ffn == MoEFFN(n_expert=8, n_expert_used=2, n_ff=96)
    assert mixtral.mixer == attention(1, rope=replace(rope, use_freq_factors=False))


def test_head_count_kv_and_sizes_default(spec_of):
    mixer = spec_of("qwen2", {"attention.head_count_kv": None, "rope.freq_base": None}).layers[0].mixer
    assert mixer == attention(0, n_head_kv=4, rope=RopeSpec(10000.0, 16, RopeStyle.NEOX))


def test_qwen3_head_size_is_its_own(spec_of):
    mixer = spec_of("qwen3").layers[0].mixer
    rope = RopeSpec(1e6, 32, RopeStyle.NEOX)
    assert mixer == attention(0, head_dim_k=32, head_dim_v=32, scale=32**-0.5, rope=rope)


def test_qwen3moe_expert_width_defaults_to_a_share(spec_of):
    assert spec_of("qwen3moe").layers[0].ffn == MoEFFN(8, 2, 32)
    without = spec_of("qwen3moe", {"expert_feed_forward_length": None})
    assert without.layers[0].ffn == MoEFFN(8, 2, 48)


def test_qwen35(spec_of):
    spec = spec_of("qwen35")
    assert (spec.n_layer, spec.n_layer_mtp) == (4, 1)
    delta = DeltaNetLayer(n_head_k=2, n_head_v=4, head_dim_k=16, head_dim_v=16, conv_kernel=4)
    rope = RopeSpec(1e6, 8, RopeStyle.NEOX, sections=(2, 1, 1, 0))
    expected = [delta, attention(1, rope=rope, gated=True), delta, attention(3, rope=rope, gated=True)]
    assert [layer.mixer for layer in spec.layers] == expected
    assert delta.conv_dim == 128
    moe = spec_of("qwen35moe")
    assert moe.n_layer_mtp == 0
    assert moe.layers[3].ffn == MoEFFN(8, 2, 32, n_ff_shared=48)


def test_qwen35_recurrent_layers_may_be_listed(spec_of):
    spec = spec_of("qwen35", {"attention.recurrent_layers": [True, True, True, False, False]})
    assert [isinstance(layer.mixer, DeltaNetLayer) for layer in spec.layers] == [True, True, True, False]


def test_gemma4(spec_of):
    spec = spec_of("gemma4")
    full = RopeSpec(1e6, 32, RopeStyle.NEOX, use_freq_factors=True)
    near = RopeSpec(1e4, 16, RopeStyle.NEOX)
    windowed = attention(0, rope=near, window=8, scale=1.0)
    whole = attention(0, rope=full, head_dim_k=32, head_dim_v=32, scale=1.0)
    kinds = [windowed, whole] * 3
    owners = [0, 1, 2, 3, 2, 3]  # the last two read the last layer of their kind before them
    expected = [replace(kind, kv_layer=owner) for kind, owner in zip(kinds, owners, strict=True)]
    assert [layer.mixer for layer in spec.layers] == expected
    assert spec.layers[0].ffn == DenseFFN(96)
    assert spec.layers[1].ffn == MoEFFN(8, 2, 32, n_ff_dense=96)
    assert spec.layers[4].ffn == DenseFFN(192)
    assert spec.logit_softcap == 30.0
    assert spec.n_embd_per_layer == 8


def test_gpt_oss(spec_of):
    spec = spec_of("gpt-oss")
    rope = RopeSpec(1e6, 16, RopeStyle.NEOX, RopeScaling("yarn", 32.0, 128))
    windows = [8, None, 8, None]
    expected = [attention(i, rope=rope, window=w, sinks=True) for i, w in enumerate(windows)]
    assert [layer.mixer for layer in spec.layers] == expected
    listed = spec_of("gpt-oss", {"attention.sliding_window_pattern": [False, True, True, True]})
    assert [layer.mixer.window for layer in listed.layers] == [None, 8, 8, 8]
    every_third = spec_of("gpt-oss", {"attention.sliding_window_pattern": 3})
    assert [layer.mixer.window for layer in every_third.layers] == [8, 8, None, 8]


def test_rope_scaling(spec_of):
    def scaling(**keys: Any) -> RopeScaling | None:
        changes = {f"rope.scaling.{key}": value for key, value in keys.items()}
        return spec_of("qwen2", changes).layers[0].mixer.rope.scaling

    assert scaling() is None
    assert scaling(type="none", factor=4.0) is None
    assert scaling(factor=4.0) == RopeScaling("linear", 4.0, 4096)
    assert scaling(type="linear", factor=0.0) is None
    assert spec_of("qwen2", {"rope.scale_linear": 2.0}).layers[0].mixer.rope.scaling.factor == 2.0
    assert scaling(type="none", factor=4.0, attn_factor=0.5) == RopeScaling("linear", 1.0, 4096, 0.5)
    yarn = scaling(type="yarn", factor=4.0, original_context_length=1024, attn_factor=0.5)
    assert yarn == RopeScaling("yarn", 4.0, 1024, attn_factor=0.5)
    assert scaling(type="yarn", factor=4.0, original_context_length=0) == RopeScaling("yarn", 4.0, 4096)
    with pytest.raises(UnsupportedError, match=r"scaling\.type is longrope"):
        scaling(type="longrope")


def test_unknown_architecture_lists_but_has_no_spec(tmp_path):
    path = write_toy(tmp_path / "m.gguf", "llama", {"general.architecture": "mamba"})
    file = GGUFFile.open(path)
    assert len(file.tensors) == 4
    with pytest.raises(
        UnsupportedError, match=r"m.gguf: architecture mamba is not supported, these are: llama"
    ):
        ModelSpec.from_gguf(file)


WRONG = [
    ("llama", {"general.architecture": None}, "metadata key general.architecture is None"),
    ("llama", {"general.architecture": 7}, "metadata key general.architecture is 7"),
    ("llama", {"block_count": None}, "metadata key llama.block_count is missing"),
    (
        "llama",
        {"block_count": 0},
        "metadata key llama.block_count is 0, expected a whole number from 1 to 512",
    ),
    ("llama", {"block_count": 513}, "metadata key llama.block_count is 513"),
    (
        "llama",
        {"block_count": 3},
        "tensor blk.2.attn_norm.weight is missing, the metadata says the model has 3",
    ),
    ("llama", {"block_count": True}, "metadata key llama.block_count is True"),
    ("llama", {"block_count": "2"}, "metadata key llama.block_count is"),
    ("llama", {"embedding_length": 65}, r"token_embd.weight has shape \[48, 64\], the metadata says .* 65"),
    ("llama", {"embedding_length": 1 << 40}, "metadata key llama.embedding_length is"),
    ("llama", {"context_length": 0}, "metadata key llama.context_length is 0"),
    ("llama", {"attention.head_count": 0}, "metadata key llama.attention.head_count is 0"),
    ("llama", {"attention.head_count": -1}, "metadata key llama.attention.head_count is -1"),
    ("llama", {"attention.head_count": [4, 4, 4]}, "head_count is an array of 3, expected 2 whole numbers"),
    ("llama", {"attention.head_count": [4, 0]}, "head_count holds 0, expected whole numbers from 1"),
    ("llama", {"attention.head_count": [4.0, 4.0]}, "head_count is an array of 2, expected 2 whole"),
    ("llama", {"attention.head_count_kv": 3}, "head_count_kv is 3 in layer 0, no divisor of its 4 heads"),
    ("llama", {"attention.head_count_kv": 0}, "head_count_kv is 0 in layer 0, no divisor"),
    ("llama", {"attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
    ("llama", {"attention.layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon is nan"),
    ("llama", {"attention.layer_norm_rms_epsilon": -1.0}, "layer_norm_rms_epsilon is -1.0"),
    ("llama", {"attention.layer_norm_rms_epsilon": "x"}, "layer_norm_rms_epsilon is x, expected a number"),
    ("llama", {"rope.dimension_count": 15}, "rope.dimension_count is 15, expected an even number"),
    ("llama", {"rope.dimension_count": 18}, "rope.dimension_count is 18"),
    ("llama", {"rope.freq_base": 0.0}, "rope.freq_base is 0.0"),
    ("llama", {"rope.freq_base": float("inf")}, "rope.freq_base is inf"),
    ("llama", {"rope.scaling.factor": -2.0}, "rope.scaling.factor is -2.0"),
    ("llama", {"rope.scaling.type": 3}, "rope.scaling.type is 3, expected a string"),
    ("llama", {"feed_forward_length": None}, "llama.feed_forward_length is missing"),
    ("llama", {"nextn_predict_layers": 2}, "nextn_predict_layers is 2, expected a whole number from 0 to 1"),
    ("llama", {"tokenizer.ggml.tokens": ["t"] * 49}, "tokenizer.ggml.tokens holds 49 tokens, .* 48 rows"),
    ("llama", {"tokenizer.ggml.tokens": "t"}, "tokenizer.ggml.tokens holds no array"),
    ("mixtral", {"expert_used_count": 9}, "expert_used_count is 9, expected a whole number from 1 to 8"),
    ("qwen3moe", {"expert_count": 0}, "qwen3moe.expert_count is 0"),
    ("qwen3moe", {"expert_used_count": None}, "expert_used_count is missing"),
    ("qwen35", {"full_attention_interval": 0}, "full_attention_interval is 0"),
    ("qwen35", {"ssm.inner_size": 63}, "ssm.inner_size is 63, expected 4 heads of 16"),
    ("qwen35", {"ssm.group_count": 3}, "ssm.group_count is 3, no divisor of the 4 value heads"),
    ("qwen35", {"ssm.conv_kernel": None}, "ssm.conv_kernel is missing"),
    ("qwen35", {"rope.dimension_sections": [9, 9, 9, 9]}, "dimension_sections add up to more than"),
    ("qwen35", {"rope.dimension_sections": [-1, 1, 1, 1]}, "dimension_sections holds numbers from -1"),
    ("qwen35", {"rope.dimension_sections": 4}, "dimension_sections is 4, expected 4 whole numbers"),
    ("gemma4", {"attention.sliding_window_pattern": [True] * 5}, "sliding_window_pattern is an array of 5"),
    ("gemma4", {"attention.sliding_window": 0}, "sliding_window is 0"),
    ("gemma4", {"attention.shared_kv_layers": 6}, "shared_kv_layers is 6"),
    ("gemma4", {"attention.shared_kv_layers": 5}, "shared_kv_layers leaves no earlier layer"),
    ("gemma4", {"attention.head_count_kv": [2, 2, 2, 2, 4, 2]}, "shares the cache of 2 heads"),
    ("gemma4", {"attention.value_length_swa": 8}, "value_length_swa must equal"),
    ("gpt-oss", {"attention.sliding_window": None}, "gpt-oss.attention.sliding_window is missing"),
    ("gpt-oss", {"expert_feed_forward_length": None}, "expert_feed_forward_length is missing"),
]


@pytest.mark.parametrize(("kind", "changes", "message"), WRONG)
def test_impossible_metadata_is_named(spec_of, kind, changes, message):
    with pytest.raises(ModelFileError, match=re.escape("m.gguf: ") + ".*" + message) as caught:
        spec_of(kind, changes)
    assert "\n" not in str(caught.value)


def test_no_embedding(tmp_path):
    with GGUFWriter(tmp_path / "m.gguf", METADATA["llama"], []):
        pass
    with pytest.raises(ModelFileError, match=r"token_embd\.weight is missing: this is no whole model"):
        ModelSpec.from_gguf(GGUFFile.open(tmp_path / "m.gguf"))


def test_the_name_cannot_drive_the_terminal(spec_of):
    assert spec_of("llama", {"general.name": "a\x1b[31m\nb"}).name == "a [31m b"
    assert spec_of("llama", {"general.name": None}).name == "m"


def test_sizes(tmp_path):
    file = GGUFFile.open(write_toy(tmp_path / "m.gguf", "qwen3moe"))
    spec = ModelSpec.from_gguf(file)
    size = measure(file, spec)
    experts = N_EMBD * 32 * 8
    embedding = N_EMBD * N_VOCAB
    assert size.n_params == 2 * embedding + 2 * N_EMBD + experts
    assert size.n_params_experts == experts
    assert size.n_params_active == 2 * embedding + 2 * N_EMBD + experts * 2 // 8
    q8 = (2 * embedding + experts) * 34 // 32
    assert dict(size.bytes_by_type) == {"Q8_0": q8, "F32": 2 * N_EMBD * 4}
    assert list(size.bytes_by_type) == ["Q8_0", "F32"]
    assert size.experts_bytes == experts * 34 // 32
    assert size.weights_bytes == sum(d.nbytes for d in declarations("qwen3moe"))
    assert measure(file).n_params_active == size.n_params
    assert summarize_types(file) == "Q8_0"


def test_mtp_layers_and_per_layer_embeddings_are_not_active(tmp_path):
    decls = [*declarations("qwen35"), TensorDecl("per_layer_token_embd.weight", GGMLType.F32, (8, N_VOCAB))]
    with GGUFWriter(tmp_path / "m.gguf", METADATA["qwen35"], decls) as writer:
        for d in decls:
            writer.write(d.name, np.zeros(d.nbytes, np.uint8))
    file = GGUFFile.open(tmp_path / "m.gguf")
    size = measure(file, ModelSpec.from_gguf(file))
    assert size.n_params - size.n_params_active == N_EMBD + 8 * N_VOCAB
