"""What the loader says of files whose tensors are not what a model needs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny import CASES, Converted, convert, new_state, run, tokens, write

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.gguf import GGUFFile, GGUFWriter, TensorDecl, type_by_name
from pintpot.kernels.reference import ReferenceOps
from pintpot.runtime.loader import FileTensors, load_model


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Converted:
    return convert(CASES["qwen3-q8"], tmp_path_factory.mktemp("qwen3"))


def changed(converted: Converted, changes: dict[str, np.ndarray | None]) -> Converted:
    """With tensors added or replaced, or removed where the value is None."""
    tensors = converted.tensors | changes
    return dataclasses.replace(converted, tensors={n: v for n, v in tensors.items() if v is not None})


def load(converted: Converted, folder):
    return load_model(GGUFFile.open(write(converted, folder / "model.gguf")), ReferenceOps())


@pytest.mark.parametrize(
    "sizes",
    [
        {"ssm.state_size": 8192, "ssm.inner_size": 8192 * 6},
        {"ssm.time_step_rank": 4096, "ssm.inner_size": 4096 * 8},
        {"ssm.conv_kernel": 64},
        {"attention.head_count": 4096},
        {"attention.key_length": 8192},
        {"feed_forward_length": 1 << 24},
    ],
)
def test_sizes_that_the_tensors_do_not_have(sizes, tmp_path):
    """Whatever the metadata claims, memory is asked for only once the tensors have agreed."""
    converted = convert(CASES["qwen35"], tmp_path)
    claimed = converted.metadata | {f"qwen35.{key}": value for key, value in sizes.items()}
    with pytest.raises(ModelFileError, match=r"tensor blk\.\d\.\S+ has shape .*, expected ") as caught:
        load(dataclasses.replace(converted, metadata=claimed), tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_tensor(qwen3, tmp_path):
    with pytest.raises(ModelFileError, match=r"model.gguf: tensor blk\.1\.attn_k\.weight is missing.*64, 48"):
        load(changed(qwen3, {"blk.1.attn_k.weight": None}), tmp_path)


def test_misshapen_matrix(qwen3, tmp_path):
    wrong = np.zeros((63, 48), np.float32)
    with pytest.raises(ModelFileError, match=r"attn_k\.weight has shape \[63, 48\], expected \[64, 48\]"):
        load(changed(qwen3, {"blk.1.attn_k.weight": wrong}), tmp_path)


def test_a_row_is_no_column(tmp_path):
    path = tmp_path / "model.gguf"
    decl = TensorDecl("blk.0.attn_q.weight", type_by_name("Q8_0").id, (32,))
    with GGUFWriter(path, {"general.architecture": "llama"}, [decl]) as writer:
        writer.write(decl.name, bytes(decl.nbytes))
    with pytest.raises(ModelFileError, match=r"attn_q\.weight has shape \[32\], expected \[32, 1\]"):
        FileTensors(GGUFFile.open(path)).matrix(decl.name, 32, 1)


def test_misshapen_vector(qwen3, tmp_path):
    wrong = np.zeros(47, np.float32)
    with pytest.raises(ModelFileError, match=r"output_norm\.weight has shape \[47\], expected \[48\]"):
        load(changed(qwen3, {"output_norm.weight": wrong}), tmp_path)


def test_tensor_nobody_uses(qwen3, tmp_path):
    extra = np.zeros(48, np.float32)
    with pytest.raises(UnsupportedError, match=r"'blk\.2\.attn_gain\.weight' is not part of a qwen3 model"):
        load(changed(qwen3, {"blk.2.attn_gain.weight": extra}), tmp_path)


def test_other_modalities_are_ignored(qwen3, tmp_path):
    extra = np.zeros(48, np.float32)
    load(changed(qwen3, {"v.blk.0.attn_q.weight": extra, "mm.0.weight": extra}), tmp_path)


@pytest.mark.parametrize(("kind", "error"), [("IQ3_S", UnsupportedError), ("I32", UnsupportedError)])
def test_type_that_cannot_be_computed(qwen3, tmp_path, kind, error):
    info = type_by_name(kind)
    cols = 48 if info.block_values == 1 else info.block_values
    path = tmp_path / "model.gguf"
    decl = TensorDecl("blk.0.ffn_up.weight", info.id, (cols, 80))
    with GGUFWriter(path, qwen3.metadata, [decl]) as writer:
        writer.write(decl.name, bytes(decl.nbytes))
    with pytest.raises(error, match=rf"blk\.0\.ffn_up\.weight has type {kind}"):
        FileTensors(GGUFFile.open(path)).matrix(decl.name, 80, cols)


def test_quantized_vector(qwen3, tmp_path):
    path = tmp_path / "model.gguf"
    info = type_by_name("Q8_0")
    with GGUFWriter(path, qwen3.metadata, [TensorDecl("output_norm.weight", info.id, (64,))]) as writer:
        writer.write("output_norm.weight", bytes(68))
    with pytest.raises(UnsupportedError, match=r"output_norm\.weight has type Q8_0, expected F32"):
        FileTensors(GGUFFile.open(path)).vector("output_norm.weight", 64)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_half_precision_vectors(qwen3, tmp_path, kind):
    values = np.array([1.0, -2.5, 0.0, 3.140625, -1e-3, 1e4, 7.0, 8.0], np.float32)
    raw = values.astype(np.float16) if kind == "F16" else (values.view(np.uint32) >> 16).astype(np.uint16)
    path = tmp_path / "model.gguf"
    with GGUFWriter(path, qwen3.metadata, [TensorDecl("x", type_by_name(kind).id, (8,))]) as writer:
        writer.write("x", raw)
    got = FileTensors(GGUFFile.open(path)).vector("x", 8)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, values, rtol=2**-7)


def test_impossible_rope_factors(tmp_path):
    converted = convert(CASES["llama-3-rope"], tmp_path)
    factors = converted.tensors["rope_freqs.weight"].copy()
    factors[3] = 0
    with pytest.raises(ModelFileError, match=r"rope_freqs\.weight: expected positive factors"):
        load(changed(converted, {"rope_freqs.weight": factors}), tmp_path)


def test_mtp_layers_are_ignored(tmp_path):
    converted = convert(CASES["qwen35moe"], tmp_path)
    plain = load(converted, tmp_path)
    n_layer = plain.spec.n_layer
    block = {
        name.replace("blk.2.", f"blk.{n_layer}."): values
        for name, values in converted.tensors.items()
        if name.startswith("blk.2.")
    }
    block[f"blk.{n_layer}.nextn.eh_proj.weight"] = np.zeros((48, 96), np.float32)
    metadata = converted.metadata | {
        "qwen35moe.block_count": n_layer + 1,
        "qwen35moe.nextn_predict_layers": 1,
        "qwen35moe.attention.recurrent_layers": [True, True, False, True, True, False],
    }
    with_mtp = load(Converted(metadata, converted.tensors | block), tmp_path)
    assert with_mtp.spec.n_layer == n_layer
    ids = tokens(12)
    np.testing.assert_array_equal(
        run(with_mtp, new_state(with_mtp), ids, [12]), run(plain, new_state(plain), ids, [12])
    )


def test_projections_of_shared_kv_layers_are_ignored(tmp_path):
    converted = convert(CASES["gemma4-e"], tmp_path)
    unused = {
        "blk.5.attn_k.weight": np.ones((64, 48), np.float32),
        "blk.5.attn_v.weight": np.ones((64, 48), np.float32),
        "blk.5.attn_k_norm.weight": np.ones(32, np.float32),
    }
    ids = tokens(12)
    plain = load(converted, tmp_path)
    expected = run(plain, new_state(plain), ids, [12])
    model = load(dataclasses.replace(converted, tensors=converted.tensors | unused), tmp_path)
    np.testing.assert_array_equal(run(model, new_state(model), ids, [12]), expected)
