"""Which experts to keep in VRAM: policies of `pintpot.runtime.hotset` beside oracles, and what they give.

    python -m benchmarks.expert_policies
    python -m benchmarks.plot_experts benchmarks/results/MACHINE/COMMIT.json

Hit rates are of simulated routing (`pintpot.synth.routing`) and of the demo model reading its held-out pages.
Speeds are the planner's (`pintpot.planner.speed`) for Qwen3.5-35B-A3B at Q6_K on the machine of published
figures: RTX 5080 16 GB, 77 GB/s of RAM. An upload costs what the CPU would pay to read the expert, and never
less than PCIe needs; those between a prompt and its answer are spread over the answer. Nothing is timed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.expert_simulation import UNCAPPED, Outcome, simulate, simulate_belady, simulate_foresight
from benchmarks.expert_traces import Trace, recorded_demo, simulated
from benchmarks.record import default_path, store
from pintpot.hardware.machine import Hardware
from pintpot.hardware.words import describe
from pintpot.planner.limits import Limits
from pintpot.planner.memory import cache_read_bytes
from pintpot.planner.placement import Problem, Solution, solve
from pintpot.planner.plan import weigh_entry
from pintpot.planner.profile import PINTPOT, HitCurve
from pintpot.planner.speed import Placement, decode
from pintpot.runtime.hotset import ADAPTIVE, LFU, LRU, STATIC, Policy
from pintpot.store.catalog import find

RESIDENT: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
N_LAYERS: Final = 20  # of simulated models
MAX_SWAPS: Final = 8  # a token, of 40 layers with 8 experts each: the model's
FORESIGHT: Final = "oracle, same cap"
BELADY: Final = "oracle, no cap"
PROMPT_ONLY: Final = Policy("prompt", ADAPTIVE.half_life_tokens, 0, ADAPTIVE.prompt_payback_tokens)
MODEL: Final = "qwen3.5:35b-a3b"
QUANT: Final = "Q6_K"
_CTX: Final = 131_072
_HORIZONS: Final = (16, 32, 64)  # of the oracle with a cap: the best counts
_ANSWER_TOKENS: Final = 384
_HALF_LIVES: Final = (16, 32, 64, 128, 256)
_PAYBACKS: Final = (10, 20, 40, 80, 160)


@dataclass(frozen=True, slots=True)
class Case:
    """A model on a machine, and the plan for a context of 128K of which a quarter is full."""

    problem: Problem
    solution: Solution

    @property
    def planned_share(self) -> float:
        """Of experts in VRAM."""
        layers = self.problem.model.layers
        return sum(self.solution.placement.resident) / sum(layer.n_expert for layer in layers)

    def tokens_s(self, resident: float, outcome: Outcome, answer_tokens: int) -> float:
        """With `resident` of every layer's experts in VRAM, whether or not they fit."""
        p = self.problem
        slots = tuple(round(resident * layer.n_expert) for layer in p.model.layers)
        placement = Placement((True,) * len(slots), slots, output_on_gpu=True)
        # Uploads are read from RAM as misses are: the planner's misses are both.
        curve = HitCurve(
            fall=math.log(outcome.ram_reads) / math.log(1.0 - slots[0] / p.model.layers[0].n_expert)
        )
        profile = replace(p.profile, hits=curve)
        reads = cache_read_bytes(p.spec, self.solution.settings, self.solution.depth_tokens)
        token = decode(p.model, reads, placement, p.rates, profile)
        expert = max(layer.expert for layer in p.model.layers)
        selections = sum(layer.n_expert_used for layer in p.model.layers)
        over_pcie = outcome.upload_rate * selections * expert / p.rates.pcie_bytes
        after_prompt = len(slots) * outcome.prompt_uploads * expert
        after_prompt /= min(p.rates.pcie_bytes, p.rates.cpu_bytes)
        return 1.0 / (max(token.total, over_pcie) + after_prompt / answer_tokens)


def published_machine() -> Hardware:
    """RTX 5080 16 GB with a 9950X and DDR5-4800, of which speeds of llama.cpp are published."""
    return describe(gpu="RTX 5080", ram="64GiB", ram_bandwidth="77GB/s", cores=16)


def published_case() -> Case:
    """Qwen3.5-35B-A3B at Q6_K there."""
    entry, _ = find(MODEL)
    limits = Limits(ctx_tokens=_CTX)
    spec = entry.spec()
    problem = Problem(spec, weigh_entry(entry, spec, QUANT, limits), published_machine(), limits, PINTPOT)
    return Case(problem, solve(problem))


def max_swaps(trace: Trace, of_model: int = MAX_SWAPS) -> int:
    """`of_model` for as many selections a token as the trace has."""
    return max(1, round(of_model * trace.selections_a_token / 320))


def contenders(trace: Trace, n_slots: int) -> Iterator[tuple[str, Outcome]]:
    """Every policy and oracle by name."""
    cap = max_swaps(trace)
    yield STATIC.name, simulate(trace, STATIC, n_slots, 0)
    yield PROMPT_ONLY.name, simulate(trace, PROMPT_ONLY, n_slots, 0)
    yield LRU.name, simulate(trace, LRU, n_slots, UNCAPPED)
    yield LFU.name, simulate(trace, LFU, n_slots, UNCAPPED)
    yield ADAPTIVE.name, simulate(trace, ADAPTIVE, n_slots, cap)
    seen = [
        simulate_foresight(trace, replace(ADAPTIVE, half_life_tokens=horizon), n_slots, cap)
        for horizon in _HORIZONS
    ]
    yield FORESIGHT, min(seen, key=lambda outcome: outcome.ram_reads)
    yield BELADY, simulate_belady(trace, n_slots)


