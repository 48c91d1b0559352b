"""What the CPU table measures: model files, jobs on them, and the goals of every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.programs import name_test
from pintpot.spec.shape import Shape
from pintpot.synth.presets import PRESETS
from pintpot.synth.synthesize import write_model

N_PROMPT, N_GEN = 512, 64
N_GEN_DEEP = 32
BATCH_DEPTH, BATCH_GEN, BATCH_SEQUENCES = 128, 32, (4, 8)

MOE_TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q3_K", "Q2_K", "Q8_0")
DENSE_TYPES = (*MOE_TYPES, "Q4_0", "Q5_0", "IQ4_XS", "MXFP4", "F16", "BF16")
DEPTHS = (16384, 32768)
DEEPEST = 102400


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row is to reach. `ratio`: to llama.cpp, in the same rounds; `bandwidth`: share of the measured
    read bandwidth; `either`: one of the two is enough; `depth_cost`: the most time that depth may add, in
    times of keys and values over bandwidth; `at_most`: of a row that has no peer."""

    ratio: float | None = None
    bandwidth: float | None = None
    either: bool = False
    depth_cost: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A random-weight file, every matrix of type `quant`."""

    label: str
    shape: Shape
    quant: str

    @property
    def name(self) -> str:
        return f"{self.label}-{self.shape.n_layer}L-{self.quant}"

    def write(self, folder: Path) -> Path:
        """The file in `folder`, made when it is not there."""
        path = folder / f"{self.name}.gguf"
        if not path.exists():
            write_model(path, self.shape, quant=self.quant, pure=True)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is measured together, in one process of each program a round.

    `kind`: speed (llama-bench), batch (llama-batched-bench), load (whole processes) or python (its share of a
    step). `goals` has a row's goal by the name of its test; tests without one are measured to compare with.
    """

    group: str
    work: str  # what a reader calls it
    file: ModelFile
    goals: Mapping[str, Goal]
    kind: str = "speed"
    n_prompt: tuple[int, ...] = ()
    n_gen: tuple[int, ...] = ()
    depths: tuple[int, ...] = (0,)
    parallel: tuple[int, ...] = (1,)
    cache_type: str = "f16"
    repetitions: int = 1
    most_rounds: int = 100

    @property
    def tests(self) -> tuple[str, ...]:
        if self.kind in {"load", "python"}:
            return (self.kind,)
        return tuple(
            [name_test(n, 0, d) for d in self.depths for n in self.n_prompt]
            + [name_test(0, n, d, k) for d in self.depths for n in self.n_gen for k in self.parallel]
        )

    def key(self, test: str) -> str:
        """Names a row: the same key is the same work."""
        cache = "" if self.cache_type == "f16" else f"/{self.cache_type}"
        return f"{self.group}/{self.file.name}/{test}{cache}"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asks for. Empty: everything."""

    groups: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    quick: bool = False


def jobs(choice: Choice) -> list[Job]:
    """The jobs of a choice, those of a file one after the other."""
    wanted = [
        job
        for name, group in GROUPS.items()
        if not choice.groups or name in choice.groups
        for job in group(choice)
        if not choice.types or job.file.quant in choice.types
    ]
    files = list(dict.fromkeys(job.file.name for job in wanted))
    return sorted(wanted, key=lambda job: files.index(job.file.name))


def _a3b(n_layer: int) -> Shape:
    """`n_layer` of 40 layers and as large a share of the vocabulary: weights, head, keys and values are
    read in the proportions of the whole model."""
    whole = PRESETS["qwen3.5-35b-a3b"]
    return replace(whole.with_layers(n_layer), n_vocab=whole.n_vocab * n_layer // whole.n_layer)


def _delta_nets() -> Shape:
    """The delta nets of the 35B-A3B shape with little else: narrow projections and FFNs, one attention
    layer of 24, few tokens in the vocabulary."""
    whole = PRESETS["qwen3.5-35b-a3b"]
    if whole.delta is None:
        raise ValueError(f"{whole.name}: expected delta nets")
    delta = replace(whole.delta, full_interval=24)
    return replace(
        whole, arch="qwen35", n_layer=24, n_embd=256, n_ff=256, n_vocab=1024, delta=delta, experts=None
    )


def _base_file(choice: Choice) -> ModelFile:
    """What batches and loading are measured on."""
    return ModelFile("35b-a3b", _a3b(4 if choice.quick else 8), "Q4_K")


def _plain(group: str, work: str, file: ModelFile, decode: Goal, prefill: Goal) -> Job:
    goals = {name_test(N_PROMPT, 0): prefill, name_test(0, N_GEN): decode}
    return Job(group=group, work=work, file=file, goals=goals, n_prompt=(N_PROMPT,), n_gen=(N_GEN,))


def _moe(choice: Choice) -> Iterator[Job]:
    layers = 4 if choice.quick else 8
    for quant in MOE_TYPES[:1] if choice.quick else MOE_TYPES:
        file = ModelFile("35b-a3b", _a3b(layers), quant)
        decode = Goal(ratio=1.8, bandwidth=0.8 if quant in {"Q6_K", "Q8_0"} else 0.7)
        yield _plain("moe", "35B-A3B", file, decode, Goal(ratio=2.5))


def _dense(group: str, work: str, preset: str, n_layer: int) -> Callable[[Choice], Iterator[Job]]:
    def group_jobs(choice: Choice) -> Iterator[Job]:
        shape = PRESETS[preset].with_layers(4 if choice.quick else n_layer)
        for quant in DENSE_TYPES[:1] if choice.quick else DENSE_TYPES:
            decode = Goal(ratio=1.25, bandwidth=0.85, either=True)
            yield _plain(group, work, ModelFile(preset, shape, quant), decode, Goal(ratio=2.0))

    return group_jobs


def _deep(group: str, depths: tuple[int, ...]) -> Callable[[Choice], Iterator[Job]]:
    def group_jobs(choice: Choice) -> Iterator[Job]:
        if choice.quick and depths != DEPTHS:
            return
        some = (4096,) if choice.quick else depths
        for cache_type in ("f16",) if choice.quick else ("f16", "q8_0"):
            yield Job(
                group=group,
                work="a tenth of 35B-A3B",
                file=ModelFile("35b-a3b", _a3b(4), "Q4_K"),
                goals={name_test(0, N_GEN_DEEP, d): Goal(ratio=2.5, depth_cost=2.0) for d in some},
                n_gen=(N_GEN_DEEP,),
                depths=(0, *some),
                cache_type=cache_type,
                repetitions=5,
                most_rounds=1,  # filling takes minutes, the repetitions of a process share it
            )

    return group_jobs


def _delta(_: Choice) -> Iterator[Job]:
    goal = Goal(ratio=1.5)
    yield replace(
        _plain("delta", "gated delta nets", ModelFile("delta-nets", _delta_nets(), "Q8_0"), goal, goal),
        repetitions=3,
    )


def _batch(choice: Choice) -> Iterator[Job]:
    tests = [name_test(0, BATCH_GEN, BATCH_DEPTH, n) for n in BATCH_SEQUENCES]
    yield Job(
        group="batch",
        work="35B-A3B",
        file=_base_file(choice),
        goals={test: Goal(ratio=1.5) for test in tests},
        kind="batch",
        n_gen=(BATCH_GEN,),
        depths=(BATCH_DEPTH,),
        parallel=BATCH_SEQUENCES,
    )


def _python(_: Choice) -> Iterator[Job]:
    # All 40 layers and the whole vocabulary, so that a step makes the calls of the real one, with as many
    # experts to a token; of fewer, which makes the file a tenth.
    whole = PRESETS["qwen3.5-35b-a3b"]
    if whole.experts is None:
        raise ValueError(f"{whole.name}: expected experts")
    shape = replace(whole, experts=replace(whole.experts, n_expert=16))
    yield Job(
        group="python",
        work="Python's share of a decode step, 35B-A3B",
        file=ModelFile("35b-a3b-16-experts", shape, "Q4_K"),
        goals={"python": Goal(at_most=0.03)},
        kind="python",
    )


def _load(choice: Choice) -> Iterator[Job]:
    goals = {"load": Goal(ratio=1.0)}
    yield Job(
        group="load", work="load to first token, 35B-A3B", file=_base_file(choice), goals=goals, kind="load"
    )


GROUPS: Mapping[str, Callable[[Choice], Iterator[Job]]] = {
    "moe": _moe,
    "batch": _batch,
    "python": _python,
    "load": _load,
    "dense-4b": _dense("dense-4b", "dense 4B", "qwen3-4b", 8),
    "dense-8b": _dense("dense-8b", "dense 8B", "llama-3.1-8b", 4),
    "delta": _delta,
    "depth": _deep("depth", DEPTHS),
    "depth-100k": _deep("depth-100k", (DEEPEST,)),
}
