"""`pintpot imatrix`: how much each column of each weight matrix matters, told by text that runs through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pintpot.cli.options import BatchSize, CacheTypeK, CacheTypeV, Threads
from pintpot.cli.text import note, without_controls
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.quantization.collect import Collector, Perplexity
    from pintpot.quantization.importance import Imatrix

_LISTED = 16  # experts named in a line, at most
_TABLE_WIDTH = 110  # names are told whole, even into a pipe


def imatrix(
    model: Annotated[
        str | None,
        typer.Argument(help="A GGUF file, or `demo` for the built-in model.", show_default=False),
    ] = None,
    text: Annotated[
        str | None,
        typer.Argument(help="A UTF-8 text file, like what the model will be used for.", show_default=False),
    ] = None,
    model_option: Annotated[
        str | None, typer.Option("-m", "--model", help="MODEL, as llama-imatrix takes it.")
    ] = None,
    text_option: Annotated[
        str | None, typer.Option("-f", "--file", help="TEXT, as llama-imatrix takes it.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--output", "--output-file", help="The file to write.")] = Path(
        "imatrix.gguf"
    ),
    in_file: Annotated[
        list[Path] | None,
        typer.Option("--in-file", help="Add an earlier imatrix file (repeatable); without TEXT: only merge."),
    ] = None,
    ctx_size: Annotated[int, typer.Option("-c", "--ctx-size", min=2, help="Tokens of a chunk.")] = 512,
    chunks: Annotated[
        int | None, typer.Option("--chunks", min=1, help="Chunks to read, at most.", show_default=False)
    ] = None,
    from_chunk: Annotated[
        int, typer.Option("--from-chunk", "--chunk", min=0, help="Chunks to skip first.")
    ] = 0,
    process_output: Annotated[
        bool, typer.Option("--process-output", help="Also collect for the output head.")
    ] = False,
    parse_special: Annotated[
        bool, typer.Option("--parse-special", help="Take control tokens spelled out in TEXT as such.")
    ] = False,
    no_ppl: Annotated[bool, typer.Option("--no-ppl", help="Do not compute perplexity.")] = False,
    output_frequency: Annotated[
        int,
        typer.Option(
            "-ofreq",
            "--output-frequency",
            min=0,
            help="Write after every so many chunks too (0: at the end).",
        ),
    ] = 10,
    show_statistics: Annotated[
        bool, typer.Option("--show-statistics", help="Print a table of an imatrix file (MODEL or --in-file).")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    threads: Threads = None,
    batch_size: BatchSize = 512,
    cache_type_k: CacheTypeK = "f16",
    cache_type_v: CacheTypeV = "f16",
) -> None:
    """Collect an importance matrix: run TEXT through MODEL and sum up what every weight is multiplied with.

    Quantizing with it keeps the columns that matter more exact. The file is llama.cpp's imatrix format.
    """
    from pintpot.llm import load
    from pintpot.quantization.collect import Collector
    from pintpot.quantization.importance import merge, read_imatrix, write_imatrix

    files = in_file or []
    if show_statistics:
        _show_statistics([*files, *(Path(name) for name in (model, text) if name)])
        return
    model, text = _model_and_text(model_option, text_option, [name for name in (model, text) if name])
    if out.exists() and not force:
        raise UsageError(f"{out}: exists already; choose another name (-o) or give --force")
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; give the output file's name (-o)")
    if not out.parent.is_dir():
        raise UsageError(
            f"{out.parent}: no such folder; make it, or choose another place for the output (-o)"
        )
    if (text is None or model is None) and (not files or text or model):
        raise UsageError("give MODEL and TEXT, or --in-file files alone to merge them")
    earlier = [read_imatrix(path, legacy_chunk_tokens=ctx_size) for path in files]
    if text is None or model is None:
        _finish(out, merge(earlier), None)
        return
    words = Path(text).read_bytes().decode("utf-8", "replace")
    llm = load(
        model,
        ctx=ctx_size,
        threads=threads,
        batch=min(batch_size, ctx_size),
        cache_type_k=cache_type_k,
        cache_type_v=cache_type_v,
        accelerator="none",  # inputs of experts are recorded on the CPU
    )
    collector = Collector(
        llm.engine,
        llm.tokenizer.encode(words, parse_special=parse_special),
        chunk_tokens=ctx_size,
        first_chunk=from_chunk,
        max_chunks=chunks,
        process_output=process_output,
        perplexity=not no_ppl,
        dataset=text,
    )
    with collector:
        done = saved = 0
        try:
            for done in _with_progress(collector):
                if output_frequency and done % output_frequency == 0 and done < collector.n_chunks:
                    write_imatrix(out, merge([*earlier, collector.imatrix()]))
                    saved = done
        except KeyboardInterrupt:
            kept = f"{out} holds the first {saved}" if saved else "nothing was written"
            note(f"interrupted after {done} of {collector.n_chunks} chunks: {kept}")
            raise
        _finish(out, merge([*earlier, collector.imatrix()]), None if no_ppl else collector.perplexity)


def _model_and_text(model: str | None, text: str | None, names: list[str]) -> tuple[str | None, str | None]:
    """Names without a flag stand for what -m and -f have not given, in this order."""
    model = model or (names.pop(0) if names else None)
    text = text or (names.pop(0) if names else None)
    if names:
        raise UsageError(f"{names[0]}: one name too many; MODEL and TEXT are given already")
    return model, text


def _with_progress(collector: Collector) -> Iterator[int]:
    """Runs the collector under a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("chunks", total=collector.n_chunks)
        for done in collector.run():
            ppl = collector.perplexity
            bar.update(task, completed=done, description=f"ppl {ppl.value:.4g}" if ppl.n_tokens else "chunks")
            yield done


