"""The command tree. Each command imports what it needs when it runs, so that `--help` stays quick."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

_NAMES: Final = (
    "run", "show", "bench", "plan", "recommend", "convert", "imatrix", "doctor", "quantize", "synth",
)  # fmt: skip


class _Commands(Mapping[str, Any]):
    """Command NAME is the function NAME of `pintpot.cli.NAME`, imported when it is asked for: all together
    take a tenth of a second."""

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        alone = typer.Typer(add_completion=False)
        alone.command(name)(getattr(import_module(f"pintpot.cli.{name}"), name))
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]  # is only read


app = typer.Typer(
    name="pintpot",
    cls=_Group,
    help="Run language models that are bigger than your GPU, as fast as this machine allows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from pintpot import __version__

        typer.echo(f"pintpot {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when pintpot itself fails.")
    ] = False,
) -> None:
    """Exit codes: 0 done, 1 error, 2 wrong usage, 70 a bug in pintpot, 130 interrupted."""
