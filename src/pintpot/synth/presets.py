"""Real shapes, from the models' published configurations, and toy ones for tests.

Sources: the `config.json` of each model as transformers' configuration classes document it, and, for what
GGUF files hold, llama.cpp's converters. A toy has every dimension of its architecture different where
the format allows, yet row lengths of 256 so that every K-quant applies.
"""

from __future__ import annotations

from dataclasses import replace

from pintpot.errors import UsageError
from pintpot.spec import RopeScaling
from pintpot.spec.shape import DeltaNet, Experts, PerLayerEmbedding, Shape, Sliding

PRESETS: dict[str, Shape] = {
    "llama-3.1-8b": Shape(
        arch="llama", name="Llama 3.1 8B (synthetic)", n_layer=32, n_embd=4096, n_vocab=128256,
        n_head=32, n_head_kv=8, head_dim=128, n_ff=14336, ctx_train=131072, norm_eps=1e-5,
        rope_theta=500000.0, llama3_ctx=8192,
    ),
    "mistral-7b": Shape(
        arch="llama", name="Mistral 7B v0.3 (synthetic)", n_layer=32, n_embd=4096, n_vocab=32768,
        n_head=32, n_head_kv=8, head_dim=128, n_ff=14336, ctx_train=32768, norm_eps=1e-5,
        rope_theta=1e6,
    ),
    "mistral-small-24b": Shape(
        arch="llama", name="Mistral Small 24B (synthetic)", n_layer=40, n_embd=5120, n_vocab=131072,
        n_head=32, n_head_kv=8, head_dim=128, n_ff=32768, ctx_train=32768, norm_eps=1e-5,
        rope_theta=1e8,
    ),
    "mixtral-8x7b": Shape(
        arch="llama", name="Mixtral 8x7B (synthetic)", n_layer=32, n_embd=4096, n_vocab=32000,
        n_head=32, n_head_kv=8, head_dim=128, n_ff=14336, ctx_train=32768, norm_eps=1e-5,
        rope_theta=1e6, experts=Experts(8, 2, 14336),
    ),
    "qwen2.5-7b": Shape(
        arch="qwen2", name="Qwen2.5 7B (synthetic)", n_layer=28, n_embd=3584, n_vocab=152064,
        n_head=28, n_head_kv=4, head_dim=128, n_ff=18944, ctx_train=32768, rope_theta=1e6,
        qkv_bias=True,
    ),
    "qwen3-4b": Shape(
        arch="qwen3", name="Qwen3 4B (synthetic)", n_layer=36, n_embd=2560, n_vocab=151936,
        n_head=32, n_head_kv=8, head_dim=128, n_ff=9728, ctx_train=40960, rope_theta=1e6,
        qk_norm=True, tied=True,
    ),
    "qwen3-8b": Shape(
        arch="qwen3", name="Qwen3 8B (synthetic)", n_layer=36, n_embd=4096, n_vocab=151936,
        n_head=32, n_head_kv=8, head_dim=128, n_ff=12288, ctx_train=40960, rope_theta=1e6,
        qk_norm=True,
    ),
    "qwen3-30b-a3b": Shape(
        arch="qwen3moe", name="Qwen3 30B-A3B (synthetic)", n_layer=48, n_embd=2048, n_vocab=151936,
        n_head=32, n_head_kv=4, head_dim=128, n_ff=6144, ctx_train=40960, rope_theta=1e6,
        qk_norm=True, experts=Experts(128, 8, 768),
    ),
    "qwen3.5-4b": Shape(
        arch="qwen35", name="Qwen3.5 4B (synthetic)", n_layer=32, n_embd=2560, n_vocab=248320,
        n_head=16, n_head_kv=4, head_dim=256, n_ff=9216, ctx_train=262144, rope_theta=1e7,
        rope_dim=64, rope_sections=(11, 11, 10, 0), qk_norm=True, tied=True,
        delta=DeltaNet(16, 32, 128),
    ),
    "qwen3.5-9b": Shape(
        arch="qwen35", name="Qwen3.5 9B (synthetic)", n_layer=32, n_embd=4096, n_vocab=248320,
        n_head=16, n_head_kv=4, head_dim=256, n_ff=12288, ctx_train=262144, rope_theta=1e7,
        rope_dim=64, rope_sections=(11, 11, 10, 0), qk_norm=True, delta=DeltaNet(16, 32, 128),
    ),
    "qwen3.5-35b-a3b": Shape(
        arch="qwen35moe", name="Qwen3.5 35B-A3B (synthetic)", n_layer=40, n_embd=2048, n_vocab=248320,
        n_head=16, n_head_kv=2, head_dim=256, n_ff=0, ctx_train=262144, rope_theta=1e7, rope_dim=64,
        rope_sections=(11, 11, 10, 0), qk_norm=True, delta=DeltaNet(16, 32, 128),
        experts=Experts(256, 8, 512, 512),
    ),
    "gemma-4-e2b": Shape(
        arch="gemma4", name="Gemma 4 E2B (synthetic)", n_layer=35, n_embd=1536, n_vocab=262144,
        n_head=8, n_head_kv=1, head_dim=512, n_ff=6144, ctx_train=131072, rope_theta=1e6, tied=True,
        qk_norm=True, sliding=Sliding(512, 5, 1, 256, 10000.0), logit_softcap=30.0,
        per_layer=PerLayerEmbedding(256, 20, double_wide=True),
    ),
    "gemma-4-e4b": Shape(
        arch="gemma4", name="Gemma 4 E4B (synthetic)", n_layer=42, n_embd=2560, n_vocab=262144,
        n_head=8, n_head_kv=2, head_dim=512, n_ff=10240, ctx_train=131072, rope_theta=1e6, tied=True,
        qk_norm=True, sliding=Sliding(512, 6, 2, 256, 10000.0), logit_softcap=30.0,
        per_layer=PerLayerEmbedding(256, 18),
    ),
    "gemma-4-31b": Shape(
        arch="gemma4", name="Gemma 4 31B (synthetic)", n_layer=60, n_embd=5376, n_vocab=262144,
        n_head=32, n_head_kv=4, head_dim=512, n_ff=21504, ctx_train=262144, rope_theta=1e6, tied=True,
        qk_norm=True, sliding=Sliding(1024, 6, 16, 256, 10000.0), logit_softcap=30.0, k_eq_v=True,
    ),
    "gemma-4-26b-a4b": Shape(
        arch="gemma4", name="Gemma 4 26B-A4B (synthetic)", n_layer=30, n_embd=2816, n_vocab=262144,
        n_head=16, n_head_kv=2, head_dim=512, n_ff=2112, ctx_train=262144, rope_theta=1e6, tied=True,
        qk_norm=True, sliding=Sliding(1024, 6, 8, 256, 10000.0), logit_softcap=30.0, k_eq_v=True,
        experts=Experts(128, 8, 704), fused_gate_up=True,
    ),
    "gpt-oss-20b": Shape(
        arch="gpt-oss", name="gpt-oss 20B (synthetic)", n_layer=24, n_embd=2880, n_vocab=201088,
        n_head=64, n_head_kv=8, head_dim=64, n_ff=2880, ctx_train=131072, norm_eps=1e-5,
        rope_theta=150000.0, rope_scaling=RopeScaling("yarn", 32.0, 4096), qkv_bias=True,
        sliding=Sliding(128, 2), experts=Experts(32, 4, 2880),
    ),
}  # fmt: skip

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
    """The shape for `pintpot synth ARCH --preset NAME`. ARCH may itself be a preset's name; preset "toy"
    gives the architecture's toy. Raises UsageError naming the choices."""
    if preset == "toy":
        if arch not in TOYS:
            raise UsageError(f"no toy shape for '{arch}'; choose one of: {', '.join(TOYS)}")
        return TOYS[arch]
    if preset is None:
        preset = DEFAULT_PRESET.get(arch, arch)
    if preset not in PRESETS:
        known = ", ".join([*DEFAULT_PRESET, *PRESETS])
        raise UsageError(f"unknown architecture or preset '{preset}'; choose one of: {known}")
    shape = PRESETS[preset]
    if arch not in (shape.arch, preset):
        raise UsageError(f"--preset {preset} is of architecture '{shape.arch}', not '{arch}'")
    return shape