def _finish(out: Path, result: Imatrix, perplexity: Perplexity | None) -> None:
    from pintpot.quantization.importance import expert_reach, write_imatrix

    write_imatrix(out, result)
    summary = (
        f"{out}: {len(result.tensors)} tensors, {result.chunk_count} chunks of {result.chunk_tokens} tokens"
    )
    if perplexity is not None and perplexity.n_tokens:
        summary += f"; perplexity {perplexity.value:.4f} ± {perplexity.error:.4f}"
    note(summary)
    reach = expert_reach(result)
    n_unreached, n_experts = sum(len(r.unreached) for r in reach), sum(r.n_expert for r in reach)
    if n_unreached:
        share = 100 * n_unreached / n_experts
        note(f"experts the text never reached: {n_unreached} of {n_experts} ({share:.1f}%)")
    for layer in reach:
        if layer.unreached:
            named = ", ".join(map(str, layer.unreached[:_LISTED]))
            more = f" and {len(layer.unreached) - _LISTED} more" if len(layer.unreached) > _LISTED else ""
            note(f"  layer {layer.layer}: {named}{more} (of {layer.n_expert})")


def _show_statistics(files: list[Path]) -> None:
    """Columns' mean squares by tensor, as narrow as a terminal; experts without data are left out."""
    from rich.console import Console
    from rich.table import Table

    from pintpot.quantization.importance import read_imatrix

    if len(files) != 1:
        raise UsageError("--show-statistics: give one imatrix file")
    data = read_imatrix(files[0])
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("tensor", "columns", "tokens", "min", "mean", "max", "unreached"):
        table.add_column(name, justify="left" if name == "tensor" else "right", no_wrap=True)
    for name in sorted(data.tensors, key=_by_layer):
        tensor = data.tensors[name]
        reached = tensor.counts > 0
        mean = tensor.sum2[reached] / tensor.counts[reached, None]
        n_mats, cols = tensor.sum2.shape
        numbers = ["-"] * 3
        if mean.size:
            numbers = [f"{value:.3g}" for value in (mean.min(), mean.mean(), mean.max())]
        columns = f"{n_mats} x {cols}" if n_mats > 1 else str(cols)
        unreached = f"{100 * len(tensor.unreached) / n_mats:.1f}%" if n_mats > 1 else ""
        table.add_row(without_controls(name), columns, f"{tensor.counts.sum():,}", *numbers, unreached)
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(table)
    texts = ", ".join(map(without_controls, data.datasets)) or "unnamed text"
    typer.echo(f"{data.chunk_count} chunks of {data.chunk_tokens} tokens; {texts}")


def _by_layer(name: str) -> tuple[int, str]:
    parts = name.split(".")
    return (int(parts[1]) if len(parts) > 1 and parts[1].isdecimal() else -1, name)
