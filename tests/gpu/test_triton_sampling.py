"""Sampling on the device chooses what plain torch and the host's sampler choose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pintpot.kernels.triton.sampling import best_keys, rules_of, sample, sample_reference
from pintpot.runtime.sampler import Sampler, SamplingParams, top_indices

RULES = [
    (0.8, 40, 0.95, 0.05),  # the defaults
    (0.0, 40, 0.95, 0.05),  # greedy
    (1.3, 3, 1.0, 0.0),
    (1.0, 20, 0.3, 0.0),
    (2.0, 40, 1.0, 0.3),
]


def logits_of(n_rows: int, n_vocab: int, device: str, seed: int = 0) -> torch.Tensor:
    """Spread like a model's, with many ties."""
    x = 3 * torch.randn(n_rows, n_vocab, generator=torch.Generator().manual_seed(seed))
    return ((4 * x).round() / 4).to(device)


@pytest.mark.parametrize("n_vocab", [5, 93, 1500])
def test_as_plain_torch(n_vocab: int, device: str) -> None:
    n = len(RULES)
    rules = rules_of(RULES, device)
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(device)
    logits = logits_of(n, n_vocab, device)
    chosen = sample(logits, rules, uniform, most_k=40)
    assert chosen.tolist() == sample_reference(logits, rules, uniform).tolist()


def test_as_the_host_sampler(device: str) -> None:
    """The same random numbers give the same tokens."""
    t, k, p, m = RULES[0]
    logits = logits_of(4, 300, device)
    rules = rules_of([RULES[0]] * 4, device)
    uniform = torch.tensor([np.random.default_rng(seed).random() for seed in range(4)], dtype=torch.float64)
    chosen = sample(logits, rules, uniform.to(device), most_k=k)
    host = [
        Sampler(SamplingParams(temperature=t, top_k=k, top_p=p, min_p=m, seed=seed)).sample(row.numpy(), [])
        for seed, row in enumerate(logits.cpu())
    ]
    assert chosen.tolist() == host


def test_greedy_takes_the_first_of_the_highest(device: str) -> None:
    logits = logits_of(3, 777, device)
    logits[1] = -5.0
    logits[1, [600, 70]] = 2.5
    logits[2] = torch.where(logits[2] > 0, torch.tensor(0.0), torch.tensor(-0.0))  # equal, unlike in bits
    chosen = sample(
        logits, rules_of([RULES[1]] * 3, device), torch.zeros(3, device=device).double(), most_k=1
    )
    assert chosen.tolist() == logits.argmax(1).tolist()
    assert chosen.tolist()[1:] == [70, 0]


def test_several_rounds_keep_the_largest(device: str) -> None:
    logits = logits_of(1, 40_000, device)
    keys = best_keys(logits, 64)
    assert keys.shape == (1, 64)
    tokens = (0x7FFFFFFF - (keys[0] & 0x7FFFFFFF)).tolist()
    assert tokens == top_indices(logits[0].cpu().numpy(), 64).tolist()


def test_top_k_off_stays_on_the_host() -> None:
    with pytest.raises(ValueError, match="top-k is 0: sampling on the device takes 1 to 128"):
        rules_of([(1.0, 0, 1.0, 0.0)], "cpu")