def compare(trace: Trace, case: Case | None) -> list[dict[str, Any]]:
    """A row for each share of experts in VRAM and contender; with speeds where `case` is given."""
    rows = []
    answer_tokens = trace.conversations[0].answer.shape[1]
    for share in RESIDENT:
        n_slots = max(1, round(share * trace.n_expert))
        for name, outcome in contenders(trace, n_slots):
            row = {"trace": trace.name, "resident": share, "n_slots": n_slots, "policy": name}
            row |= asdict(outcome) | {"ram_reads": outcome.ram_reads}
            if case is not None:
                row["tokens_s"] = case.tokens_s(share, outcome, answer_tokens)
            rows.append(row)
            print(_line(row), flush=True)
    return rows


def constants(trace: Trace) -> list[dict[str, Any]]:
    """What other half-lives and payback times would read from RAM."""
    rows = []
    for share in (0.2, 0.4, 0.6):
        n_slots = round(share * trace.n_expert)
        for half_life in _HALF_LIVES:
            for payback in _PAYBACKS:
                policy = replace(ADAPTIVE, half_life_tokens=half_life, payback_tokens=payback)
                outcome = simulate(trace, policy, n_slots, max_swaps(trace))
                row = {"trace": trace.name, "resident": share, "half_life_tokens": half_life}
                rows.append(row | {"payback_tokens": payback, "ram_reads": outcome.ram_reads})
    return rows


def caps(trace: Trace) -> list[dict[str, Any]]:
    """What more or fewer swaps a token would do, with 40% of the experts in VRAM."""
    n_slots = round(0.4 * trace.n_expert)
    few = [(n, simulate(trace, ADAPTIVE, n_slots, max_swaps(trace, n))) for n in (2, 4, 8, 16, 32)]
    return [{"trace": trace.name, "max_swaps": n, "ram_reads": outcome.ram_reads} for n, outcome in few]


def prompts(n_expert: int) -> list[dict[str, Any]]:
    """What ranking anew after a prompt gives, by its length and by how soon a swap must pay back, with 40% of
    the experts in VRAM; what it uploads is spread over the answer."""
    rows = []
    for n in (8, 32, 128, 512):
        trace = simulated(n_expert, 8, 4, prompt_tokens=n, answer_tokens=_ANSWER_TOKENS)
        for payback in (0, 16, 64, 256):
            policy = replace(ADAPTIVE, prompt_payback_tokens=payback)
            outcome = simulate(trace, policy, round(0.4 * trace.n_expert), max_swaps(trace))
            spread = outcome.prompt_uploads / (_ANSWER_TOKENS * trace.n_used)
            row = {"prompt_tokens": n, "prompt_payback_tokens": payback} | asdict(outcome)
            rows.append(row | {"ram_reads": outcome.ram_reads + spread})
    return rows


def _line(row: Mapping[str, Any]) -> str:
    speed = f" {row['tokens_s']:6.1f} tok/s" if "tokens_s" in row else ""
    return (
        f"{row['trace']:36} {row['resident']:4.0%} {row['policy']:16} hits {row['hit_rate']:6.1%} "
        f"uploads {row['upload_rate']:6.1%} RAM {row['ram_reads']:6.1%} "
        f"no miss {row['no_miss_rate']:4.0%}{speed}"
    )


def study(n_layers: int, few_layers: int) -> dict[str, Any]:
    """Everything; sweeps of constants take `few_layers`."""
    case = published_case()
    rows = [
        *compare(simulated(256, 8, n_layers), case),
        *compare(simulated(256, 8, n_layers, drifting=True), case),
        *compare(simulated(128, 8, n_layers), None),
        *compare(recorded_demo(), None),
    ]
    drifting = simulated(256, 8, few_layers, drifting=True)
    swept: Sequence[Trace] = (simulated(256, 8, few_layers), drifting, recorded_demo())
    found = {
        "benchmark": "expert_policies",
        "model": f"{MODEL} {QUANT}",
        "gpu": case.problem.hardware.gpus[0].name,
        "ctx_tokens": _CTX,
        "planned_resident": case.planned_share,
        "max_swaps": MAX_SWAPS,
        "policies": [asdict(policy) for policy in (STATIC, PROMPT_ONLY, LRU, LFU, ADAPTIVE)],
        "rows": rows,
        "constants": [row for trace in swept for row in constants(trace)],
        "caps": caps(simulated(256, 8, n_layers, drifting=True)),
        "prompts": prompts(256),
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def _plain(value: Any) -> Any:
    """As JSON has it: five decimals, null for infinite."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=None, help="where to store the JSON")
    parser.add_argument("--layers", type=int, default=N_LAYERS, help="of simulated models (default: 20)")
    args = parser.parse_args()
    path = args.output or default_path()
    store(path, study(args.layers, min(args.layers, 8)))
    print(f"stored in {path}")


if __name__ == "__main__":
    main()
