"""Muon for the matrices of the blocks, AdamW for the rest, under one learning-rate factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from demo.model import DemoModel

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 4, *, bfloat16: bool = False) -> Tensor:
    """Roughly the nearest (semi-)orthogonal matrix to each of (n, rows, cols), rows <= cols.

    The quintic Newton-Schulz iteration of Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon),
    which bfloat16 is precise enough for.
    """
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if bfloat16:
        x = x.bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)


class DemoOptimizer:
    """Muon on attention and expert matrices, AdamW on embeddings, output, router and norms.

    Muon's step is scaled to AdamW's usual size (root mean square 0.2; Liu et al. 2025), so both share
    `lr`'s meaning. Weight decay is decoupled, and left off for norms and embeddings.
    """

    def __init__(
        self,
        model: DemoModel,
        muon_lr: float,
        adam_lr: float,
        weight_decay: float,
        *,
        bfloat16: bool = False,
    ) -> None:
        self.muon_lr, self.adam_lr, self.weight_decay = muon_lr, adam_lr, weight_decay
        self.bfloat16 = bfloat16
        self.muon = [
            p
            for n, p in model.named_parameters()
            if p.ndim > 1 and n.startswith("blocks.") and "router" not in n
        ]
        chosen = {id(p) for p in self.muon}
        self.momentum = [torch.zeros_like(p) for p in self.muon]
        self.adam = torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in chosen],
            lr=adam_lr,
            betas=(0.9, 0.95),
            weight_decay=0.0,
        )

    def step(self, factor: float) -> None:
        """One update with both learning rates times `factor`; gradients are cleared."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        lr = self.muon_lr * factor
        with torch.no_grad():
            for p, momentum in zip(self.muon, self.momentum, strict=True):
                if p.grad is None:
                    continue
                momentum.lerp_(p.grad, 0.05)
                update = p.grad.lerp(momentum, 0.95)  # Nesterov
                cols = p.shape[-1]
                square = update.view(-1, min(cols, p.shape[-2]), cols)  # gate and up are two matrices
                p.mul_(1 - lr * self.weight_decay)
                p.add_(orthogonalize(square, bfloat16=self.bfloat16).view_as(p), alpha=-0.2 * lr * cols**0.5)
                p.grad = None

    def state(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "momentum": self.momentum}

    def restore(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for mine, saved in zip(self.momentum, state["momentum"], strict=True):
            mine.copy_(saved)
