"""A model larger than a card, on the card and the CPU: speed, hits, memory, and how near the roofline.

    python -m benchmarks.gpu_hybrid --llama-bin DIR                    # on a CUDA GPU
    python -m benchmarks.gpu_hybrid --type Q4_K_M --layers 12 --vram 4GiB
    python -m benchmarks.gpu_hybrid --accelerator cpu                  # rehearses all of it with a toy

A random-weight file of Qwen3.5-35B-A3B's shape is written (or --model given) and loaded once for each --vram,
with the whole context allocated. A depth is not computed: random keys and values are stored in the caches on
the accelerator, and the engine told that they are a context. Caches of layers in RAM keep their zero pages,
which may look faster than memory. Tokens are random: hits are of this file's routers, not of a language.

VRAM and RAM shares are bytes that a token reads there, times tok/s, over a copy's bandwidth in VRAM and the
read bandwidth of RAM; `planned` is what planner.speed predicts. llama.cpp (llama-bench) runs with -ngl 99 and
the least -ncmoe whose plan fits the same VRAM, at depths up to --llama-depth, which it does compute.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import pintpot
from benchmarks.alternate import Samples
from benchmarks.gpu_fill import fill_caches
from benchmarks.gpu_matvec import copy_bytes_s, dense_products, expert_products
from benchmarks.programs import ProgramError, Settings, find_program, llama_bench, name_test
from benchmarks.record import Log, Run, default_path
from pintpot.errors import PintpotError
from pintpot.gguf import GGUFFile
from pintpot.hardware.nvidia import load_nvml
from pintpot.hardware.probe import probe
from pintpot.hardware.words import parse_bytes
from pintpot.kernels.bandwidth import ram_read_bytes_s
from pintpot.kernels.hybrid import HybridOps
from pintpot.kernels.open import AcceleratorKind, accelerator_of
from pintpot.llm import LLM
from pintpot.planner.limits import Limits
from pintpot.planner.memory import cache_read_bytes
from pintpot.planner.placement import Problem, Solution, solve_or_none
from pintpot.planner.profile import LLAMA_CPP
from pintpot.planner.speed import decode
from pintpot.runtime.assembly import accelerated_problem
from pintpot.runtime.measure import SpeedMeter
from pintpot.spec.cache import KVType
from pintpot.synth.synthesize import synthesize

_GIB = 1 << 30
_ARCH = "qwen35moe"


class Bench:
    """One run: what it is given, what it found, on disk after every budget."""

    def __init__(self, args: argparse.Namespace, file: GGUFFile) -> None:
        self._args = args
        self._file = file
        self._device = "cuda" if args.accelerator is AcceleratorKind.CUDA else "cpu"
        self._log = Log(args.output or default_path(), {"benchmark": "gpu_hybrid", **_wishes(args, file)})
        self.run: Run = self._log.run

    def measure(self) -> None:
        """Bandwidths, products by themselves, then every budget."""
        args, run = self._args, self.run
        run["device"] = _describe_device(self._device)
        run["copy_bytes_s"] = copy_bytes_s(self._device, args.copy_bytes)
        run["ram_bytes_s"] = ram_read_bytes_s([args.threads], args.copy_bytes, args.seconds)[args.threads]
        accelerator = accelerator_of(args.accelerator)(1 << 50)
        run["products"] = dense_products(self._file, accelerator, self._device, args.copy_bytes)
        del accelerator
        run["budgets"] = []
        for vram in args.vram:
            self._free()
            run["budgets"].append(self._budget(vram))
            self._log.save()
            print("\n".join(budget_lines(run, run["budgets"][-1])), flush=True)
        print("\n".join(product_lines(run)))

    def _free(self) -> None:
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _budget(self, vram: str) -> Run:
        args, before = self._args, _driver_bytes(self._device)
        limits = Limits(vram_bytes=parse_bytes("--vram", vram), ctx_tokens=args.ctx, n_threads=args.threads)
        found: Run = {"vram": vram}
        try:
            llm = pintpot.load(
                args.model,
                accelerator=str(args.accelerator),
                vram=vram,
                ctx=args.ctx,
                threads=args.threads,
                batch=args.batch,
            )
        except PintpotError as error:
            return found | {"failed": str(error)}
        found["notes"] = list(llm.notes)
        solution, memory = llm.assembled.solution, llm.memory.accelerator
        if solution is None or memory is None:
            return found | {"failed": "nothing lies on the accelerator"}
        problem = accelerated_problem(self._file, args.accelerator, limits)
        found |= {
            "plan": asdict(solution.vram),
            "slots": list(solution.placement.resident),
            "gpu_layers": solution.placement.n_gpu_layers,
            "cache_type": str(solution.settings.type_k),
        }
        fill_caches(llm.engine, max(args.depths))
        meter = SpeedMeter(llm.engine, computed=False)
        found["rows"] = [self._row(llm, meter, problem, solution, depth) for depth in args.depths]
        found |= {
            "used_bytes": dict(memory.by_kind) | {"total": memory.used_bytes, "peak": memory.peak_bytes},
            "driver_bytes": None if before is None else (_driver_bytes(self._device) or 0) - before,
        }
        ops = llm.engine.model.ops
        if isinstance(ops, HybridOps):
            experts = [layer.expert for layer in problem.model.layers]
            found["experts"] = expert_products(ops, self._device, experts, llm.spec.n_embd)
        del llm, meter, ops
        self._free()
        return found | {"llama_cpp": self._llama(problem, solution)}

    def _row(self, llm: LLM, meter: SpeedMeter, problem: Problem, solution: Solution, depth: int) -> Run:
        """Speeds at a depth. Every test runs once before: kernels are compiled, experts settle."""
        args, counts = self._args, llm.expert_counts
        if counts is None:
            raise ValueError("an engine with an accelerator counts experts")
        meter.prefill(args.n_prompt, depth)
        prefill = meter.prefill(args.n_prompt, depth)
        meter.decode(args.n_gen, depth)
        before = replace(counts)
        speed = meter.decode(args.n_gen, depth)
        seen = counts.since(before)
        share = seen.hits / max(1, seen.hits + seen.misses)
        reads = token_bytes(problem, solution, depth, share)
        reads["ram"] += seen.upload_bytes // args.n_gen
        cache = cache_read_bytes(problem.spec, solution.settings, depth)
        planned = decode(problem.model, cache, solution.placement, problem.rates, problem.profile)
        return {
            "depth": depth,
            "decode_tokens_s": speed,
            "prefill_tokens_s": prefill,
            "hit_share": share,
            "uploads_a_token": seen.uploads / args.n_gen,
            "token_bytes": reads,
            "vram_share": reads["vram"] * speed / self.run["copy_bytes_s"],
            "ram_share": reads["ram"] * speed / self.run["ram_bytes_s"],
            "planned_tokens_s": planned.tokens_s,
            "planned_prefill_tokens_s": solution.prefill_tokens_s,
        }

    def _llama(self, problem: Problem, solution: Solution) -> Run:
        """llama-bench on the same file in the same VRAM, or why not."""
        args = self._args
        if args.llama_bin is None:
            return {"skipped": "no --llama-bin given"}
        n = least_cpu_moe(problem, solution)
        depths = [depth for depth in args.depths if depth <= args.llama_depth]
        if not depths:
            return {"skipped": f"every depth is beyond --llama-depth {args.llama_depth}"}
        if n is None:
            return {"skipped": "no -ncmoe fits this VRAM with every layer there"}
        kind = str(solution.settings.type_k)
        settings = Settings(args.threads, kind, kind, 1, args.limit, ("-ngl", "99", "-ncmoe", str(n)))
        try:
            program = find_program("llama-bench", args.llama_bin)
            samples: Samples = llama_bench(
                program,
                args.model,
                settings,
                n_prompt=(args.n_prompt,),
                n_gen=(args.n_gen,),
                depths=depths,
            )
        except ProgramError as error:
            return {"n_cpu_moe": n, "failed": str(error)}
        return {"n_cpu_moe": n, "samples": samples}


def token_bytes(problem: Problem, solution: Solution, depth: int, hit_share: float) -> dict[str, int]:
    """Bytes that a token at `depth` reads from each memory, when so many of its experts are found in VRAM."""
    model, placement = problem.model, solution.placement
    cache = cache_read_bytes(problem.spec, solution.settings, depth)
    routed = sum(layer.routed for layer in model.layers)
    vram = int(routed * hit_share) + (model.head if placement.output_on_gpu else 0)
    for layer, read, there in zip(model.layers, cache, placement.dense_on_gpu, strict=True):
        vram += layer.dense - layer.dense_in_ram + read if there else 0
    return {"vram": vram, "ram": model.dense + routed + sum(cache) - vram}


def least_cpu_moe(problem: Problem, solution: Solution) -> int | None:
    """The least -ncmoe with which llama.cpp holds all else in the same VRAM, as the planner counts it."""
    kind: KVType = solution.settings.type_k
    for n in range(problem.spec.n_layer + 1):
        limits = replace(problem.limits, n_cpu_moe=n, type_k=kind, type_v=kind, use_gpu=True)
        found = solve_or_none(replace(problem, profile=LLAMA_CPP, limits=limits))
        if found is None or not all(found.placement.dense_on_gpu):
            continue
        layers = list(zip(problem.model.layers, found.placement.resident, strict=True))[n:]
        if all(resident == layer.n_expert for layer, resident in layers):
            return n
    return None


def _describe_device(device: str) -> Run:
    if device == "cpu":
        return {"name": "emulated by the CPU"}
    gpu = probe().gpus[0]
    return asdict(gpu) | {"torch": torch.__version__, "cuda": torch.version.cuda}


def _driver_bytes(device: str) -> int | None:
    """What the driver counts as used of the first GPU, by whomever; None where it cannot be asked."""
    nvml = load_nvml() if device == "cuda" else None
    if nvml is None:
        return None
    nvml.nvmlInit()
    used: int = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(0)).used
    return used


def budget_lines(run: Run, found: Run) -> list[str]:
    """A budget's part of the table."""
    if "failed" in found:
        return [f"{found['vram']}: {found['failed']}"]
    used, plan = found["used_bytes"]["total"], sum(found["plan"].values()) - found["plan"]["overhead"]
    driver = found["driver_bytes"]
    lines = [
        f"{found['vram']}: {found['gpu_layers']} layers and {sum(found['slots'])} experts there, "
        f"{used / _GIB:.3f} GiB of {plan / _GIB:.3f} planned"
        + ("" if driver is None else f"; the driver counts {driver / _GIB:.3f}"),
        f"{'depth':>8} {'tg tok/s':>9} {'planned':>8} {'pp tok/s':>9} {'hits':>5} {'VRAM':>5} {'RAM':>5}"
        f" {'llama.cpp tg':>13} {'pp':>8}",
    ]
    peer = found["llama_cpp"].get("samples", {})
    for row in found["rows"]:
        tests = (name_test(0, run["n_gen"], row["depth"]), name_test(run["n_prompt"], 0, row["depth"]))
        tg, pp = (f"{peer[test][0]:.1f}" if test in peer else "-" for test in tests)
        lines.append(
            f"{row['depth']:8} {row['decode_tokens_s']:9.1f} {row['planned_tokens_s']:8.1f} "
            f"{row['prefill_tokens_s']:9.1f} {row['hit_share']:5.0%} {row['vram_share']:5.0%} "
            f"{row['ram_share']:5.0%} {tg:>13} {pp:>8}"
        )
    said = found["llama_cpp"].get("skipped") or found["llama_cpp"].get("failed")
    return [*lines, f"llama.cpp: {said}"] if said else lines


