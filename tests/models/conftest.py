"""Tiny tensors: threads only cost."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
