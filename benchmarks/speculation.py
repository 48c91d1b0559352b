"""What guesses bring on this machine: steps by their tokens, and decoding with guesses right so often.

    python -m benchmarks.speculation MODEL... --rounds 3

Texts are sampled from the model at temperature 1, so that random weights do not repeat themselves and experts
change from token to token. A guesser that knows the text errs at random: `right` is the share of tokens
that it knows. Rows alternate in every round with decoding without guesses; ratios are medians of rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

import pintpot
from pintpot.kernels.api import Segment
from pintpot.llm import LLM
from pintpot.runtime.sampler import SamplingParams
from pintpot.runtime.sequence import Request
from pintpot.runtime.speculative import MAX_SEGMENT_TOKENS, Guesser, SpeculationParams

PARAMS = SpeculationParams()
SEED = 1


class Knowing(Guesser):
    """Knows what is answered, but for each token with probability `1 - right`."""

    def __init__(self, text: Sequence[int], right: float) -> None:
        super().__init__(PARAMS)
        known = np.random.default_rng(SEED).random(len(text)) < right
        self._told = [token if k else token ^ 1 for token, k in zip(text, known.tolist(), strict=True)]

    def propose(self, tokens: Sequence[int], at_most: int) -> list[int]:
        return self._told[len(tokens) : len(tokens) + max(at_most, 0)]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("-n", "--n-gen", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for model in args.models:
        llm = pintpot.load(model, ctx=1024, accelerator="none")
        print(f"{llm.spec.name} ({llm.n_threads} threads)", flush=True)
        _print_steps(llm, args.rounds)
        _print_answers(llm, args.n_gen, args.rounds)


def _print_steps(llm: LLM, rounds: int) -> None:
    """Steps of 1 to 8 tokens of one sequence, random ones, at depth 256, beside a step of one."""
    model, state, rng = llm.engine.model, llm.engine.state, np.random.default_rng(SEED)

    def seconds(past: int, n: int) -> float:
        ids = rng.integers(0, llm.engine.n_tokens, n).astype(np.int32)
        start = time.perf_counter()
        batch = model.ops.batch([Segment(0, past, n)])
        model.ops.to_numpy(model.forward(ids, batch, state, np.arange(n, dtype=np.int32)))
        return time.perf_counter() - start

    seconds(0, 256)
    sizes = (1, 2, 3, 4, 6, MAX_SEGMENT_TOKENS)
    taken: dict[int, list[float]] = {n: [] for n in sizes}
    for _ in range(6 * rounds):
        for n in sizes:
            taken[n].append(seconds(256, n))
    one = statistics.median(taken[1])
    steps = ", ".join(f"{n}: {statistics.median(taken[n]) / one:.2f}" for n in sizes)
    start = time.perf_counter()
    for _ in range(5):
        state.save(0)
    saving = (time.perf_counter() - start) / 5
    print(f"  a step of one token {1e3 * one:.1f} ms; of more, in such steps: {steps}")
    print(f"  saving recurrent state {1e3 * saving:.2f} ms")
    state.reset(0)


def _print_answers(llm: LLM, n_gen: int, rounds: int) -> None:
    prompt = np.random.default_rng(SEED).integers(0, llm.engine.n_tokens, 64).tolist()
    request = Request(tuple(prompt), SamplingParams(temperature=1.0, seed=SEED), n_gen, ignore_eos=True)
    text: list[int] = []

    def answer(right: float | None) -> tuple[float, float, int]:
        sequence = llm.engine.submit(request)
        sequence.guesser = None if right is None else Knowing(text, right)
        while sequence.finish_reason is None:
            llm.engine.step()
        if text and sequence.tokens != text:
            raise SystemExit("the answer with guesses is another: that is an error of the engine")
        t = sequence.timings
        text[:] = sequence.tokens
        return t.decode_tokens_s, t.accepted_tokens / max(1, t.drafted_tokens), t.drafted_tokens

    answer(None)
    shares = (1.0, 0.9, 0.7, 0.5, 0.2)
    ratios: dict[float, list[float]] = {right: [] for right in shares}
    last = {}
    for _ in range(rounds):
        for right in shares:
            plain, _, _ = answer(None)
            fast, accepted, drafted = answer(right)
            ratios[right].append(fast / plain)
            last[right] = (plain, fast, accepted, drafted)
    for right in shares:
        plain, fast, accepted, drafted = last[right]
        print(
            f"  right {right:4.0%}: {statistics.median(ratios[right]):.2f} of plain decoding "
            f"({min(ratios[right]):.2f}-{max(ratios[right]):.2f}; last {plain:.1f} and {fast:.1f} tok/s); "
            f"{accepted:.0%} of {drafted} drafted accepted",
            flush=True,
        )


if __name__ == "__main__":
    main()
