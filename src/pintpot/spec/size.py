"""How big a model is: parameters, and bytes by tensor type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pintpot.gguf.reader import GGUFFile, TensorInfo
from pintpot.spec.layers import MoEFFN
from pintpot.spec.model import ModelSpec


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Counts over all tensors of a file."""

    n_params: int
    # Used for one token: without unselected experts, MTP layers, and rows of per-layer embeddings that are
    # only looked up.
    n_params_active: int
    n_params_experts: int  # of all routed experts
    weights_bytes: int
    experts_bytes: int
    bytes_by_type: Mapping[str, int]  # largest first


def measure(file: GGUFFile, spec: ModelSpec | None = None) -> ModelSize:
    """Sizes of `file`; without a spec every parameter counts as active."""
    by_type: defaultdict[str, int] = defaultdict(int)
    params = active = expert_params = expert_bytes = 0
    for info in file.tensors.values():
        by_type[info.type_name] += info.nbytes
        params += info.n_values
        active += info.n_values if spec is None else _active(info, spec)
        if is_expert(info.name):
            expert_params += info.n_values
            expert_bytes += info.nbytes
    ordered = dict(sorted(by_type.items(), key=lambda item: -item[1]))
    return ModelSize(
        n_params=params,
        n_params_active=active,
        n_params_experts=expert_params,
        weights_bytes=sum(ordered.values()),
        experts_bytes=expert_bytes,
        bytes_by_type=MappingProxyType(ordered),
    )


def is_expert(name: str) -> bool:
    """Whether the tensor holds one matrix (or vector) for each routed expert."""
    return "_exps." in name


def summarize_types(file: GGUFFile) -> str:
    """The types that make up the file, largest first, such as `Q4_K + Q6_K`; those under 5% are left out."""
    size = measure(file)
    return " + ".join(name for name, n in size.bytes_by_type.items() if n >= 0.05 * size.weights_bytes)


def _active(info: TensorInfo, spec: ModelSpec) -> int:
    if info.name.startswith("per_layer_token_embd."):
        return 0
    parts = info.name.split(".", 2)
    if parts[0] != "blk" or len(parts) < 3 or not parts[1].isdecimal():
        return info.n_values
    layer = int(parts[1])
    if layer >= spec.n_layer:
        return 0
    ffn = spec.layers[layer].ffn
    if isinstance(ffn, MoEFFN) and is_expert(info.name):
        return info.n_values * ffn.n_expert_used // ffn.n_expert
    return info.n_values
