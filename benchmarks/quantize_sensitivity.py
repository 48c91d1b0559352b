"""What the model's output makes of errors in tensors of one role: the figures in quantization/sizing.py.

    python -m benchmarks.quantize_sensitivity [MODEL] [--kind Q3_K]

Tensors of one role at a time are quantized; the KL divergence to the original, over the sum of the relative
errors of those tensors, is the sensitivity; times the number of layers for roles that every layer has.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from benchmarks.divergence import Reference
from pintpot import quantize
from pintpot.demo import demo_model_path
from pintpot.gguf import GGMLType, GGUFFile
from pintpot.kernels.quantize import Quantizer
from pintpot.quantization.run import prepare
from pintpot.quantization.sizing import PER_MODEL, relative_error
from pintpot.quants.choice import role_of
from pintpot.quants.recipes import Role


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", default=demo_model_path(), help="an F16 file")
    parser.add_argument("--kind", default="Q3_K")
    parser.add_argument("--chunks", type=int, default=40)
    args = parser.parse_args()

    file = GGUFFile.open(args.model)
    plan = prepare(args.model, None, args.kind)
    tied = "output.weight" not in file.tensors
    n_layer = 1 + max(int(m[1]) for m in (re.match(r"blk\.(\d+)", name) for name in file.tensors) if m)
    reference = Reference(args.model, n_chunks=args.chunks)
    quantizer = Quantizer(2)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "one-role.gguf"
        for role in Role:
            tensors = [t.source for t in plan.tensors if t.changes and role_of(t.name, tied=tied) is role]
            if not tensors:
                continue
            error = sum(relative_error(file, t, quantizer, GGMLType[args.kind]) for t in tensors)
            wanted = [f"^{re.escape(t.name)}$={args.kind}" for t in tensors]
            quantize(args.model, out, "F16", tensor_types=wanted, force=True)
            kl = reference.kl(out)
            scale = 1 if role in PER_MODEL else n_layer
            found = f"error {error:.4f}  KL {kl:.5f}  sensitivity {kl / error * scale:.2f}"
            print(f"{role:12} {len(tensors):3} tensors  {found}")


if __name__ == "__main__":
    main()
