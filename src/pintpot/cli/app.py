"""The command tree. Each command imports what it needs when it runs, so that `--help` stays quick."""

from __future__ import annotations

from typing import Annotated

import typer

from pintpot.cli import bench, convert, doctor, imatrix, plan, quantize, recommend, run, show, synth

app = typer.Typer(
    name="pintpot",
    help="Run language models that are bigger than your GPU, as fast as this machine allows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("run")(run.run)
app.command("show")(show.show)
app.command("bench")(bench.bench)
app.command("plan")(plan.plan)
app.command("recommend")(recommend.recommend)
app.command("convert")(convert.convert)
app.command("imatrix")(imatrix.imatrix)
app.command("doctor")(doctor.doctor)
app.command("quantize")(quantize.quantize)
app.command("synth")(synth.synth)


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
