"""`pintpot convert`: a Hugging Face folder as one GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pintpot.cli.progress import ByteBar
from pintpot.cli.text import human_bytes, human_count, note, without_controls


def convert(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder with config.json, safetensors and tokenizer.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(help="The GGUF file to write (default: in the folder).", show_default=False),
    ] = None,
    outtype: Annotated[
        str, typer.Option("--outtype", help="Type of matrices: f32, f16, bf16, auto (their own).")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a Hugging Face model (safetensors) as a GGUF file, without torch and without rounding."""
    from pintpot.hf import convert as write_gguf

    with ByteBar("converting") as bar:
        result = write_gguf(folder, out, outtype=outtype, force=force, progress=bar.update)
    for line in result.notes:
        note(f"note: {without_controls(line)}")
    note(
        f"{result.path}: {result.arch} {result.file_type}, {human_bytes(result.nbytes)},"
        f" {human_count(result.n_params)} parameters"
    )
