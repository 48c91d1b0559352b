"""Toy GGUF files: valid metadata of every architecture with the few tensors that a ModelSpec looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pintpot.gguf import GGMLType, GGUFWriter, TensorDecl, row_bytes

N_EMBD, N_VOCAB = 64, 48


def _common(arch: str, n_layer: int, **extra: Any) -> dict[str, Any]:
    keys = {
        "block_count": n_layer,
        "context_length": 4096,
        "embedding_length": N_EMBD,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
    }
    keys |= {name.replace("__", "."): value for name, value in extra.items()}
    return {
        "general.architecture": arch,
        "general.name": f"toy {arch}",
        **{f"{arch}.{name}": value for name, value in keys.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"t{i}é" for i in range(N_VOCAB)],
        "tokenizer.ggml.scores": np.linspace(0, 1, N_VOCAB, dtype=np.float32),
        "tokenizer.ggml.token_type": np.ones(N_VOCAB, np.int32),
    }


_EXPERTS: dict[str, Any] = {
    "expert_count": 8,
    "expert_used_count": 2,
    "expert_feed_forward_length": 32,
}
_QWEN35: dict[str, Any] = {
    "attention__key_length": 16,
    "attention__value_length": 16,
    "rope__dimension_count": 8,
    "rope__dimension_sections": [2, 1, 1, 0],
    "ssm__conv_kernel": 4,
    "ssm__state_size": 16,
    "ssm__group_count": 2,
    "ssm__time_step_rank": 4,
    "ssm__inner_size": 64,
    "full_attention_interval": 2,
}

METADATA: dict[str, dict[str, Any]] = {
    "llama": _common("llama", 2),
    "mixtral": _common("llama", 2, expert_count=8, expert_used_count=2),
    "qwen2": _common("qwen2", 2),
    "qwen3": _common("qwen3", 2, attention__key_length=32, attention__value_length=32),
    "qwen3moe": _common("qwen3moe", 2, **_EXPERTS),
    "qwen35": _common("qwen35", 5, nextn_predict_layers=1, **_QWEN35),
    "qwen35moe": _common("qwen35moe", 4, expert_shared_feed_forward_length=48, **_EXPERTS, **_QWEN35),
    "gemma4": _common(
        "gemma4",
        6,
        feed_forward_length=[96, 96, 96, 96, 192, 192],
        attention__key_length=32,
        attention__value_length=32,
        attention__key_length_swa=16,
        attention__value_length_swa=16,
        attention__sliding_window=8,
        attention__sliding_window_pattern=[True, False] * 3,
        attention__shared_kv_layers=2,
        rope__dimension_count=32,
        rope__dimension_count_swa=16,
        rope__freq_base_swa=1e4,
        final_logit_softcapping=30.0,
        embedding_length_per_layer_input=8,
        **_EXPERTS,
    ),
    "gpt-oss": _common(
        "gpt-oss",
        4,
        attention__key_length=16,
        attention__value_length=16,
        attention__sliding_window=8,
        rope__scaling__type="yarn",
        rope__scaling__factor=32.0,
        rope__scaling__original_context_length=128,
        **_EXPERTS,
    ),
}


def declarations(kind: str) -> list[TensorDecl]:
    """Embedding, a norm for each layer, and what tells optional parts apart."""
    metadata = METADATA[kind]
    arch = metadata["general.architecture"]
    n_layer = metadata[f"{arch}.block_count"]
    decls = [TensorDecl("token_embd.weight", GGMLType.Q8_0, (N_EMBD, N_VOCAB))]
    decls += [TensorDecl(f"blk.{i}.attn_norm.weight", GGMLType.F32, (N_EMBD,)) for i in range(n_layer)]
    if kind in ("llama", "gemma4"):
        decls.append(TensorDecl("rope_freqs.weight", GGMLType.F32, (8 if kind == "llama" else 16,)))
    if kind == "gemma4":
        decls.append(TensorDecl("blk.1.ffn_gate_inp.weight", GGMLType.F32, (N_EMBD, 8)))
    if kind == "qwen3moe":
        decls.append(TensorDecl("output.weight", GGMLType.Q8_0, (N_EMBD, N_VOCAB)))
        decls.append(TensorDecl("blk.0.ffn_up_exps.weight", GGMLType.Q8_0, (N_EMBD, 32, 8)))
    return decls


def write_toy(path: Path, kind: str, changes: dict[str, Any] | None = None) -> Path:
    """Write the toy file `kind`; `changes` replaces keys of the architecture, None removes one."""
    arch = METADATA[kind]["general.architecture"]
    metadata = dict(METADATA[kind])
    for key, value in (changes or {}).items():
        full = key if key.startswith(("general.", "tokenizer.")) else f"{arch}.{key}"
        if value is None:
            del metadata[full]
        else:
            metadata[full] = value
    decls = declarations(kind)
    with GGUFWriter(path, metadata, decls) as writer:
        for d in decls:
            rows = d.nbytes // row_bytes(d.ggml_type, d.ne[0])
            writer.write(d.name, bytes(rows * row_bytes(d.ggml_type, d.ne[0])))
    return path
