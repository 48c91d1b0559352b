"""Real shapes, from the model catalog, and toy ones for tests.

A toy has every dimension of its architecture different where the format allows, yet row lengths of 256 so
that every K-quant applies.
"""

from __future__ import annotations

from dataclasses import replace

from pintpot.errors import UsageError
from pintpot.spec import RopeScaling
from pintpot.spec.shape import DeltaNet, Experts, PerLayerEmbedding, Shape, Sliding
from pintpot.store.catalog import find

# Presets by the names `pintpot synth` has always had; other models of the catalog go by their own.
_CATALOG_NAMES = {
    "llama-3.1-8b": "llama3.1:8b",
    "mistral-7b": "mistral:7b",
    "mistral-small-24b": "mistral-small:24b",
    "mixtral-8x7b": "mixtral:8x7b",
    "qwen2.5-7b": "qwen2.5:7b",
    "qwen3-4b": "qwen3:4b",
    "qwen3-8b": "qwen3:8b",
    "qwen3-30b-a3b": "qwen3:30b-a3b",
    "qwen3.5-4b": "qwen3.5:4b",
    "qwen3.5-9b": "qwen3.5:9b",
    "qwen3.5-35b-a3b": "qwen3.5:35b-a3b",
    "gemma-4-e2b": "gemma4:e2b",
    "gemma-4-e4b": "gemma4:e4b",
    "gemma-4-31b": "gemma4:31b",
    "gemma-4-26b-a4b": "gemma4:26b-a4b",
    "gpt-oss-20b": "gpt-oss:20b",
}


def _catalog_shape(name: str) -> Shape:
    """The shape of a model of the catalog. Raises UsageError when there is none that this version runs."""
    entry, _ = find(name)
    if not entry.runnable:
        raise UsageError(f"{entry.name}: architecture {entry.arch} is not supported")
    return replace(entry.shape, name=f"{entry.name} (synthetic)")


PRESETS: dict[str, Shape] = {preset: _catalog_shape(name) for preset, name in _CATALOG_NAMES.items()}

# What `--preset` means when only an architecture is given.
DEFAULT_PRESET: dict[str, str] = {
    "llama": "llama-3.1-8b",
    "qwen2": "qwen2.5-7b",
    "qwen3": "qwen3-4b",
    "qwen3moe": "qwen3-30b-a3b",
    "qwen35": "qwen3.5-4b",
    "qwen35moe": "qwen3.5-35b-a3b",
    "gemma4": "gemma-4-e4b",
    "gpt-oss": "gpt-oss-20b",
}

