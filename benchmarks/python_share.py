"""Python's share of a decode step: what of its time is not spent inside the native module.

    python -m benchmarks.python_share MODEL -t 2 -n 48

A step is what `generate` makes: the engine's step with sampling and streaming of text. Every function of the
native module is timed around its call, so that the wrapping itself counts as Python. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pintpot
from pintpot import _native
from pintpot.kernels import cpu

_WARM_UP = 5  # steps that do not count


class TimedModule:
    """The native module, adding up the seconds and the calls of its functions (of its types not)."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.seconds = 0.0
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if isinstance(found, type) or not callable(found):
            return found
        timed = self._timed(found)
        setattr(self, name, timed)
        return timed

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
                self.calls += 1

        return call


def python_share(model: Path, n_threads: int, n_tokens: int) -> dict[str, float]:
    """Medians over `n_tokens` steps: seconds of a step, those in native code, calls, and Python's share."""
    llm = pintpot.load(model, ctx=n_tokens + _WARM_UP + 64, threads=n_threads)
    native = TimedModule(_native)
    steps = []
    vars(cpu)["_native"] = native
    try:
        answer = llm.generate(
            "Once upon a time", max_tokens=n_tokens + _WARM_UP, temperature=0.0, ignore_eos=True
        )
        for _ in range(n_tokens + _WARM_UP):
            native.seconds, native.calls = 0.0, 0
            start = time.perf_counter()
            answer.step()
            steps.append((time.perf_counter() - start, native.seconds, native.calls))
    finally:
        vars(cpu)["_native"] = _native
    counted = steps[_WARM_UP:]
    return {
        "step_s": statistics.median(step for step, _, _ in counted),
        "native_s": statistics.median(inside for _, inside, _ in counted),
        "calls": statistics.median(calls for _, _, calls in counted),
        "share": statistics.median(1 - inside / step for step, inside, _ in counted),
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-n", "--n-gen", type=int, default=48, help="steps to time")
    args = parser.parse_args()
    print(json.dumps(python_share(args.model, args.threads, args.n_gen)))


if __name__ == "__main__":
    main()
