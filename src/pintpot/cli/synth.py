"""`pintpot synth`: a random-weight model of a real shape, for benchmarks without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pintpot.cli.progress import ByteBar
from pintpot.cli.text import human_bytes, human_count, note
from pintpot.errors import UsageError


def synth(
    arch: Annotated[
        str, typer.Argument(help="Architecture (qwen35moe, llama ...) or preset.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.", show_default=False)],
    quant: Annotated[str, typer.Option("--quant", help="Tensor type or mix.")] = "Q4_K_M",
    layers: Annotated[
        int | None, typer.Option("--layers", min=1, help="Write only this many layers.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Size, such as qwen3.5-35b-a3b or toy.", show_default=False),
    ] = None,
    pure: Annotated[bool, typer.Option("--pure", help="Every matrix in the mix's base type.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed writes the same bytes.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a random-weight GGUF of a real shape, with a working tokenizer and realistic expert routing."""
    from pintpot.synth.synthesize import synthesize

    if out.exists() and not force:
        raise UsageError(f"{out}: exists already; choose another name or give --force")
    with ByteBar("writing") as bar:
        result = synthesize(
            out,
            arch,
            quant=quant,
            preset=preset,
            n_layer=layers,
            pure=pure,
            seed=seed,
            progress=bar.update,
        )
    note(f"{result.path}: {human_bytes(result.nbytes)}, {human_count(result.n_params)} parameters")