_TOYS = {
    "llama": Shape(
        arch="llama", name="toy llama", n_layer=4, n_embd=256, n_vocab=353, n_head=8, n_head_kv=2,
        head_dim=96, n_ff=512, ctx_train=4096, norm_eps=1e-5, rope_theta=10000.0,
    ),
    "mixtral": Shape(
        arch="llama", name="toy mixtral", n_layer=3, n_embd=512, n_vocab=347, n_head=4, n_head_kv=2,
        head_dim=64, n_ff=256, ctx_train=4096, norm_eps=1e-5, rope_theta=1e6, experts=Experts(7, 3, 256),
    ),
    "qwen2": Shape(
        arch="qwen2", name="toy qwen2", n_layer=4, n_embd=256, n_vocab=359, n_head=4, n_head_kv=2,
        head_dim=64, n_ff=768, ctx_train=4096, rope_theta=1e6, qkv_bias=True,
    ),
    "qwen3": Shape(
        arch="qwen3", name="toy qwen3", n_layer=4, n_embd=256, n_vocab=331, n_head=6, n_head_kv=3,
        head_dim=128, n_ff=512, ctx_train=4096, rope_theta=1e6, qk_norm=True, tied=True,
    ),
    "qwen3moe": Shape(
        arch="qwen3moe", name="toy qwen3moe", n_layer=3, n_embd=256, n_vocab=367, n_head=6, n_head_kv=2,
        head_dim=128, n_ff=768, ctx_train=4096, rope_theta=1e6, qk_norm=True, experts=Experts(10, 4, 512),
    ),
    "qwen35": Shape(
        arch="qwen35", name="toy qwen35", n_layer=4, n_embd=256, n_vocab=349, n_head=8, n_head_kv=2,
        head_dim=64, n_ff=768, ctx_train=4096, rope_theta=1e6, rope_dim=16, rope_sections=(3, 3, 2, 0),
        qk_norm=True, delta=DeltaNet(2, 6, 128),
    ),
    "qwen35moe": Shape(
        arch="qwen35moe", name="toy qwen35moe", n_layer=4, n_embd=256, n_vocab=373, n_head=4, n_head_kv=2,
        head_dim=128, n_ff=0, ctx_train=4096, rope_theta=1e6, rope_dim=32, rope_sections=(6, 5, 5, 0),
        qk_norm=True, delta=DeltaNet(3, 6, 128), experts=Experts(10, 4, 256, 512),
    ),
    "gemma4": Shape(
        arch="gemma4", name="toy gemma4 dense", n_layer=6, n_embd=256, n_vocab=337, n_head=8, n_head_kv=2,
        head_dim=64, n_ff=768, ctx_train=4096, rope_theta=1e6, tied=True, qk_norm=True, k_eq_v=True,
        sliding=Sliding(24, 3, 4, 32, 10000.0), logit_softcap=8.0,
    ),
    "gemma4-e": Shape(
        arch="gemma4", name="toy gemma4 E", n_layer=8, n_embd=256, n_vocab=341, n_head=8, n_head_kv=4,
        head_dim=64, n_ff=512, ctx_train=4096, rope_theta=1e6, tied=True, qk_norm=True,
        sliding=Sliding(24, 4, 4, 32, 10000.0), logit_softcap=8.0,
        per_layer=PerLayerEmbedding(32, 4, double_wide=True),
    ),
    "gemma4-moe": Shape(
        arch="gemma4", name="toy gemma4 MoE", n_layer=3, n_embd=256, n_vocab=343, n_head=8, n_head_kv=2,
        head_dim=64, n_ff=512, ctx_train=4096, rope_theta=1e6, tied=True, qk_norm=True, k_eq_v=True,
        sliding=Sliding(24, 3, 4, 32, 10000.0), logit_softcap=8.0, experts=Experts(10, 4, 256),
        fused_gate_up=True,
    ),
    "gpt-oss": Shape(
        arch="gpt-oss", name="toy gpt-oss", n_layer=4, n_embd=256, n_vocab=379, n_head=12, n_head_kv=4,
        head_dim=64, n_ff=256, ctx_train=4096, norm_eps=1e-5, rope_theta=150000.0,
        rope_scaling=RopeScaling("yarn", 8.0, 512), qkv_bias=True, sliding=Sliding(20, 2),
        experts=Experts(7, 4, 512),
    ),
}  # fmt: skip
# Too small for topics. Router logits are far apart, so that the last of the chosen experts weighs little: a
# tie that rounding decides otherwise elsewhere hardly shows.
TOYS: dict[str, Shape] = {name: replace(shape, n_topic=1, router_std=3.0) for name, shape in _TOYS.items()}


def find_shape(arch: str, preset: str | None = None) -> Shape:
    """The shape for `pintpot synth ARCH --preset NAME`. ARCH may itself be a preset's name; a preset may be
    any model of the catalog; "toy" gives the architecture's toy. Raises UsageError naming the choices."""
    if preset == "toy":
        if arch not in TOYS:
            raise UsageError(f"no toy shape for '{arch}'; choose one of: {', '.join(TOYS)}")
        return TOYS[arch]
    if preset is None:
        preset = DEFAULT_PRESET.get(arch, arch)
    shape = PRESETS.get(preset)
    if shape is None:
        try:
            shape = _catalog_shape(preset)
        except UsageError as error:
            known = ", ".join([*DEFAULT_PRESET, *PRESETS])
            raise UsageError(
                f"unknown architecture or preset '{preset}'; choose one of: {known}, or a model of the"
                f" catalog ({error})"
            ) from error
    if arch not in (shape.arch, preset):
        raise UsageError(f"--preset {preset} is of architecture '{shape.arch}', not '{arch}'")
    return shape
