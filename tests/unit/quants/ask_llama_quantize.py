"""Writes recipes_expected.json: the type llama-quantize gives each tensor of each model of recipe_cases.py.

    python tests/unit/quants/ask_llama_quantize.py PATH/llama-quantize

The models are sparse files, a header and nothing behind it, so that a 35B takes no space; `--dry-run` reads
no more. Our own answers are compared on the way and every difference is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from recipe_cases import SHAPES, Case, case, our_types, questions, summarize

from pintpot.gguf import GGMLType, GGUFWriter, TensorDecl, Typed, ValueType
from pintpot.quants.recipes import Recipe

OUTPUT = Path(__file__).with_name("recipes_expected.json")
_TENSOR = re.compile(
    r"^\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\w+), size = .*? MiB(?: -> .* MiB \((\w+)\))?$"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("llama_quantize", type=Path, help="llama.cpp's llama-quantize")
    args = parser.parse_args()
    n_files = n_tensors = n_different = 0
    answers: dict[str, dict[str, list[str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        imatrix = _write_imatrix(Path(folder) / "imatrix.gguf")
        for shape in SHAPES:
            model = case(shape)
            path = _write_sparse(Path(folder) / "model.gguf", model)
            for key, recipe, flags, importance in questions(shape):
                more = f"--imatrix {imatrix}" if importance else flags
                theirs = _ask(args.llama_quantize, path, recipe, more.split())
                if len(theirs) != len(model.tensors):
                    sys.exit(f"{shape} {key}: {len(theirs)} of {len(model.tensors)} tensors told")
                ours = our_types(model, recipe, flags, importance=importance)
                for name, kind in theirs.items():
                    if ours[name] != kind:
                        print(f"{shape} {key} {name}: {kind}, ours {ours[name]}")  # noqa: T201
                        n_different += 1
                n_files, n_tensors = n_files + 1, n_tensors + len(theirs)
                answers.setdefault(shape, {})[key] = summarize(theirs)
    print(f"{n_files} files, {n_tensors} tensors, {n_different} of another type")  # noqa: T201
    OUTPUT.write_text(json.dumps(_compact(answers), indent=0) + "\n", encoding="utf-8")


def _write_sparse(path: Path, model: Case) -> Path:
    writer = GGUFWriter(path, model.metadata, model.tensors)
    path.write_bytes(writer.header)
    os.truncate(path, writer.nbytes)
    return path


def _write_imatrix(path: Path) -> Path:
    """An importance matrix of a tensor that no model has: that there is one is all that recipes ask."""
    metadata = {
        "general.type": "imatrix",
        "imatrix.datasets": Typed(ValueType.ARRAY, ["none"], ValueType.STRING),
        "imatrix.chunk_count": 1,
        "imatrix.chunk_size": 512,
    }
    sums, counts = "nothing.weight.in_sum2", "nothing.weight.counts"
    tensors = [TensorDecl(sums, GGMLType.F32, (256, 1)), TensorDecl(counts, GGMLType.F32, (1, 1))]
    with GGUFWriter(path, metadata, tensors) as writer:
        writer.write(sums, np.ones(256, np.float32))
        writer.write(counts, np.ones(1, np.float32))
    return path


def _ask(program: Path, path: Path, recipe: Recipe, flags: list[str]) -> dict[str, str]:
    command = [str(program), "--dry-run", *flags, str(path), recipe.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    lines = (_TENSOR.match(line) for line in (done.stdout + done.stderr).splitlines())
    return {m[1]: (m[3] or m[2]).upper() for m in lines if m}


def _compact(answers: dict[str, dict[str, list[str]]]) -> dict[str, object]:
    """Each line once: an answer is a list of line numbers. What importance does not change is left out."""
    lines = sorted({line for by_type in answers.values() for found in by_type.values() for line in found})
    number = {line: i for i, line in enumerate(lines)}
    packed = {
        shape: {
            key: " ".join(str(number[line]) for line in found)
            for key, found in by_type.items()
            if found != by_type.get(key.removesuffix(" with importance")) or "importance" not in key
        }
        for shape, by_type in answers.items()
    }
    return {"lines": lines, "models": packed}


if __name__ == "__main__":
    main()
