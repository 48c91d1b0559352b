"""Flags that several commands share, named as llama.cpp names them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

_MACHINE = "Machine"

Model: TypeAlias = Annotated[
    str, typer.Argument(help="A GGUF file, or `demo` for the built-in model.", show_default=False)
]
CtxSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "-c",
        "--ctx-size",
        min=1,
        help="Tokens the context holds (default: the model's, at most 32768).",
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
