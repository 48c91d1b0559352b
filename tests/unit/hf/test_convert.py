"""A tiny Llama folder and what can be wrong with it. Nothing is left behind when conversion fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hf_folders import llama_tensors, write_folder

import pintpot
from pintpot.errors import ModelFileError, UnsupportedError, UsageError
from pintpot.gguf import GGMLType, GGUFFile
from pintpot.hf.values import encode, to_bfloat16

K_PROJ = "model.layers.1.self_attn.k_proj.weight"


def convert(folder, out, **options):
    return GGUFFile.open(pintpot.convert(folder, out, **options).path)


def refused(folder, error, message):
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(error, match=message) as raised:
        pintpot.convert(folder, out / "model.gguf")
    assert "\n" not in str(raised.value)
    assert list(out.iterdir()) == []


def test_metadata(tmp_path):
    folder = write_folder(tmp_path / "My-Llama", generation_config={"temperature": 0.6, "top_k": 20})
    file = convert(folder, tmp_path / "model.gguf")
    expected = {
        "general.architecture": "llama",
        "general.name": "My-Llama",
        "general.file_type": 0,
        "general.sampling.top_k": 20,
        "llama.block_count": 2,
        "llama.context_length": 64,
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 12,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.rope.dimension_count": 4,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": 10,
    }
    assert {key: file.metadata[key] for key in expected} == expected
    assert "llama.attention.key_length" not in file.metadata  # the config states no head_dim
    assert file.metadata["general.sampling.temp"] == np.float32(0.6)
    np.testing.assert_array_equal(
        file.data("blk.1.ffn_down.weight").view("<f4").reshape(8, 12),
        llama_tensors()["model.layers.1.mlp.down_proj.weight"][1].astype(np.float32),
    )


def test_nan_and_infinity_pass_through(tmp_path):
    bits = np.array([0x7FC1, 0xFF81, 0x7F80, 0xFF80, 0x0001, 0x8000, 0x3F80, 0x7F7F], np.uint16)
    tensors = llama_tensors()
    tensors["model.layers.0.mlp.up_proj.weight"] = ("BF16", np.tile(bits, (12, 1)))
    tensors["model.norm.weight"] = ("BF16", bits)
    file = convert(write_folder(tmp_path / "hf", tensors), tmp_path / "model.gguf")
    got = file.data("blk.0.ffn_up.weight").view("<u2").reshape(12, 8)
    np.testing.assert_array_equal(got, np.tile(bits, (12, 1)))
    np.testing.assert_array_equal(file.data("output_norm.weight").view("<u4"), bits.astype(np.uint32) << 16)


def test_output_types(tmp_path):
    folder = write_folder(tmp_path / "hf")
    kinds = {}
    for outtype in ("f32", "f16", "bf16", "auto"):
        file = convert(folder, tmp_path / f"{outtype}.gguf", outtype=outtype)
        kinds[outtype] = file.tensors["blk.0.attn_k.weight"].type_name
        assert file.tensors["blk.0.attn_norm.weight"].type_name == "F32"
    assert kinds == {"f32": "F32", "f16": "F16", "bf16": "BF16", "auto": "F32"}
    with pytest.raises(UsageError, match="--outtype q4_0: expected one of auto, f32, f16, bf16"):
        pintpot.convert(folder, tmp_path / "x.gguf", outtype="q4_0")


def test_bfloat16_rounds_to_nearest_even():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    ties = (rng.integers(0, 0x7F7F, 1000, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    values = np.concatenate([values[np.isfinite(values)], ties]).astype(np.float64)
    got = (to_bfloat16(values.astype(np.float32)).astype(np.uint32) << 16).view(np.float32)
    ok = np.isfinite(got)
    values, got = values[ok], got[ok]
    for other in (got.view(np.uint32) - 0x10000, got.view(np.uint32) + 0x10000):
        neighbour = other.view(np.float32).astype(np.float64)
        mine, theirs = np.abs(got - values), np.abs(neighbour - values)
        comparable = np.isfinite(theirs)
        assert (mine[comparable] <= theirs[comparable]).all()
        tied = comparable & (mine == theirs)
        assert ((got.view(np.uint32)[tied] >> 16) % 2 == 0).all()
    assert to_bfloat16(np.array([np.nan, np.inf, -np.inf], np.float32)).tolist() == [0x7FC0, 0x7F80, 0xFF80]


def test_values_too_large_for_f16_are_told(tmp_path):
    tensors = llama_tensors()
    tensors["model.layers.0.mlp.up_proj.weight"][1][:2, :3] = 1e6
    folder = write_folder(tmp_path / "hf", tensors)
    notes = pintpot.convert(folder, tmp_path / "model.gguf", outtype="f16").notes
    assert notes == ("blk.0.ffn_up.weight: 6 values are too large for F16 and became infinite: use bf16",)


def test_large_tensors_are_encoded_in_pieces():
    values = np.arange(9 << 20, dtype=np.float32).reshape(9, -1)[:, ::-1]
    pieces = [piece for piece, _ in encode(values, "F32", GGMLType.F16)]
    assert len(pieces) == 3
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(np.concatenate(pieces), values.astype(np.float16))


def test_existing_output(tmp_path):
    folder = write_folder(tmp_path / "hf")
    out = tmp_path / "model.gguf"
    out.write_text("precious")
    with pytest.raises(UsageError, match=r"model.gguf: exists already.*--force"):
        pintpot.convert(folder, out)
    assert out.read_text() == "precious"
    assert convert(folder, out, force=True).tensors
    with pytest.raises(UsageError, match="is a folder"):
        pintpot.convert(folder, tmp_path)


def test_default_name_is_in_the_folder(tmp_path):
    folder = write_folder(tmp_path / "My-Llama")
    assert pintpot.convert(folder).path == folder / "My-Llama-F32.gguf"


def test_no_folder(tmp_path):
    with pytest.raises(ModelFileError, match="is no folder"):
        pintpot.convert(tmp_path / "nothing")
    refused(write_folder(tmp_path / "hf") / "..", ModelFileError, "has no config.json")


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"model_type": "mamba"}, UnsupportedError, "config.json: model_type 'mamba' is not converted"),
        ({"model_type": None}, ModelFileError, "model_type is missing"),
        ({"hidden_size": None}, ModelFileError, "config.json: hidden_size is missing"),
        ({"rms_norm_eps": None}, ModelFileError, "rms_norm_eps is missing"),
        ({"num_hidden_layers": "2"}, ModelFileError, 'num_hidden_layers is "2", expected a whole number'),
        ({"num_hidden_layers": 3}, ModelFileError, "layer 2 lacks input_layernorm.weight"),
        ({"num_hidden_layers": 1}, ModelFileError, "is of layer 1, config.json says 1 layers"),
        ({"num_attention_heads": 0}, ModelFileError, "num_attention_heads is 0"),
        ({"hidden_act": "gelu"}, UnsupportedError, "hidden_act is 'gelu', llama models"),
        ({"quantization_config": {"quant_method": "fp8"}}, UnsupportedError, r"quantized \(fp8\)"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, UnsupportedError, "RoPE of type 'dynamic'"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 16}},
            UnsupportedError,
            "YaRN's beta_fast is 16.0, GGUF models are run with 32.0 only",
        ),
        ({"rope_scaling": {"type": "linear"}}, ModelFileError, "rope_scaling.factor is missing"),
        ({"tie_word_embeddings": False}, ModelFileError, "no file has the tensor lm_head.weight"),
        ({"vocab_size": 11}, ModelFileError, r"embed_tokens.weight has shape \[10, 8\].*\[11, 8\]"),
        ({"intermediate_size": 13}, ModelFileError, r"mlp.down_proj.weight has shape .*\[8, 13\]"),
        ({"vocab_size": 8}, ModelFileError, "shape"),
    ],
)
def test_config(tmp_path, config, error, message):
    refused(write_folder(tmp_path / "hf", config=config), error, message)


def test_config_that_is_no_json(tmp_path):
    folder = write_folder(tmp_path / "hf")
    (folder / "config.json").write_text("{")
    refused(folder, ModelFileError, "config.json: is no JSON")
    (folder / "config.json").write_text("[]")
    refused(folder, ModelFileError, "config.json: holds list, expected a JSON object")


def test_missing_tensors(tmp_path):
    for name, message in (
        (K_PROJ, "layer 1 lacks self_attn.k_proj.weight"),
        ("model.norm.weight", "no file has the tensor model.norm.weight"),
    ):
        tensors = llama_tensors()
        del tensors[name]
        refused(write_folder(tmp_path / "hf", tensors), ModelFileError, message)


def test_unknown_tensor(tmp_path):
    for name in ("model.layers.1.self_attn.rel_bias", "score.weight", "mtp.layers.0.input_layernorm.weight"):
        tensors = llama_tensors() | {name: ("F32", np.zeros((4, 8)))}
        refused(
            write_folder(tmp_path / "hf", tensors), UnsupportedError, f"tensor {name} is not part of a llama"
        )


def test_wrong_shape_and_type(tmp_path):
    tensors = llama_tensors() | {K_PROJ: ("F32", np.zeros((8, 4)))}
    message = r"k_proj.weight has shape \[8, 4\], which makes blk.1.attn_k.weight \[8, 4\], .* \[4, 8\]"
    refused(write_folder(tmp_path / "hf", tensors), ModelFileError, message)
    tensors = llama_tensors() | {K_PROJ: ("U8", np.zeros((4, 8)))}
    refused(write_folder(tmp_path / "hf", tensors), UnsupportedError, "is U8, expected F32 or F16 or BF16")


def test_same_weight_under_two_names(tmp_path):
    twin = K_PROJ.replace("model.", "model.language_model.")
    tensors = llama_tensors() | {twin: ("F32", np.zeros((4, 8)))}
    refused(write_folder(tmp_path / "hf", tensors), ModelFileError, "is there twice")


def test_experts_must_be_all_there(tmp_path):
    config = {"model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2}
    tensors = {name: value for name, value in llama_tensors().items() if ".mlp." not in name}
    for i in range(2):
        p = f"model.layers.{i}.block_sparse_moe."
        tensors[f"{p}gate.weight"] = ("F32", np.ones((3, 8)))
        for e in (0, 2):
            for w, shape in (("w1", (12, 8)), ("w2", (8, 12)), ("w3", (12, 8))):
                tensors[f"{p}experts.{e}.{w}.weight"] = ("F32", np.full(shape, e))
    folder = write_folder(tmp_path / "hf", tensors, config)
    refused(folder, ModelFileError, "has 3 experts, says config.json: expert 1 is missing or too many")


def test_tied_head_is_not_written_twice(tmp_path):
    tensors = llama_tensors() | {"lm_head.weight": ("F32", np.ones((10, 8)))}
    folder = write_folder(tmp_path / "hf", tensors)
    assert "output.weight" not in convert(folder, tmp_path / "tied.gguf").tensors
    folder = write_folder(tmp_path / "hf", tensors, {"tie_word_embeddings": False})
    assert "output.weight" in convert(folder, tmp_path / "untied.gguf").tensors


def test_what_is_left_out_is_told(tmp_path):
    tensors = llama_tensors() | {
        "model.vision_tower.x.weight": ("F32", np.zeros((2, 2))),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", np.zeros(2)),
    }
    folder = write_folder(tmp_path / "hf", tensors, {"model_type": "mistral", "sliding_window": 16})
    notes = pintpot.convert(folder, tmp_path / "model.gguf").notes
    assert [note[:40] for note in notes] == [
        "the attention window of 16 tokens is lef",
        "1 tensors for images or sound are left o",
    ]


def test_command(tmp_path, capsys, monkeypatch):
    from pintpot.cli import main

    folder = write_folder(tmp_path / "hf")
    monkeypatch.setattr(
        "sys.argv", ["pintpot", "convert", str(folder), str(tmp_path / "m.gguf"), "--outtype", "bf16"]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert "llama BF16" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "exists already" in capsys.readouterr().err
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
