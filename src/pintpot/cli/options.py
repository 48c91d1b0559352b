"""The flags that commands share: of those that load a model, named as llama.cpp names them, and of those that
plan for a machine."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from pintpot.errors import UsageError

_SAMPLING = "Sampling"
_OUTPUT = "Output"
_MACHINE = "Machine"
LIMITS = "Limits (default: chosen)"
_DESCRIBED = "A machine in words (default: this one)"

Model: TypeAlias = Annotated[
    str, typer.Argument(help="A GGUF file, or `demo` for the built-in model.", show_default=False)
]

# --- the prompt and the answer
Prompt: TypeAlias = Annotated[
    str | None,
    typer.Argument(help="What to say; without it, a conversation (or standard input).", show_default=False),
]
PromptFile: TypeAlias = Annotated[
    Path | None, typer.Option("-f", "--file", help="Read the prompt from a file.", show_default=False)
]
SystemPrompt: TypeAlias = Annotated[
    str | None, typer.Option("-sys", "--system-prompt", help="System message.", show_default=False)
]
Raw: TypeAlias = Annotated[
    bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
]
NPredict: TypeAlias = Annotated[
    int,
    typer.Option(
        "-n", "--predict", "--n-predict", min=-1, help="Most tokens to generate; -1: until it ends."
    ),
]
Stop: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "-r", "--reverse-prompt", "--stop", help="Stop at this text (repeatable).", show_default=False
    ),
]
IgnoreEos: TypeAlias = Annotated[
    bool, typer.Option("--ignore-eos", help="Go on after the end-of-generation token.")
]

# --- sampling
Temperature: TypeAlias = Annotated[
    float,
    typer.Option(
        "--temp",
        "--temperature",
        help="Temperature; 0: always the likeliest token.",
        rich_help_panel=_SAMPLING,
    ),
]
TopK: TypeAlias = Annotated[
    int,
    typer.Option("--top-k", help="Only the K likeliest tokens; 0: off.", rich_help_panel=_SAMPLING),
]
TopP: TypeAlias = Annotated[
    float,
    typer.Option(
        "--top-p", help="Only the likeliest tokens that make up P; 1: off.", rich_help_panel=_SAMPLING
    ),
]
MinP: TypeAlias = Annotated[
    float,
    typer.Option(
        "--min-p", help="Only tokens P times as likely as the likeliest; 0: off.", rich_help_panel=_SAMPLING
    ),
]
TypicalP: TypeAlias = Annotated[
    float,
    typer.Option(
        "--typical", "--typical-p", help="Locally typical sampling; 1: off.", rich_help_panel=_SAMPLING
    ),
]
RepeatPenalty: TypeAlias = Annotated[
    float,
    typer.Option(
        "--repeat-penalty", help="Divides what repeated tokens score; 1: off.", rich_help_panel=_SAMPLING
    ),
]
RepeatLastN: TypeAlias = Annotated[
    int,
    typer.Option(
        "--repeat-last-n", help="Tokens penalties look back; 0: off, -1: all.", rich_help_panel=_SAMPLING
    ),
]
FrequencyPenalty: TypeAlias = Annotated[
    float,
    typer.Option(
        "--frequency-penalty", help="Taken off for each repetition; 0: off.", rich_help_panel=_SAMPLING
    ),
]
PresencePenalty: TypeAlias = Annotated[
    float,
    typer.Option(
        "--presence-penalty", help="Taken off once for any repetition; 0: off.", rich_help_panel=_SAMPLING
    ),
]
Seed: TypeAlias = Annotated[
    int,
    typer.Option("-s", "--seed", min=-1, help="-1: different every time.", rich_help_panel=_SAMPLING),
]
LogitBias: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "-l",
        "--logit-bias",
        metavar="ID(+/-)BIAS",
        help="Make a token likelier or not: 15043+1 (repeatable).",
        show_default=False,
        rich_help_panel=_SAMPLING,
    ),
]

# --- what is printed
Logprobs: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--logprobs",
        min=0,
        help="With --json: log-probabilities, and those of the N likeliest tokens.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of text.", rich_help_panel=_OUTPUT)
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("-q", "--quiet", help="No speed and memory line.", rich_help_panel=_OUTPUT)
]

# --- how it is run
CtxSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "-c",
        "--ctx-size",
        min=1,
        help="Tokens the context holds (default: the model's, at most 32768, and what memory holds).",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "-t",
        "--threads",
        min=1,
        help="CPU threads (default: one a physical core).",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]
BatchSize: TypeAlias = Annotated[
    int,
    typer.Option(
        "-b", "--batch-size", min=1, help="Prompt tokens computed together.", rich_help_panel=_MACHINE
    ),
]
AnyBatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "-b",
        "--batch-size",
        min=1,
        help="Prompt tokens computed together (default: 512, or what is planned).",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]
AnyCacheTypeK: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-ctk",
        "--cache-type-k",
        help="Type of cached keys: f32, f16, q8_0 (default: f16, or what is planned).",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]
AnyCacheTypeV: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-ctv",
        "--cache-type-v",
        help="Type of cached values: f32, f16, q8_0 (default: f16, or what is planned).",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]
Accelerator: TypeAlias = Annotated[
    str,
    typer.Option(
        "--accelerator",
        metavar="none|cpu|cuda|auto",
        help="What computes beside the CPU; cpu: emulated, in --vram bytes of RAM.",
        rich_help_panel=_MACHINE,
    ),
]
Vram: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--vram",
        help="Most memory to use of the accelerator, such as 8GiB.",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]
ExpertPolicy: TypeAlias = Annotated[
    str,
    typer.Option(
        "--expert-policy",
        metavar="adaptive|static|lru|lfu",
        help="Which experts keep their places on the accelerator.",
        rich_help_panel=_MACHINE,
    ),
]
ExpertProfile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--expert-profile",
        help="An importance matrix (pintpot imatrix): its likeliest experts lie there at first; none: "
        "not even that of MODEL.imatrix.gguf.",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]
SpecType: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--spec-type",
        metavar="none|ngram-simple",
        help="Guess tokens from the text so far and verify several at once, as long as that is faster"
        " (default: ngram-simple on the CPU alone).",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]
SpecNgramSizeN: TypeAlias = Annotated[
    int,
    typer.Option(
        "--spec-ngram-simple-size-n",
        help="Tokens that must have occurred before, for what followed to be guessed.",
        rich_help_panel=_MACHINE,
    ),
]
SpecNgramSizeM: TypeAlias = Annotated[
    int,
    typer.Option("--spec-ngram-simple-size-m", help="Most tokens guessed at once.", rich_help_panel=_MACHINE),
]
CacheTypeK: TypeAlias = Annotated[
    str,
    typer.Option(
        "-ctk", "--cache-type-k", help="Type of cached keys: f32, f16, q8_0.", rich_help_panel=_MACHINE
    ),
]
CacheTypeV: TypeAlias = Annotated[
    str,
    typer.Option(
        "-ctv", "--cache-type-v", help="Type of cached values: f32, f16, q8_0.", rich_help_panel=_MACHINE
    ),
]


# --- what is planned for
class Engine(StrEnum):
    PINTPOT = "pintpot"
    LLAMA_CPP = "llama.cpp"


PlanEngine: TypeAlias = Annotated[Engine, typer.Option("--engine", help="Whose placement and efficiency.")]
LimitCtx: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "-c",
        "--ctx-size",
        min=1,
        help="Context.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
LimitCacheTypeK: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-ctk",
        "--cache-type-k",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
LimitCacheTypeV: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-ctv",
        "--cache-type-v",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
LimitGpuLayers: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "-ngl",
        "--n-gpu-layers",
        min=0,
        help="Layers on the GPU.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
LimitCpuMoe: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "-ncmoe",
        "--n-cpu-moe",
        min=0,
        help="Experts of the first N layers stay in RAM.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
LimitOverrideTensor: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "-ot",
        "--override-tensor",
        metavar="PATTERN=CPU|GPU",
        help="Where tensors lie whose name the regular expression finds (repeatable).",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
LimitGpuExperts: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--gpu-experts",
        min=0,
        help="Experts in VRAM, of every layer.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
LimitDepth: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--depth",
        min=0,
        help="Tokens in the context when speed is judged; default a share of it.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
MachineGpu: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help='A card by name ("RTX 5060 Ti 16GB"), or none.',
        show_default=False,
        rich_help_panel=_DESCRIBED,
    ),
]
PlanAccelerator: TypeAlias = Annotated[
    str,
    typer.Option(
        "--accelerator",
        metavar="auto|cpu",
        help="cpu: the one that `pintpot run --accelerator cpu` emulates in --vram bytes.",
        rich_help_panel=_DESCRIBED,
    ),
]
MachineVram: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--vram",
        help="Its memory, such as 8GiB.",
        show_default=False,
        rich_help_panel=_DESCRIBED,
    ),
]
MachineRam: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ram",
        help="Memory, such as 32GiB.",
        show_default=False,
        rich_help_panel=_DESCRIBED,
    ),
]
MachineRamBandwidth: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ram-bandwidth",
        help="Such as 60GB/s.",
        show_default=False,
        rich_help_panel=_DESCRIBED,
    ),
]
MachineCores: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--cores",
        min=1,
        help="CPU cores.",
        show_default=False,
        rich_help_panel=_DESCRIBED,
    ),
]


def parse_logit_bias(items: list[str]) -> dict[int, float]:
    """`15043+1`, `15043-0.5`, `15043-inf` as llama.cpp writes them."""
    biases = {}
    for item in items:
        parts = re.fullmatch(r"(\d+)([+-](?:inf|\d+\.?\d*))", item)
        if parts is None:
            raise UsageError(f"--logit-bias {item!r}: expected TOKEN_ID(+/-)BIAS, such as 15043+1")
        biases[int(parts[1])] = float(parts[2])
    return biases
