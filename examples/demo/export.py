"""The trained model as a GGUF file (F16 matrices) that pintpot, llama.cpp and transformers read alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from demo.chat import CHAT_TEMPLATE
from demo.corpus import SPECIAL_TOKENS
from pintpot.gguf import GGMLType, GGUFWriter, TensorDecl

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import Tensor

    from demo.model import DemoConfig
    from pintpot.gguf.writer import MetadataIn

_NORMAL, _CONTROL = 1, 3  # tokenizer.ggml.token_type
_FILE_TYPE_F16 = 1
_LAYER_NAMES = {
    "attn_norm.weight": "attn_norm.weight",
    "attn.q.weight": "attn_q.weight",
    "attn.k.weight": "attn_k.weight",
    "attn.v.weight": "attn_v.weight",
    "attn.out.weight": "attn_output.weight",
    "attn.q_norm.weight": "attn_q_norm.weight",
    "attn.k_norm.weight": "attn_k_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "experts.router.weight": "ffn_gate_inp.weight",
    "experts.gate.weight": "ffn_gate_exps.weight",
    "experts.up.weight": "ffn_up_exps.weight",
    "experts.down.weight": "ffn_down_exps.weight",
}


def gguf_tensors(state: dict[str, Tensor], cfg: DemoConfig) -> dict[str, NDArray[np.float32]]:
    """The model's parameters under GGUF's names, NumPy shapes (GGUF's `ne` is the reverse)."""
    out = {
        "token_embd.weight": state["embd.weight"].numpy(),
        "output_norm.weight": state["out_norm.weight"].numpy(),
        "output.weight": state["out.weight"].numpy(),
    }
    for layer in range(cfg.n_layer):
        prefix = f"blocks.{layer}."
        own = {k.removeprefix(prefix): v.numpy() for k, v in state.items() if k.startswith(prefix)}
        gate_up = own.pop("experts.gate_up")
        own["experts.gate.weight"] = gate_up[:, : cfg.n_ff]
        own["experts.up.weight"] = gate_up[:, cfg.n_ff :]
        own["experts.down.weight"] = own.pop("experts.down")
        for ours, name in _LAYER_NAMES.items():
            out[f"blk.{layer}.{name}"] = own[ours]
    return out


def is_half(name: str, array: NDArray[np.float32]) -> bool:
    """Matrices are F16; norms and the router stay F32, as llama.cpp's converter has it."""
    return array.ndim > 1 and "ffn_gate_inp" not in name


def model_metadata(cfg: DemoConfig) -> dict[str, MetadataIn]:
    """The `general.*` and `qwen3moe.*` keys."""
    return {
        "general.architecture": "qwen3moe",
        "general.type": "model",
        "general.name": "pintpot demo",
        "general.author": "pintpot",
        "general.description": "A small mixture of experts trained on the Python documentation",
        "general.license": "Apache-2.0 AND PSF-2.0",
        "general.languages": ["en"],
        "general.datasets": ["Debian python3.11-doc (PSF-2.0)"],
        "general.file_type": _FILE_TYPE_F16,
        "qwen3moe.block_count": cfg.n_layer,
        "qwen3moe.context_length": cfg.ctx_train,
        "qwen3moe.embedding_length": cfg.n_embd,
        "qwen3moe.feed_forward_length": cfg.n_ff,
        "qwen3moe.expert_feed_forward_length": cfg.n_ff,
        "qwen3moe.expert_count": cfg.n_expert,
        "qwen3moe.expert_used_count": cfg.n_expert_used,
        "qwen3moe.attention.head_count": cfg.n_head,
        "qwen3moe.attention.head_count_kv": cfg.n_head_kv,
        "qwen3moe.attention.key_length": cfg.head_dim,
        "qwen3moe.attention.value_length": cfg.head_dim,
        "qwen3moe.attention.layer_norm_rms_epsilon": float(cfg.norm_eps),
        "qwen3moe.rope.freq_base": float(cfg.rope_theta),
        "qwen3moe.rope.dimension_count": cfg.head_dim,
        "qwen3moe.vocab_size": cfg.n_vocab,
    }


def tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, MetadataIn]:
    """The `tokenizer.*` keys of a byte-level BPE with Qwen2's pre-tokenizer and ChatML."""
    model = json.loads(tokenizer.to_str())["model"]
    ids: dict[str, int] = model["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_CONTROL if t in SPECIAL_TOKENS else _NORMAL for t in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": ids["<|endoftext|>"],
        "tokenizer.ggml.eos_token_id": ids["<|im_end|>"],
        "tokenizer.ggml.padding_token_id": ids["<|endoftext|>"],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def export_gguf(path: Path, state: dict[str, Tensor], cfg: DemoConfig, tokenizer: Tokenizer) -> None:
    """Write the file; raises PintpotError where it cannot be written."""
    tensors = gguf_tensors(state, cfg)
    declarations = [
        TensorDecl(name, GGMLType.F16 if is_half(name, array) else GGMLType.F32, array.shape[::-1])
        for name, array in tensors.items()
    ]
    with GGUFWriter(path, model_metadata(cfg) | tokenizer_metadata(tokenizer), declarations) as writer:
        for name, array in tensors.items():
            writer.write(name, array.astype(np.float16 if is_half(name, array) else np.float32))
