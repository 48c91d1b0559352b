"""What the hybrid path asks of an accelerator: ops with a memory of their own, and expert slots in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pintpot.errors import PintpotError
from pintpot.kernels.api import F32, I32, Array, MoEWeights, Ops, Prepared, TensorView
from pintpot.kernels.memory import MemoryBudget


class Accelerator(Ops):
    """Weights handed over are copied into its memory, caches are allocated there, and every byte of both is
    counted in `memory`, which raises AcceleratorMemoryError. Arrays of a step are the caller's to count.

    A *routed* MoE layer holds router, shared expert, and a number of slots, each as large as one expert of
    this layer. Which expert lies in which slot is the caller's business.
    """

    memory: MemoryBudget

    @abstractmethod
    def upload(self, x: F32) -> Array:
        """A copy of a host array, float32 [n, width]."""

    @abstractmethod
    def routed_layer(self, w: MoEWeights, n_slots: int, *, with_router: bool = True) -> Prepared:
        """A MoE layer whose `n_slots` slots are empty. `with_router` False: it is never asked to route."""

    @abstractmethod
    def with_slots(self, layer: Prepared, n_slots: int) -> Prepared:
        """`layer` with `n_slots` empty slots in the place of its own, which are freed before: `layer` itself
        is of no use afterwards."""

    @abstractmethod
    def explain(self, error: BaseException) -> PintpotError | None:
        """What the device failed with, in one line; None where `error` is none of its own."""

    @abstractmethod
    def write_slot(self, layer: Prepared, slot: int, expert: int) -> int:
        """Copies an expert from the file into a slot; returns the bytes copied."""

    @abstractmethod
    def route(self, x: Array, layer: Prepared) -> tuple[I32, F32]:
        """The chosen experts of each token and their weights, [n_tokens, n_expert_used], on the host."""

    @abstractmethod
    def slot_experts(self, x: Array, layer: Prepared, slots: I32, weights: F32) -> Array:
        """The sum of weights * expert(x) over `slots` ([n_tokens, n_expert_used]; negative: computed
        elsewhere), plus the shared expert where there is one."""

    @abstractmethod
    def reserve_stream(self, n_bytes: int) -> None:
        """Makes the buffers that `add_streamed` needs, once, before any layer is used."""

    @abstractmethod
    def add_streamed(
        self, x: Array, layer: Prepared, experts: Sequence[int], ids: I32, weights: F32, out: Array
    ) -> int:
        """Adds to `out` the contributions of experts that have no slot, wherever `ids` names them: they pass
        through the stream's buffers, one copied while the other is computed. Returns the bytes copied."""


def expert_parts(w: MoEWeights) -> tuple[TensorView | F32, ...]:
    """What an expert consists of, in the order of its bytes in a slot: gate, up, down; then vectors."""
    vectors = (w.gate_bias, w.up_bias, w.down_bias, w.down_scale)
    return (w.gate, w.up, w.down, *(v for v in vectors if v is not None))


def expert_bytes(w: MoEWeights) -> int:
    """Bytes of one routed expert, as the file has them."""
    return sum(
        part.rows * part.row_bytes if isinstance(part, TensorView) else part[0].nbytes
        for part in expert_parts(w)
    )


def copy_expert(w: MoEWeights, expert: int, out: npt.NDArray[np.uint8]) -> None:
    """Writes an expert's bytes, uint8 [expert_bytes]."""
    start = 0
    for part in expert_parts(w):
        if isinstance(part, TensorView):
            first = expert * part.mat_stride
            data = part.data[first : first + part.rows * part.row_bytes]
        else:
            data = np.ascontiguousarray(part[expert : expert + 1]).view(np.uint8).reshape(-1)
        out[start : start + data.nbytes] = data
        start += data.nbytes
