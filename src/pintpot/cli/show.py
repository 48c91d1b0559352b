"""`pintpot show`: what a model file holds."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pintpot.cli.options import Model
from pintpot.cli.text import human_bytes, human_count, without_controls

if TYPE_CHECKING:
    from pintpot.gguf import GGUFFile
    from pintpot.spec import LayerSpec, ModelSpec


def show(
    model: Model,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    metadata: Annotated[bool, typer.Option("--metadata", help="List every metadata key.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print the chat template.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a model file holds: shape, bytes by type, tokenizer."""
    from pintpot.errors import UnsupportedError
    from pintpot.gguf import GGUFFile
    from pintpot.spec import ModelSpec
    from pintpot.store.resolve import resolve_model

    file = GGUFFile.open(resolve_model(model))
    if template:
        typer.echo(without_controls(str(file.metadata.get("tokenizer.chat_template", ""))))
        return
    spec, unsupported = None, None
    try:
        spec = ModelSpec.from_gguf(file)
    except UnsupportedError as error:
        unsupported = str(error)
    facts = _facts(file, spec)
    if unsupported:
        facts["unsupported"] = unsupported
    if tensors:
        facts["tensors"] = [
            {"name": t.name, "type": t.type_name, "shape": list(t.shape), "bytes": t.nbytes}
            for t in file.tensors.values()
        ]
    if metadata:
        facts["metadata"] = {key: _brief(file.metadata[key]) for key in file.metadata}
    if json_output:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        _print(facts, spec)


def _facts(file: GGUFFile, spec: ModelSpec | None) -> dict[str, Any]:
    from pintpot.spec import measure

    size = measure(file, spec)
    n_tensors = Counter(t.type_name for t in file.tensors.values())
    n_params: Counter[str] = Counter()
    for t in file.tensors.values():
        n_params[t.type_name] += t.n_values
    return {
        "file": str(file.path),
        "parts": len(file.parts),
        "gguf_version": file.version,
        "architecture": str(file.metadata.get("general.architecture", "")),
        "name": str(file.metadata.get("general.name", "")),
        "license": str(file.metadata.get("general.license", "")),
        "weights_bytes": size.weights_bytes,
        "experts_bytes": size.experts_bytes,
        "parameters": size.n_params,
        "parameters_active": size.n_params_active,
        "parameters_experts": size.n_params_experts,
        "types": {
            name: {"bytes": n, "parameters": n_params[name], "tensors": n_tensors[name]}
            for name, n in size.bytes_by_type.items()
        },
        "tokenizer": _tokenizer_facts(file),
        "spec": asdict(spec) if spec else None,
    }


def _tokenizer_facts(file: GGUFFile) -> dict[str, Any]:
    def token(key: str) -> int | None:
        value = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        return value if isinstance(value, int) else None

    tokens = "tokenizer.ggml.tokens"
    info = file.metadata.array_info(tokens) if tokens in file.metadata else None
    return {
        "model": str(file.metadata.get("tokenizer.ggml.model", "")),
        "pre": str(file.metadata.get("tokenizer.ggml.pre", "")),
        "tokens": info[1] if info else 0,
        "bos_token_id": token("bos"),
        "eos_token_id": token("eos"),
        "chat_template": "tokenizer.chat_template" in file.metadata,
    }


def _brief(value: object) -> object:
    """A metadata value short enough to print."""
    if isinstance(value, str):
        return value if len(value) <= 200 else f"{value[:200]}… ({len(value):,} characters)"
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        items = [_brief(v) for v in value[:8]]
        return items if len(value) <= 8 else [*items, f"… {len(value):,} in all"]
    return value.item() if hasattr(value, "item") else value


