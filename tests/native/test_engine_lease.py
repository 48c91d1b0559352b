"""An engine serves one thread at a time."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from mixer_reference import matrix

from pintpot import _native


def test_a_second_thread_is_refused_and_the_first_is_not_disturbed() -> None:
    rng = np.random.default_rng(0)
    weights, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((1024, 1024), (256, 1024)))
    w, engine = matrix(weights), _native.Engine(2)
    expected, got = (np.empty((256, 1024), np.float32) for _ in range(2))
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
        """Ends with the refusal: the product holds the engine for most of the time."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            _native.softcap(engine, np.ones((1, 16), np.float32), 1.0)
            time.sleep(0)

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
