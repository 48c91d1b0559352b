"""Where every part of a model lies, as the loader obeys it: a solution without its estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from pintpot.planner.memory import step_bytes, stream_bytes
from pintpot.planner.placement import Problem, Solution
from pintpot.spec import AttentionLayer

LEAST_STREAM_TOKENS: Final = 4  # fewer are left to the CPU however fast the bus is: a copy has fixed costs
_USUAL_STREAM_TOKENS: Final = 16  # where nobody knows the bus; the design's figure for PCIe 4.0 x16


@dataclass(frozen=True, slots=True)
class Residence:
    """Places of a model's parts; tuples have an entry for every layer, true says on the accelerator.

    A mixer's cache lies with it. `ffns` are dense feed-forward blocks, or routers and shared experts; of
    routed experts `slots[i]` lie there too, whichever. What is not there lies in RAM and is computed there.
    """

    layers: tuple[bool, ...]  # norms, and what belongs to no block
    mixers: tuple[bool, ...]
    ffns: tuple[bool, ...]
    slots: tuple[int, ...]
    head: bool
    tied_head: bool  # the head multiplies the embedding, which is looked up in RAM
    step_bytes: int  # of activations, and logits
    stream_bytes: int
    stream_tokens: int  # of one step, from which on an expert without a slot is streamed

    @property
    def any_on_accelerator(self) -> bool:
        return any(self.layers)


def residence(problem: Problem, solution: Solution) -> Residence:
    """Where the parts of the problem's model lie in a solution of it.

    A layer that reads the keys and values of another is computed where those are.
    """
    spec, placed = problem.spec, solution.placement.dense_on_gpu
    mixers = tuple(
        on_gpu and placed[layer.mixer.kv_layer] if isinstance(layer.mixer, AttentionLayer) else on_gpu
        for layer, on_gpu in zip(spec.layers, placed, strict=True)
    )
    return Residence(
        layers=placed,
        mixers=mixers,
        ffns=placed,
        slots=solution.placement.resident,
        head=solution.placement.output_on_gpu,
        tied_head=problem.model.tied_output,
        step_bytes=step_bytes(spec, solution.settings.n_batch),
        stream_bytes=stream_bytes(problem.model),
        stream_tokens=_stream_tokens(problem),
    )


def _stream_tokens(problem: Problem) -> int:
    """Tokens for which the CPU takes as long to multiply an expert as the bus takes to carry it."""
    rate = problem.rates
    experts = [layer for layer in problem.model.layers if layer.routed_macs]
    if not experts or not rate.pcie_bytes:
        return _USUAL_STREAM_TOKENS
    tokens = max(
        rate.cpu_macs * layer.expert / (rate.pcie_bytes * layer.routed_macs / layer.n_expert_used)
        for layer in experts
    )
    return max(LEAST_STREAM_TOKENS, math.ceil(tokens))
