"""`pintpot quantize`: a model in a smaller type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pintpot.cli.options import Threads
from pintpot.cli.progress import ByteBar
from pintpot.cli.text import human_bytes, note, without_controls
from pintpot.errors import UsageError

if TYPE_CHECKING:
    from pintpot.quantization.plan import QuantizePlan
    from pintpot.quantization.run import QuantizeResult

_TYPES = "Types"
_SAFETY = "Safety"


def quantize(
    model: Annotated[str, typer.Argument(metavar="IN", help="A GGUF file, or `demo`.", show_default=False)],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OUT] [TYPE]",
            help="The file to write (default: beside IN, named after TYPE), and the type, from large to "
            "small: F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_0, Q4_K_M, Q4_K_S, Q4_0, IQ4_NL, MXFP4 "
            "(experts), IQ4_XS, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K, Q2_K_S. No type with --target-size.",
            show_default=False,
        ),
    ] = None,
    target_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Instead of TYPE: the most exact file of at most this size, such as 12GiB. Measures what "
            "each type costs each tensor and gives every tensor its own.",
            show_default=False,
            rich_help_panel=_TYPES,
        ),
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="--target-size of what this machine's free RAM holds beside the model's default context.",
            rich_help_panel=_TYPES,
        ),
    ] = False,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            "--imatrix", help="Importance matrix, as `pintpot imatrix` writes it.", show_default=False
        ),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type",
            metavar="REGEX=TYPE",
            help="Type of tensors whose name contains REGEX; repeatable.",
            show_default=False,
            rich_help_panel=_TYPES,
        ),
    ] = None,
    output_tensor_type: Annotated[
        str | None,
        typer.Option(help="Type of output.weight.", show_default=False, rich_help_panel=_TYPES),
    ] = None,
    token_embedding_type: Annotated[
        str | None,
        typer.Option(help="Type of the token embeddings.", show_default=False, rich_help_panel=_TYPES),
    ] = None,
    pure: Annotated[
        bool, typer.Option("--pure", help="One type for every matrix, no mix.", rich_help_panel=_TYPES)
    ] = False,
    leave_output_tensor: Annotated[
        bool,
        typer.Option("--leave-output-tensor", help="Keep output.weight as it is.", rich_help_panel=_TYPES),
    ] = False,
    keep_split: Annotated[bool, typer.Option("--keep-split", help="Write as many parts as IN has.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print types and exact sizes; write nothing (and read no weight, but for --target-size).",
        ),
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite an existing file.", rich_help_panel=_SAFETY)
    ] = False,
    allow_requantize: Annotated[
        bool,
        typer.Option(
            "--allow-requantize", help="Quantize what is quantized already.", rich_help_panel=_SAFETY
        ),
    ] = False,
    allow_nan: Annotated[
        bool,
        typer.Option(
            "--allow-nan", help="Zeros in place of NaN and infinite weights.", rich_help_panel=_SAFETY
        ),
    ] = False,
    threads: Threads = None,
) -> None:
    """Quantize a model: the tensor types and sizes of llama-quantize, or the best that fits a size."""
    from pintpot.quantization.run import execute, prepare

    target_bytes = _target_bytes(model, target_size, fit=fit)
    out, quant = _out_and_type(names or [], sized=target_bytes is not None)
    with ByteBar("measuring") as bar:
        plan = prepare(
            model,
            out,
            quant,
            target_bytes=target_bytes,
            threads=threads,
            progress=bar.update if target_bytes is not None else None,
            imatrix=imatrix,
            tensor_types=tensor_type or (),
            output_tensor_type=output_tensor_type,
            token_embedding_type=token_embedding_type,
            pure=pure,
            leave_output_tensor=leave_output_tensor,
            allow_requantize=allow_requantize,
            keep_split=keep_split,
            force=force or dry_run,
        )
    if dry_run:
        if json_output:
            typer.echo(json.dumps(_plan_facts(plan), indent=1))
        else:
            _print_plan(plan)
        return
    with ByteBar("quantizing") as bar:
        result = execute(plan, force=force, allow_nan=allow_nan, threads=threads, progress=bar.update)
    if json_output:
        typer.echo(json.dumps(_result_facts(result), indent=1))
    else:
        _tell(result)


def _target_bytes(model: str, target_size: str | None, *, fit: bool) -> int | None:
    """What --target-size says, or what --fit finds; None without either."""
    if target_size is not None:
        from pintpot.hardware.words import parse_bytes

        if fit:
            raise UsageError("--fit and --target-size both name a size: give one of them")
        return parse_bytes("--target-size", target_size)
    if not fit:
        return None
    from pintpot.gguf import GGUFFile
    from pintpot.hardware.probe import probe
    from pintpot.planner.fit import weights_budget
    from pintpot.planner.limits import Limits
    from pintpot.spec import ModelSpec
    from pintpot.store.resolve import resolve_model

    spec = ModelSpec.from_gguf(GGUFFile.open(resolve_model(model)))
    return weights_budget(spec, probe(), Limits())


def _out_and_type(names: list[str], *, sized: bool) -> tuple[str | None, str | None]:
    """`[OUT] TYPE`, or `[OUT]` where a size takes the place of a type."""
    from pintpot.quants.names import parse_quant

    most, expected = (1, "[OUT] with --target-size or --fit") if sized else (2, "[OUT] TYPE")
    if len(names) > most or (not names and not sized):
        raise UsageError(f"{' '.join(names) or 'no type is given'}: expected IN {expected}")
    if sized and names and parse_quant(names[0]) is not None:
        raise UsageError(f"{names[0]} is a type; give either a type or --target-size")
    if sized:
        return (names[0] if names else None), None
    return (names[0] if len(names) == 2 else None), names[-1]


def _tell(result: QuantizeResult) -> None:
    for path, size in result.removed:
        note(f"{path}: removed, {human_bytes(size)} that an interrupted run had left")
    if result.n_fallback:
        note(f"{result.n_fallback} tensors have rows that do not fit the type and fell back (see --dry-run)")
    if result.unweighted:
        more = f" and {len(result.unweighted) - 1} more" if len(result.unweighted) > 1 else ""
        note(f"the importance matrix says nothing about {without_controls(result.unweighted[0])}{more}")
    if result.n_replaced:
        note(f"{result.n_replaced} NaN or infinite weights became zeros")
    for path in result.paths:
        note(
            f"{path}: {human_bytes(path.stat().st_size)}, {result.bits_per_weight:.2f} bits a weight"
            if len(result.paths) == 1
            else str(path)
        )


def _result_facts(result: QuantizeResult) -> dict[str, Any]:
    return {
        "files": [str(path) for path in result.paths],
        "bytes": result.nbytes,
        "source_bytes": result.source_nbytes,
        "parameters": result.n_params,
        "bits_per_weight": result.bits_per_weight,
        "bytes_by_type": dict(result.bytes_by_type),
        "fallback_tensors": result.n_fallback,
        "tensors_without_importance": list(result.unweighted),
        "weights_replaced": result.n_replaced,
        "unfinished_files_removed": [str(path) for path, _ in result.removed],
    }


def _plan_facts(plan: QuantizePlan) -> dict[str, Any]:
    from pintpot.gguf import type_name

    return {
        "type": plan.recipe.name,
        "files": [{"path": str(output.path), "bytes": output.nbytes} for output in plan.outputs],
        "bytes": plan.nbytes,
        "source_bytes": plan.source.nbytes,
        "problem": plan.problem,
        "tensors": [
            {
                "name": t.name,
                "shape": list(t.source.shape),
                "from": t.source.type_name,
                "to": type_name(t.decl.ggml_type),
                "why": str(t.why),
                "source_bytes": t.source.nbytes,
                "bytes": t.decl.nbytes,
            }
            for t in plan.tensors
        ],
    }


def _print_plan(plan: QuantizePlan) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    facts = _plan_facts(plan)
    console = Console(highlight=False)
    table = Table("tensor", "shape", "from", "to", "why", box=None, pad_edge=False)
    table.add_column("bytes", justify="right")
    for t in facts["tensors"]:
        shape = " x ".join(f"{n:,}" for n in t["shape"])
        becomes = t["to"] if t["to"] != t["from"] else ""
        name = escape(without_controls(t["name"]))
        table.add_row(name, shape, t["from"], becomes, t["why"], f"{t['bytes']:,}")
    console.print(table)
    console.print(str(plan.recipe), markup=False, soft_wrap=True)
    for output in plan.outputs:
        console.print(f"{output.path}: {output.nbytes:,} bytes", markup=False, soft_wrap=True)
    n_params = sum(t.source.n_values for t in plan.tensors)
    bits = 8 * sum(t.decl.nbytes for t in plan.tensors) / max(1, n_params)
    console.print(
        f"{human_bytes(plan.source.nbytes)} become {human_bytes(plan.nbytes)}, {bits:.2f} bits a weight"
    )
    if plan.problem is not None:
        note(f"a run would stop: {plan.problem}")
