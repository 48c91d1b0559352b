"""Tiny random `transformers` models of every architecture, and running their GGUF twins."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import pintpot
from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl
from pintpot.kernels.api import Ops, Segment
from pintpot.models.base import Model
from pintpot.runtime.cache import ModelState
from pintpot.runtime.loader import load_model
from pintpot.spec.cache import KVType

N_VOCAB = 93
BASE: dict[str, Any] = {
    "vocab_size": N_VOCAB,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "attn_implementation": "eager",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS: dict[str, Any] = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16}
WINDOW = 7
SPECIALS = ("<pad>", "<s>", "</s>")


@dataclass(frozen=True)
class Case:
    config: str
    model: str
    changes: dict[str, Any]

    def save(self, folder: Path, model: Any = None, **options: Any) -> Path:
        """`folder` as `save_pretrained` writes it, with a tokenizer of one character a token."""
        (model or self.build()).save_pretrained(folder, **options)
        characters = [chr(33 + i) for i in range(N_VOCAB - len(SPECIALS))]
        added = [
            {"id": i, "content": text, "special": True, "normalized": False, "single_word": False}
            | {"lstrip": False, "rstrip": False}
            for i, text in enumerate(SPECIALS)
        ]
        vocab = {text: i for i, text in enumerate([*SPECIALS, *characters])}
        tokenizer = {
            "version": "1.0",
            "added_tokens": added,
            "pre_tokenizer": {
                "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
            },
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        }  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        return folder

    def build(self, seed: int = 0) -> Any:
        """The model in eval mode, float32, with weights large enough for every block to matter."""
        config = getattr(transformers, self.config)(**(BASE | self.changes))
        config._experts_implementation = "eager"
        model = getattr(transformers, self.model)(config).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in model.state_dict().items():
                p.copy_(_random(name, p, generator))
        return model


def _random(name: str, p: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(p.shape, generator=generator)
    if "norm" in name or name.endswith(("layer_scalar", "router.scale", "per_expert_scale")):
        is_offset = bool(torch.all(p == 0))  # Qwen 3.5's norms multiply by 1 + weight
        return 0.2 * noise + (0 if is_offset else 1)
    if name.endswith("A_log"):
        return 0.5 * noise
    if p.ndim < 2 or name.endswith("bias"):
        return 0.3 * noise
    if "embed_tokens" in name:
        return noise
    fan_in = p.shape[-2] if "gpt_oss_experts" in name else p.shape[-1]
    return noise * 1.5 / fan_in**0.5


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 1024,
}
QWEN35: dict[str, Any] = HEADS | {
    "num_hidden_layers": 5,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"] * 1
    + ["linear_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
    },
}
GEMMA4: dict[str, Any] = HEADS | {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "global_head_dim": 32,
    "sliding_window": WINDOW,
    "tie_word_embeddings": True,
    "intermediate_size": 80,
    "vocab_size_per_layer_input": N_VOCAB,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 12.0,
}
MOE = {"moe_intermediate_size": 40, "num_experts": 7, "num_experts_per_tok": 3}

CASES: dict[str, Case] = {
    "llama": Case("LlamaConfig", "LlamaForCausalLM", HEADS | {"intermediate_size": 80}),
    "llama-3-rope": Case(
        "LlamaConfig",
        "LlamaForCausalLM",
        HEADS | {"intermediate_size": 80, "rope_parameters": LLAMA3, "attention_bias": True},
    ),
    "llama-yarn": Case(
        "LlamaConfig",
        "LlamaForCausalLM",
        HEADS | {"intermediate_size": 80, "rope_parameters": YARN | {"attention_factor": 1.3}},
    ),
    "mistral": Case(
        "MistralConfig",
        "MistralForCausalLM",
        HEADS
        | {"intermediate_size": 80, "head_dim": 10, "sliding_window": None, "tie_word_embeddings": True},
    ),
    "mixtral": Case(
        "MixtralConfig",
        "MixtralForCausalLM",
        HEADS | {"intermediate_size": 40, "head_dim": 8, "num_local_experts": 5, "num_experts_per_tok": 2},
    ),
    "qwen2": Case(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        {"num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 80},
    ),
    "qwen3": Case(
        "Qwen3Config", "Qwen3ForCausalLM", HEADS | {"intermediate_size": 80, "tie_word_embeddings": True}
    ),
    "qwen3-yarn": Case(
        "Qwen3Config", "Qwen3ForCausalLM", HEADS | {"intermediate_size": 80, "rope_parameters": YARN}
    ),
    "qwen3-q8": Case("Qwen3Config", "Qwen3ForCausalLM", HEADS | {"intermediate_size": 80, "head_dim": 32}),
    "qwen3moe": Case("Qwen3MoeConfig", "Qwen3MoeForCausalLM", HEADS | MOE | {"norm_topk_prob": True}),
    "qwen35": Case("Qwen3_5TextConfig", "Qwen3_5ForCausalLM", QWEN35 | {"intermediate_size": 80}),
    "qwen35moe": Case(
        "Qwen3_5MoeTextConfig",
        "Qwen3_5MoeForCausalLM",
        QWEN35 | MOE | {"shared_expert_intermediate_size": 24},
    ),
    "gemma4": Case(
        "Gemma4TextConfig",
        "Gemma4ForCausalLM",
        GEMMA4 | {"attention_k_eq_v": True, "num_global_key_value_heads": 1},
    ),
    "gemma4-e": Case(
        "Gemma4TextConfig",
        "Gemma4ForCausalLM",
        GEMMA4
        | {
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "hidden_size_per_layer_input": 12,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
        },
    ),
    "gemma4-moe": Case(
        "Gemma4TextConfig",
        "Gemma4ForCausalLM",
        GEMMA4
        | {"enable_moe_block": True, "moe_intermediate_size": 40, "num_experts": 7, "top_k_experts": 3},
    ),
    "gpt-oss": Case(
        "GptOssConfig",
        "GptOssForCausalLM",
        HEADS
        | {
            "num_hidden_layers": 4,
            "intermediate_size": 40,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
            "rope_parameters": YARN | {"truncate": True},
        },
    ),
}


@dataclass(frozen=True)
class Converted:
    """A GGUF file in memory; tensors float32, outermost dimension first."""

    metadata: dict[str, Any]
    tensors: dict[str, np.ndarray]


def convert(case: Case, folder: Path) -> Converted:
    """The case as `pintpot.convert` writes it."""
    path = pintpot.convert(case.save(folder / "hf"), folder / "converted.gguf", force=True).path
    return read(path)


def read(path: Path) -> Converted:
    """An F32 file."""
    file = GGUFFile.open(path)
    tensors = {
        name: file.data(name).view("<f4").reshape(info.shape).copy() for name, info in file.tensors.items()
    }
    return Converted({key: file.metadata.raw(key) for key in file.metadata}, tensors)


def write(converted: Converted, path: Path) -> Path:
    """As an F32 file."""
    declared = [
        TensorDecl(name, GGMLType.F32, values.shape[::-1]) for name, values in converted.tensors.items()
    ]
    with GGUFWriter(path, converted.metadata, declared) as writer:
        for name, values in converted.tensors.items():
            writer.write(name, values)
    return path


def other_layout(converted: Converted, n_layer: int) -> Converted:
    """q, k and v as one tensor; gate and up experts as one where they are two, and the other way round."""
    tensors = dict(converted.tensors)
    for p in (f"blk.{i}." for i in range(n_layer)):
        if (both := tensors.pop(f"{p}ffn_gate_up_exps.weight", None)) is not None:
            tensors[f"{p}ffn_gate_exps.weight"], tensors[f"{p}ffn_up_exps.weight"] = np.split(both, 2, axis=1)
        else:
            _fuse(
                tensors, [f"{p}ffn_gate_exps.weight", f"{p}ffn_up_exps.weight"], f"{p}ffn_gate_up_exps.weight"
            )
        for ending in ("weight", "bias"):
            _fuse(tensors, [f"{p}attn_{x}.{ending}" for x in "qkv"], f"{p}attn_qkv.{ending}", axis=0)
    return Converted(converted.metadata, tensors)


def _fuse(tensors: dict[str, np.ndarray], parts: list[str], name: str, axis: int = 1) -> None:
    if all(part in tensors for part in parts):
        tensors[name] = np.concatenate([tensors.pop(part) for part in parts], axis=axis)


def load(name: str, folder: Path, ops: Ops, *, change_layout: bool = False) -> tuple[Any, Model]:
    """The `transformers` model of a case and its GGUF twin on `ops`."""
    hf = CASES[name].build()
    path = folder / f"{name}.gguf"
    pintpot.convert(CASES[name].save(folder / name, hf), path)
    if change_layout:
        path = write(other_layout(read(path), hf.config.num_hidden_layers), folder / f"{name}-other.gguf")
    return hf, load_model(GGUFFile.open(path), ops)


def tokens(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, N_VOCAB, n).astype(np.int32)


def hf_logits(hf: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = hf(torch.from_numpy(ids.astype(np.int64))[None], use_cache=False)
    return out.logits[0].float().numpy()


def new_state(model: Model, *, n_slots: int = 1, ctx_tokens: int = 256, n_batch: int = 256) -> ModelState:
    return ModelState(
        model, n_slots=n_slots, ctx_tokens=ctx_tokens, n_batch=n_batch, type_k=KVType.F32, type_v=KVType.F32
    )


def run(model: Model, state: ModelState, ids: np.ndarray, chunks: Sequence[int], slot: int = 0) -> np.ndarray:
    """Logits after every token, the prompt given in pieces of `chunks` tokens (the last repeated)."""
    sizes = itertools.chain(chunks, itertools.repeat(chunks[-1]))
    out = []
    past = 0
    while past < len(ids):
        n = min(next(sizes), len(ids) - past)
        batch = model.ops.batch([Segment(slot, past, n)])
        logits = model.forward(ids[past : past + n], batch, state, np.arange(n, dtype=np.int32))
        out.append(model.ops.to_numpy(logits).copy())
        past += n
    return np.concatenate(out)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference over the largest logit."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