def _layer_text(layer: LayerSpec) -> tuple[str, str]:
    """A layer's mixer and feed-forward block in words."""
    from pintpot.spec import AttentionLayer, DenseFFN

    m, f = layer.mixer, layer.ffn
    if isinstance(m, AttentionLayer):
        heads = f"{m.n_head} heads, {m.n_head_kv} KV x {m.head_dim_k}"
        mixer = f"sliding window {m.window:,}, {heads}" if m.window else f"attention, {heads}"
    else:
        mixer = f"gated delta net, {m.n_head_v} heads x {m.head_dim_v}"
    if isinstance(f, DenseFFN):
        return mixer, f"dense {f.n_ff:,}"
    shared = f", shared {f.n_ff_shared:,}" if f.n_ff_shared else ""
    dense = f", dense {f.n_ff_dense:,}" if f.n_ff_dense else ""
    return mixer, f"{f.n_expert} experts x {f.n_ff:,}, {f.n_expert_used} a token{shared}{dense}"


def _plain(value: Any) -> Any:
    """The same facts with texts made harmless: no control characters, no markup of the table printer."""
    from rich.markup import escape

    if isinstance(value, str):
        return escape(without_controls(value))
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _print(facts: dict[str, Any], spec: ModelSpec | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold")
    rows.add_column(overflow="fold")
    facts = _plain(facts)
    parts = f" ({facts['parts']} parts)" if facts["parts"] > 1 else ""
    rows.add_row("file", f"{facts['file']}{parts}, GGUF v{facts['gguf_version']}")
    rows.add_row("model", f"{facts['name'] or '(no name)'} ({facts['architecture'] or 'no architecture'})")
    if facts["license"]:
        rows.add_row("license", facts["license"])
    n_params, n_active = facts["parameters"], facts["parameters_active"]
    active = f", {human_count(n_active)} active a token" if n_active < n_params else ""
    rows.add_row("size", f"{human_bytes(facts['weights_bytes'])}, {human_count(n_params)} parameters{active}")
    if facts["experts_bytes"]:
        share = facts["experts_bytes"] / facts["weights_bytes"]
        rows.add_row("experts", f"{human_bytes(facts['experts_bytes'])}, {share:.0%} of the weights")
    if spec:
        mtp = f" + {spec.n_layer_mtp} for multi-token prediction (not run)" if spec.n_layer_mtp else ""
        rows.add_row("layers", f"{spec.n_layer}{mtp}, width {spec.n_embd:,}")
        kinds = Counter(_layer_text(layer) for layer in spec.layers)
        for (mixer, ffn), n in kinds.items():
            rows.add_row(f"{n:5} x", f"{mixer}; {ffn}")
        rows.add_row("context", f"{spec.ctx_train:,} tokens as trained")
    else:
        rows.add_row("runs here", f"no: {facts['unsupported']}")
    t = facts["tokenizer"]
    template = "with a chat template" if t["chat_template"] else "no chat template"
    pre = f", {t['pre']}" if t["pre"] else ""
    rows.add_row("tokenizer", f"{t['model'] or 'none'}{pre}, {t['tokens']:,} tokens, {template}")
    console.print(rows)

    types = Table(title="weights by type", title_justify="left", title_style="bold")
    for name in ("type", "tensors", "parameters", "bytes", "bits each"):
        types.add_column(name, justify="left" if name == "type" else "right")
    for name, t in facts["types"].items():
        bits = 8 * t["bytes"] / t["parameters"]
        types.add_row(
            name, str(t["tensors"]), human_count(t["parameters"]), human_bytes(t["bytes"]), f"{bits:.4g}"
        )
    console.print(types)
    for key, value in facts.get("metadata", {}).items():
        console.print(f"[bold]{key}[/] = ", end="", soft_wrap=True)
        console.print(repr(value), markup=False, soft_wrap=True)
    if "tensors" in facts:
        index = Table("tensor", "type", "shape", "bytes")
        for t in facts["tensors"]:
            index.add_row(t["name"], t["type"], " x ".join(f"{n:,}" for n in t["shape"]), f"{t['bytes']:,}")
        console.print(index)
