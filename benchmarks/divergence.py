"""How far a quantized model's predictions are from the original's: KL divergence on a text.

Shared by the quantization benchmarks; `python -m benchmarks.divergence REFERENCE MODEL...` prints it for
files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

import pintpot
from pintpot.demo import demo_text_path

CHUNK_TOKENS = 512


class Reference:
    """Log-probabilities of the original model on `n_chunks` pieces spread evenly over a text."""

    def __init__(self, model: Path, text: Path | None = None, n_chunks: int = 40) -> None:
        llm = pintpot.load(model, ctx=CHUNK_TOKENS)
        ids = llm.tokenizer.encode((text or demo_text_path()).read_text(encoding="utf-8"))
        last = len(ids) - CHUNK_TOKENS
        if last < 0:
            raise SystemExit(f"the text has {len(ids)} tokens, expected at least {CHUNK_TOKENS}")
        starts = np.linspace(0, last, n_chunks).astype(int)
        self.chunks = [ids[start : start + CHUNK_TOKENS] for start in starts]
        self.logprobs = self._logprobs(llm)

    def kl(self, model: Path) -> float:
        """Mean over positions of KL(original || model), nats."""
        other = self._logprobs(pintpot.load(model, ctx=CHUNK_TOKENS))
        return float((np.exp(self.logprobs) * (self.logprobs - other)).sum(axis=1).mean())

    def _logprobs(self, llm: pintpot.LLM) -> npt.NDArray[np.float32]:
        parts = []
        for chunk in self.chunks:
            logits = llm.logits(chunk).astype(np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            parts.append((logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32))
        return np.concatenate(parts)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, help="default: the demo's held-out text")
    parser.add_argument("--chunks", type=int, default=40, help=f"pieces of {CHUNK_TOKENS} tokens")
    args = parser.parse_args()
    reference = Reference(args.reference, args.text, args.chunks)
    for model in args.models:
        print(f"{model.name:40} {reference.kl(model):.6f}")


if __name__ == "__main__":
    main()
