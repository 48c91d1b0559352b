"""What config.json says of a model: its architecture, and its shape as GGUF metadata.

Keys and their meaning are those of llama.cpp's converter (conversion/*.py); values that a config.json may
leave out are the defaults of the model's configuration class in transformers. Nothing else is filled in: a
key that is missing is an error, and a setting the engine's formulas do not cover is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.gguf import Typed, ValueType
from pintpot.hf.config import Config, read_json
from pintpot.hf.rope import read_rope, rope_metadata

Metadata: TypeAlias = dict[str, Any]  # a value of GGUFWriter's metadata each

# `model_type`, of the language model where there are several, to general.architecture.
ARCHITECTURES: Final = MappingProxyType(
    {
        "llama": "llama",
        "mistral": "llama",
        "mixtral": "llama",
        "qwen2": "qwen2",
        "qwen3": "qwen3",
        "qwen3_moe": "qwen3moe",
        "qwen3_5": "qwen35",
        "qwen3_5_text": "qwen35",
        "qwen3_5_moe": "qwen35moe",
        "qwen3_5_moe_text": "qwen35moe",
        "gemma4": "gemma4",
        "gemma4_text": "gemma4",
        "gpt_oss": "gpt-oss",
    }
)
# Settings that only this value is converted of; a config that does not state them has it.
_FIXED: Final[MappingProxyType[str, dict[str, object]]] = MappingProxyType(
    {
        "llama": {"hidden_act": "silu", "mlp_bias": False},
        "qwen2": {"hidden_act": "silu"},
        "qwen3": {"hidden_act": "silu"},
        "qwen3moe": {"hidden_act": "silu", "decoder_sparse_step": 1, "mlp_only_layers": []},
        "qwen35": {"hidden_act": "silu", "attn_output_gate": True},
        "qwen35moe": {"hidden_act": "silu", "attn_output_gate": True, "mlp_only_layers": []},
        "gemma4": {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
        "gpt-oss": {"hidden_act": "silu", "swiglu_limit": 7.0, "swiglu_alpha": 1.702},
    }
)
# Architectures whose files llama.cpp's converter gives a rope.dimension_count of a whole head.
_STATES_ROPE_DIM: Final = frozenset({"llama", "gemma4"})


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """`text` describes the language model; `tied`: the output head is the embedding, None if not stated."""

    arch: str
    text: Config
    tied: bool | None
    quantization: str | None

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Raises UnsupportedError for a model this version does not convert, ModelFileError for a config.json
        that is damaged or incomplete."""
        path = folder / "config.json"
        if not path.exists():
            raise ModelFileError(f"{folder}: has no config.json: not a Hugging Face model folder")
        outer = Config(path, read_json(path))
        text = outer.section("text_config") if "text_config" in outer else outer
        kind = text.text("model_type")
        arch = ARCHITECTURES.get(kind)
        if arch is None:
            raise UnsupportedError(
                f"{path}: model_type {kind!r} is not converted, these are: {', '.join(ARCHITECTURES)}"
            )
        tied: bool | None = None
        for config in (outer, text):  # the outer one says how the whole model is put together
            if tied is None and "tie_word_embeddings" in config:
                tied = config.flag("tie_word_embeddings", False)
        if tied is None and arch == "gemma4":
            tied = True
        _check_fixed(arch, text)
        method = _quantization(outer)
        if method is not None and (arch, method) != ("gpt-oss", "mxfp4"):
            raise UnsupportedError(
                f"{path}: the weights are quantized ({method}): convert the original, unquantized model"
            )
        return cls(arch, text, tied, method)

    @property
    def n_layer(self) -> int:
        return self.text.integer("num_hidden_layers")

    @property
    def kind(self) -> str:
        return self.text.text("model_type")

    @property
    def n_head(self) -> int:
        return self.text.integer("num_attention_heads")

    @property
    def n_head_kv(self) -> int:
        """Of windowed layers where others differ. Llama 1 does not state it: every head has its own."""
        return self.text.integer("num_key_value_heads", self.n_head if self.kind == "llama" else None)

    @property
    def head_dim(self) -> int:
        """Of windowed layers where others differ."""
        is_share = self.kind in ("llama", "mistral", "mixtral", "qwen2")
        share = max(self.text.integer("hidden_size") // self.n_head, 1) if is_share else None
        return self.text.integer("head_dim", share)

    @property
    def layer_types(self) -> list[str] | None:
        return self.text.texts("layer_types", self.n_layer) if "layer_types" in self.text else None

    def metadata(self, n_mtp: int) -> Metadata:
        """`{arch}.*`. `n_mtp`: multi-token prediction layers that follow the model's own.

        Raises ModelFileError for a key that is missing or has an impossible value.
        """
        values = self._common(n_mtp)
        extra = _EXTRA.get(self.arch)
        if extra is not None:
            values |= extra(self, n_mtp)
        return {f"{self.arch}.{key}": value for key, value in values.items()}

    def notes(self) -> list[str]:
        """What the config asks for and a GGUF file of this architecture cannot say."""
        windowed = "sliding_window" in self.text and self.text.flag("use_sliding_window", True)
        if self.arch in ("gemma4", "gpt-oss") or not windowed:
            return []
        window = self.text.integer("sliding_window")
        if window >= self.text.integer("max_position_embeddings"):
            return []
        return [
            f"the attention window of {window} tokens is left out, {self.arch} files have none:"
            " in longer contexts every layer sees everything"
        ]

    def _common(self, n_mtp: int) -> Metadata:
        text = self.text
        rope = read_rope(text, self.kind)
        out: Metadata = {
            "block_count": self.n_layer + n_mtp,
            "context_length": text.integer("max_position_embeddings"),
            "embedding_length": text.integer("hidden_size"),
            "vocab_size": text.integer("vocab_size"),
            "attention.head_count": self.n_head,
            "attention.head_count_kv": self.n_head_kv,
            "attention.layer_norm_rms_epsilon": text.number("rms_norm_eps"),
        }
        if "head_dim" in text or self.head_dim * self.n_head != text.integer("hidden_size"):
            out |= {"attention.key_length": self.head_dim, "attention.value_length": self.head_dim}
        if "intermediate_size" in text:
            out["feed_forward_length"] = text.integer("intermediate_size")
        partial = rope.partial_rotary_factor
        if self.arch in _STATES_ROPE_DIM or partial != 1.0:
            out["rope.dimension_count"] = int(self.head_dim * partial)
        return out | rope_metadata(rope)


def _check_fixed(arch: str, text: Config) -> None:
    for key, expected in _FIXED[arch].items():
        if key in text and text.values[key] != expected:
            raise UnsupportedError(
                f"{text.path}: {key} is {text.values[key]!r}, {arch} models are run with {expected!r} only"
            )


def _quantization(outer: Config) -> str | None:
    """`quantization_config`'s method; None for plain weights."""
    if "quantization_config" not in outer:
        return None
    return outer.section("quantization_config").text("quant_method")


def _mixtral(m: ModelConfig, _n_mtp: int) -> Metadata:
    if m.kind != "mixtral":
        return {}
    return {
        "expert_count": m.text.integer("num_local_experts"),
        "expert_used_count": m.text.integer("num_experts_per_tok"),
    }


def _experts(m: ModelConfig, _n_mtp: int) -> Metadata:
    out = {
        # transformers 5 saves Qwen 3's num_experts under this name
        "expert_count": m.text.integer(
            "num_local_experts" if "num_local_experts" in m.text else "num_experts"
        ),
        "expert_used_count": m.text.integer("num_experts_per_tok"),
        "expert_feed_forward_length": m.text.integer("moe_intermediate_size"),
    }
    if "shared_expert_intermediate_size" in m.text:
        shared = m.text.integer("shared_expert_intermediate_size")
        out["expert_shared_feed_forward_length"] = shared
    return out


def _qwen3moe(m: ModelConfig, n_mtp: int) -> Metadata:
    if not m.text.flag("norm_topk_prob", False):
        raise UnsupportedError(
            f"{m.text.path}: norm_topk_prob is not true, qwen3moe models are run with normalized weights only"
        )
    return _experts(m, n_mtp)


def _qwen35(m: ModelConfig, n_mtp: int) -> Metadata:
    text = m.text
    value_dim = text.integer("linear_value_head_dim")
    if value_dim != text.integer("linear_key_head_dim"):
        raise text.error("linear_value_head_dim", "differs from linear_key_head_dim, GGUF has one size")
    n_value_heads = text.integer("linear_num_value_heads")
    out: Metadata = {
        "ssm.conv_kernel": text.integer("linear_conv_kernel_dim"),
        "ssm.state_size": value_dim,
        "ssm.group_count": text.integer("linear_num_key_heads"),
        "ssm.time_step_rank": n_value_heads,
        "ssm.inner_size": value_dim * n_value_heads,
    }
    if n_mtp:
        out["nextn_predict_layers"] = n_mtp
    types = m.layer_types
    if types is None:
        return out | {"full_attention_interval": text.integer("full_attention_interval", 4)}
    recurrent = [kind == "linear_attention" for kind in types]
    out["attention.recurrent_layers"] = recurrent + [False] * n_mtp
    interval = types.index("full_attention") + 1 if "full_attention" in types else len(types) + 1
    if recurrent == [(i + 1) % interval != 0 for i in range(len(types))]:
        out["full_attention_interval"] = interval  # for readers that know no list
    return out


def _gemma4(m: ModelConfig, _n_mtp: int) -> Metadata:
    text = m.text
    if text.values.get("use_bidirectional_attention") == "all":
        raise text.error("use_bidirectional_attention", "is 'all', only causal models are run")
    types = m.layer_types
    if types is None or "full_attention" not in types:
        raise text.error("layer_types", "is missing or has no full_attention layer")
    windowed = [kind == "sliding_attention" for kind in types]
    full = _gemma4_full_layers(m, types.index("full_attention"))
    n_shared = text.integer("num_kv_shared_layers", 0, low=0)
    out: Metadata = {
        "attention.head_count_kv": [m.n_head_kv if w else full["num_key_value_heads"] for w in windowed],
        "attention.key_length": full["head_dim"],
        "attention.value_length": full["head_dim"],
        "attention.key_length_swa": m.head_dim,
        "attention.value_length_swa": m.head_dim,
        "attention.sliding_window": text.integer("sliding_window"),
        "attention.sliding_window_pattern": windowed,
        "attention.shared_kv_layers": n_shared,
        "embedding_length_per_layer_input": text.integer("hidden_size_per_layer_input", low=0),
        # All of a head: what full attention does not rotate, rope_freqs.weight says.
        "rope.dimension_count": full["head_dim"],
        "rope.dimension_count_swa": m.head_dim,
    }
    if text.flag("use_double_wide_mlp", False):
        width, first_shared = text.integer("intermediate_size"), m.n_layer - n_shared
        out["feed_forward_length"] = [width * (1 + (i >= first_shared)) for i in range(m.n_layer)]
    if "final_logit_softcapping" in text:
        out["final_logit_softcapping"] = text.number("final_logit_softcapping")
    if text.flag("enable_moe_block", False):
        out |= {
            "expert_count": text.integer("num_experts"),
            "expert_used_count": text.integer("top_k_experts"),
            "expert_feed_forward_length": text.integer("moe_intermediate_size"),
        }
    return out


def _gemma4_full_layers(m: ModelConfig, first: int) -> dict[str, int]:
    """Head size and KV heads of full attention layers: stated per layer, or by keys of their own."""
    if "per_layer_config" in m.text:
        layer = m.text.section("per_layer_config").section(str(first))
        return {
            "head_dim": layer.integer("head_dim", m.head_dim),
            "num_key_value_heads": layer.integer("num_key_value_heads", m.n_head_kv),
        }
    own_heads = m.text.flag("attention_k_eq_v", False) and "num_global_key_value_heads" in m.text
    return {
        "head_dim": m.text.integer("global_head_dim"),
        "num_key_value_heads": m.text.integer("num_global_key_value_heads") if own_heads else m.n_head_kv,
    }


def _gpt_oss(m: ModelConfig, _n_mtp: int) -> Metadata:
    out: Metadata = {
        "expert_count": m.text.integer("num_local_experts"),
        "expert_used_count": m.text.integer("num_experts_per_tok"),
        "expert_feed_forward_length": m.text.integer("intermediate_size"),
        "attention.sliding_window": m.text.integer("sliding_window"),
    }
    windowed = [kind == "sliding_attention" for kind in m.layer_types or ()]
    if windowed and windowed != [i % 2 == 0 for i in range(m.n_layer)]:  # what files without the key mean
        pattern = Typed(ValueType.ARRAY, windowed, ValueType.BOOL)
        out["attention.sliding_window_pattern"] = pattern
    return out


_EXTRA: Final[MappingProxyType[str, Callable[[ModelConfig, int], Metadata]]] = MappingProxyType(
    {
        "llama": _mixtral,
        "qwen3moe": _qwen3moe,
        "qwen35": _qwen35,
        "qwen35moe": lambda m, n: _experts(m, n) | _qwen35(m, n),
        "gemma4": _gemma4,
        "gpt-oss": _gpt_oss,
    }
)
