"""Hugging Face folders made by hand: safetensors byte by byte, a tiny Llama, tokenizer files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "vocab_size": 10,
}
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}
Tensors = dict[str, tuple[str, np.ndarray]]


def pack(header: object, data: bytes = b"") -> bytes:
    """A .safetensors file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def safetensors(tensors: Tensors) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, values) in tensors.items():
        raw = values.astype(DTYPES[dtype]).tobytes()
        header[name] = entry(dtype, list(values.shape), len(data), len(data) + len(raw))
        data += raw
    return pack(header, data)


def llama_tensors(seed: int = 0) -> Tensors:
    """F32, of the shapes CONFIG states."""
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (10, 8), "model.norm.weight": (8,)}
    for i in range(2):
        p = f"model.layers.{i}."
        shapes |= {
            f"{p}input_layernorm.weight": (8,),
            f"{p}self_attn.q_proj.weight": (8, 8),
            f"{p}self_attn.k_proj.weight": (4, 8),
            f"{p}self_attn.v_proj.weight": (4, 8),
            f"{p}self_attn.o_proj.weight": (8, 8),
            f"{p}post_attention_layernorm.weight": (8,),
            f"{p}mlp.gate_proj.weight": (12, 8),
            f"{p}mlp.up_proj.weight": (12, 8),
            f"{p}mlp.down_proj.weight": (8, 12),
        }
    return {name: ("F32", rng.standard_normal(shape)) for name, shape in shapes.items()}


def bpe_json(**changes: Any) -> dict[str, Any]:
    """A byte-level tokenizer.json of six letters and two special tokens."""
    letters = {letter: i for i, letter in enumerate("abcdeĠ")}
    return {
        "added_tokens": [
            {"id": 6, "content": "<s>", "special": True, "normalized": False},
            {"id": 7, "content": "</s>", "special": True, "normalized": False},
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "model": {"type": "BPE", "vocab": letters | {"ab": 8}, "merges": [["a", "b"]]},
    } | changes


def write_folder(
    folder: Path,
    tensors: Tensors | None = None,
    config: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    **files: object,
) -> Path:
    """The tiny Llama; `files` are further JSON files by stem. A None in `config` removes the key."""
    folder.mkdir(exist_ok=True)
    values = {key: value for key, value in (CONFIG | (config or {})).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer or bpe_json()))
    (folder / "model.safetensors").write_bytes(safetensors(tensors or llama_tensors()))
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content))
    return folder
