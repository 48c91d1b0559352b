"""Where every part of a model lies, as the loader obeys it: a solution without its estimates."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from pintpot.planner.limits import TensorRule, place_by_rules
from pintpot.planner.memory import step_bytes, stream_bytes
from pintpot.planner.placement import Problem, Solution
from pintpot.spec import AttentionLayer

LEAST_STREAM_TOKENS: Final = 4  # fewer are left to the CPU however fast the bus is: a copy has fixed costs
_USUAL_STREAM_TOKENS: Final = 16  # where nobody knows the bus; the design's figure for PCIe 4.0 x16
_LAYER: Final = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Residence:
    """Places of a model's parts; tuples have an entry for every layer, true says on the accelerator.

    A mixer's weights and cache lie together. Of routed experts `slots[i]` lie on the accelerator, whichever.
    What is not there lies in RAM and is computed there.
    """

    layers: tuple[bool, ...]
    mixers: tuple[bool, ...]
    slots: tuple[int, ...]
    head: bool
    tied_head: bool  # the head multiplies the embedding, which is looked up in RAM
    rules: tuple[TensorRule, ...]  # of -ot, for dense tensors of layers on the accelerator
    step_bytes: int  # of activations, and logits
    stream_bytes: int
    stream_tokens: int  # of one step, from which on an expert without a slot is streamed

    @property
    def any_on_accelerator(self) -> bool:
        return any(self.layers)

    def holds(self, *names: str) -> bool:
        """Whether all of these dense tensors lie on the accelerator: those of a layer where it does and no
        rule objects, others with the head."""
        return all(self._holds(name) for name in names)

    def _holds(self, name: str) -> bool:
        match = _LAYER.match(name)
        if match is None:
            return self.head
        return self.layers[int(match[1])] and place_by_rules(name, self.rules) is not False


def residence(problem: Problem, solution: Solution) -> Residence:
    """Where the parts of the problem's model lie in a solution of it.

    A mixer of which a rule keeps a part in RAM is all there. A layer that reads the keys and values of
    another is computed where those are.
    """
    spec, placed = problem.spec, solution.placement.dense_on_gpu
    mixers: list[bool] = []
    for i, layer in enumerate(spec.layers):
        owner = layer.mixer.kv_layer if isinstance(layer.mixer, AttentionLayer) else i
        there = placed[i] and not problem.model.layers[i].mixer_in_ram
        mixers.append(there if owner == i else there and mixers[owner])
    return Residence(
        layers=placed,
        mixers=tuple(mixers),
        slots=solution.placement.resident,
        head=solution.placement.output_on_gpu,
        tied_head=problem.model.tied_output,
        rules=problem.limits.override_tensors,
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