def product_lines(run: Run) -> list[str]:
    """Products by themselves."""
    lines = [f"a copy {run['copy_bytes_s'] / 1e9:.1f} GB/s, RAM read {run['ram_bytes_s'] / 1e9:.1f} GB/s"]
    experts = [b["experts"] for b in run["budgets"] if b.get("experts")]
    for row in [*run["products"], *experts]:
        share = row["bytes_s"] / run["copy_bytes_s"]
        lines.append(
            f"{row['kernel']:28} {row.get('type', ''):5} {row['bytes_s'] / 1e9:8.1f} GB/s {share:5.0%}"
        )
    return lines


def _wishes(args: argparse.Namespace, file: GGUFFile) -> Run:
    names = ("type", "layers", "ctx", "batch", "threads", "n_prompt", "n_gen")
    model = {"model": file.path.name, "file_bytes": file.path.stat().st_size}
    return {"accelerator": str(args.accelerator)} | {name: getattr(args, name) for name in names} | model


def main(arguments: list[str] | None = None) -> None:
    """Entry point; exits with 1 where the accelerator cannot be used."""
    args = _arguments(arguments)
    try:
        accelerator_of(args.accelerator)
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            if args.model is None:
                args.model = Path(folder) / f"{_ARCH}-{args.type}.gguf"
                synthesize(args.model, _ARCH, quant=args.type, preset=args.preset, n_layer=args.layers)
            Bench(args, GGUFFile.open(args.model)).measure()
    except PintpotError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    print(f"stored in {args.output or default_path()}")


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = [AcceleratorKind.CUDA, AcceleratorKind.CPU]
    parser.add_argument("--accelerator", type=AcceleratorKind, choices=kinds, default=AcceleratorKind.CUDA)
    parser.add_argument("--type", default="Q6_K", help="recipe of the file that is written: Q6_K, Q4_K_M")
    parser.add_argument("--layers", type=int, help="cut the model")
    parser.add_argument("--model", type=Path, help="measure this file; none is written")
    parser.add_argument("--folder", type=Path, help="where the file is made")
    parser.add_argument("--vram", type=lambda text: text.split(","), help="budgets (8GiB,12GiB,16GiB)")
    parser.add_argument("-c", "--ctx", type=int, help="context allocated (131072)")
    parser.add_argument("--depths", type=lambda text: [int(n) for n in text.split(",")], help="(1024,102400)")
    parser.add_argument("-b", "--batch", type=int, help="prompt tokens a step (the plan's)")
    parser.add_argument("-p", "--n-prompt", type=int, help="prompt tokens (512)")
    parser.add_argument("-n", "--n-gen", type=int, help="tokens generated (64)")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's CUDA build")
    parser.add_argument("--llama-depth", type=int, default=16384, help="deepest context that it computes")
    parser.add_argument("--limit", type=float, default=180, help="seconds llama-bench may take")
    parser.add_argument("-o", "--output", type=Path, help="where to store the JSON")
    args = parser.parse_args(arguments)
    real = args.accelerator is AcceleratorKind.CUDA
    defaults: dict[str, Any] = {
        "vram": ["8GiB", "12GiB", "16GiB"] if real else ["6MiB", "8MiB"],
        "ctx": 131072 if real else 256,
        "depths": [1024, 102400] if real else [16, 128],
        "batch": None if real else 32,
        "n_prompt": 512 if real else 16,
        "n_gen": 64 if real else 4,
    }
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.preset = None if real else "toy"
    args.copy_bytes = (256 if real else 4) << 20
    args.seconds = 1.0 if real else 0.0
    return args


if __name__ == "__main__":
    main()
