"""The size that --fit aims at leaves room for everything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pintpot.errors import UsageError
from pintpot.hardware.words import describe
from pintpot.planner.fit import weights_budget
from pintpot.planner.limits import Limits
from pintpot.planner.memory import CacheSettings, cache_bytes
from pintpot.spec.cache import default_context
from pintpot.store import catalog

SPEC = catalog.find("qwen3:8b")[0].spec()


def test_a_larger_context_leaves_exactly_its_cache_less() -> None:
    hardware = describe("none", None, "16GiB", "60GB/s", 8, None)
    usual = weights_budget(SPEC, hardware, Limits())
    longer = weights_budget(SPEC, hardware, Limits(ctx_tokens=2 * default_context(SPEC)))
    caches = [cache_bytes(SPEC, CacheSettings(n * default_context(SPEC))).total for n in (1, 2)]
    assert usual - longer == caches[1] - caches[0] > 0
    assert 0 < usual < hardware.memory.available_bytes - caches[0]


def test_no_room_is_said() -> None:
    hardware = describe("none", None, "16GiB", "60GB/s", 8, None)
    full = replace(hardware, memory=replace(hardware.memory, available_bytes=2 << 30))
    with pytest.raises(UsageError, match=r"--fit: .* GiB of RAM are free"):
        weights_budget(SPEC, full, Limits())
