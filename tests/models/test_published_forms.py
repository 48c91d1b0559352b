"""Checkpoints as they are published: sharded, in 16 bits, quantized to MXFP4, inside a larger model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CASES, Case, hf_logits, new_state, relative_error, run, tokens
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import pintpot
from pintpot.gguf import GGUFFile
from pintpot.kernels.reference import ReferenceOps
from pintpot.runtime.loader import load_model

TOLERANCE = 1e-4
N_TOKENS = 40


def logits(path: Path) -> np.ndarray:
    model = load_model(GGUFFile.open(path), ReferenceOps())
    return run(model, new_state(model), tokens(N_TOKENS), [N_TOKENS])


@pytest.mark.parametrize(("dtype", "kind"), [(torch.bfloat16, "BF16"), (torch.float16, "F16")])
def test_shards_in_16_bits_are_kept_bit_by_bit(tmp_path, dtype, kind):
    case = CASES["mixtral"]
    folder = case.save(tmp_path / "hf", case.build().to(dtype), max_shard_size="60KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    result = pintpot.convert(folder, tmp_path / "model.gguf")
    file = GGUFFile.open(result.path)
    assert result.file_type == kind
    assert {info.type_name for info in file.tensors.values()} == {kind, "F32"}
    stored: dict[str, torch.Tensor] = {}
    for path in folder.glob("model-*-of-*.safetensors"):
        stored |= load_file(path)
    prefix = "model.layers.1.block_sparse_moe.experts"
    expected = torch.stack([stored[f"{prefix}.{e}.w3.weight"] for e in range(5)])
    got = file.data("blk.1.ffn_up_exps.weight").view(np.uint16)
    np.testing.assert_array_equal(got, expected.view(torch.uint16).numpy().reshape(-1))
    rounded = case.build()
    with torch.no_grad():
        for values in rounded.state_dict().values():
            values.copy_(values.to(dtype))
    assert relative_error(logits(result.path), hf_logits(rounded, tokens(N_TOKENS))) < TOLERANCE


def test_mxfp4_experts(tmp_path):
    """transformers' own unpacking of the same blocks is the model to agree with."""
    case = Case("GptOssConfig", "GptOssForCausalLM", CASES["gpt-oss"].changes | {"hidden_size": 64})
    case.changes["intermediate_size"] = 96
    hf = case.build()
    folder = case.save(tmp_path / "hf", hf)
    path = folder / "model.safetensors"
    stored = load_file(path)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer, block in enumerate(hf.model.layers):
            for name, rows, cols in (("gate_up_proj", 192, 64), ("down_proj", 64, 96)):
                prefix = f"model.layers.{layer}.mlp.experts.{name}"
                shape = (6, rows, cols // 32)
                blocks = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
                scales = torch.randint(121, 125, shape, generator=generator, dtype=torch.uint8)
                del stored[prefix]
                stored |= {f"{prefix}_blocks": blocks, f"{prefix}_scales": scales}
                values = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
                getattr(block.mlp.experts, name).copy_(values)
    save_file(stored, path)
    _change_config(folder, quantization_config={"quant_method": "mxfp4"})
    result = pintpot.convert(folder, tmp_path / "model.gguf", outtype="f32")
    assert GGUFFile.open(result.path).tensors["blk.3.ffn_up_exps.weight"].type_name == "MXFP4"
    ours = logits(result.path)
    theirs = hf_logits(hf, tokens(N_TOKENS))
    assert theirs.std() > 0.5
    assert relative_error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["qwen35", "qwen35moe"])
def test_language_model_inside_a_larger_one(tmp_path, name):
    """As Qwen 3.5 is published: a vision tower, experts fused, and a multi-token prediction layer."""
    case = CASES[name]
    hf = case.build()
    folder = case.save(tmp_path / "hf", hf)
    path = folder / "model.safetensors"
    stored = {
        f"model.language_model.{key.removeprefix('model.')}" if key.startswith("model.") else key: value
        for key, value in load_file(path).items()
    }
    if name == "qwen35moe":
        _fuse_experts(stored)
    attention = "model.language_model.layers.2."
    mtp = {k.replace(attention, "mtp.layers.0."): v.clone() for k, v in stored.items() if attention in k}
    mtp |= {
        f"mtp.{k}.weight": torch.rand(48) for k in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
    }
    mtp["mtp.fc.weight"] = torch.rand(48, 96)
    save_file(stored | mtp | {"model.visual.patch_embed.weight": torch.zeros(3, 4)}, path)
    text = json.loads((folder / "config.json").read_text())
    outer = {"model_type": text["model_type"].removesuffix("_text"), "text_config": text}
    (folder / "config.json").write_text(json.dumps(outer))

    result = pintpot.convert(folder, tmp_path / "model.gguf")
    assert any("1 tensors for images or sound" in note for note in result.notes)
    assert relative_error(logits(result.path), hf_logits(hf, tokens(N_TOKENS))) < TOLERANCE
    file = GGUFFile.open(result.path)
    assert file.metadata[f"{name}.block_count"] == 6
    assert file.metadata[f"{name}.nextn_predict_layers"] == 1
    norm = file.data("blk.5.nextn.enorm.weight").view("<f4")
    np.testing.assert_array_equal(norm, mtp["mtp.pre_fc_norm_embedding.weight"].numpy() + 1)
    for stem in ("attn_q.weight", "attn_norm.weight"):
        np.testing.assert_array_equal(file.data(f"blk.5.{stem}"), file.data(f"blk.2.{stem}"))
    assert file.tensors["blk.5.nextn.eh_proj.weight"].shape == (48, 96)


def _fuse_experts(stored: dict[str, torch.Tensor]) -> None:
    for layer in range(5):
        prefix = f"model.language_model.layers.{layer}.mlp.experts."
        parts = {
            name: torch.stack([stored.pop(f"{prefix}{e}.{name}.weight") for e in range(7)])
            for name in ("gate_proj", "up_proj", "down_proj")
        }
        stored[f"{prefix}gate_up_proj"] = torch.cat([parts["gate_proj"], parts["up_proj"]], dim=1)
        stored[f"{prefix}down_proj"] = parts["down_proj"]


def _change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
