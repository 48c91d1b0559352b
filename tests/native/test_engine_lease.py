"""An engine serves one thread at a time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from mixer_reference import matrix

from pintpot import _native


def test_a_second_thread_is_refused_and_the_first_is_not_disturbed() -> None:
    rng = np.random.default_rng(0)
    weights, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((512, 512), (64, 512)))
    w, engine = matrix(weights), _native.Engine(2)
    expected, got = (np.empty((64, 512), np.float32) for _ in range(2))
    _native.matmul(engine, w, 0, x, expected)
    refused, results = threading.Event(), []

    def keep_busy() -> None:
        while not refused.is_set():
            try:
                _native.matmul(engine, w, 0, x, got)
            except RuntimeError:  # the other thread was in it
                continue
            results.append(np.array_equal(got, expected))

    def intrude() -> None:
        for _ in range(100_000):
            _native.softcap(engine, np.ones((1, 16), np.float32), 1.0)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="in use by another thread"):
            intrude()
    finally:
        refused.set()
        thread.join()
    assert all(results)
    _native.matmul(engine, w, 0, x, got)  # free again
    assert np.array_equal(got, expected)
