"""Does a smaller error make a better model? KL divergence of files made here and by llama-quantize.

    python -m benchmarks.quantize_divergence --llama-quantize PATH --llama-imatrix PATH

The demo model's matrices, all but the embedding, in one type each; importance (of llama-imatrix, for both)
from the first half of the held-out text, predictions compared on the second half, both files in this engine.
Prints the table of docs/quantization.md.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from benchmarks.divergence import Reference
from pintpot import quantize
from pintpot.demo import demo_model_path, demo_text_path

TYPES = (
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
)  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-quantize", required=True)
    parser.add_argument("--llama-imatrix", required=True)
    parser.add_argument("--chunks", type=int, default=24)
    args = parser.parse_args()

    source = demo_model_path()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = demo_text_path().read_text(encoding="utf-8")
        halves = text[: len(text) // 2], text[len(text) // 2 :]
        for half, path in zip(halves, (folder / "first.txt", folder / "second.txt"), strict=True):
            path.write_text(half, encoding="utf-8")
        imatrix = folder / "imatrix.gguf"
        _run(
            [args.llama_imatrix, "-m", source, "-f", folder / "first.txt", "-o", imatrix, "--process-output"]
        )
        reference = Reference(source, folder / "second.txt", args.chunks)

        print("| type | llama.cpp | pintpot | ratio | llama.cpp, imatrix | pintpot, imatrix | ratio |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for kind in TYPES:
            cells = []
            for importance in (None, imatrix):
                theirs, ours = folder / "theirs.gguf", folder / "ours.gguf"
                flags: list[str | Path] = ["--pure", "--token-embedding-type", "F16"]
                flags += ["--imatrix", importance] if importance else []
                _run([args.llama_quantize, *flags, source, theirs, _theirs(kind)])
                quantize(
                    source,
                    ours,
                    kind,
                    pure=True,
                    token_embedding_type="F16",
                    imatrix=importance,
                    force=True,
                )
                a, b = reference.kl(theirs), reference.kl(ours)
                cells += [f"{a:.5f}", f"{b:.5f}", f"{b / a:.3f}"]
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)


def _theirs(kind: str) -> str:
    """A mix whose base type is `kind`: with --pure it is all there is."""
    return {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}.get(kind, kind)


def _run(command: list[str | Path]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}: exit {done.returncode}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
