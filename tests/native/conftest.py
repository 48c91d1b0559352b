"""Fixtures of the kernel tests: every instruction-set level, engines with poisoned scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pintpot import _native


@pytest.fixture(params=list(_native.Isa), ids=lambda level: level.name)
def isa(request: pytest.FixtureRequest) -> Iterator[_native.Isa]:
    """Runs the test once for each kernel level, which is in force meanwhile."""
    if request.param > _native.detect_isa():
        pytest.skip(f"this CPU lacks the {request.param.name} level")
    before = _native.active_isa()
    assert _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


@pytest.fixture(scope="session")
def make_engine() -> Callable[[int], _native.Engine]:
    """Engines by number of threads, made once; their scratch memory is filled with NaN before each use."""
    engines: dict[int, _native.Engine] = {}

    def make(n_threads: int) -> _native.Engine:
        if n_threads not in engines:
            engines[n_threads] = _native.Engine(n_threads)
            engines[n_threads].set_poison(True)
        return engines[n_threads]

    return make


@pytest.fixture
def engine(make_engine: Callable[[int], _native.Engine]) -> _native.Engine:
    """Three threads: odd, and more than some machines have cores."""
    return make_engine(3)
