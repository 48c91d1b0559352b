"""The catalog against what is published: parameter counts, and sizes of files on the hub."""

import copy
import json
import re
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import gguf
import pytest

import pintpot
from pintpot.errors import PintpotError, UnsupportedError, UsageError
from pintpot.quants.recipes import RECIPES, find_recipe
from pintpot.spec import AttentionLayer, DeltaNetLayer, MoEFFN
from pintpot.store import catalog
from pintpot.store.catalog import Entry, find, parse_count

ENTRIES = catalog.entries()
ONE_PER_ARCH = list({entry.arch: entry for entry in ENTRIES}.values())
RUNNABLE = [entry for entry in ENTRIES if entry.runnable]
WITH_FILES = [(entry, quant) for entry in ENTRIES for quant in entry.files]
TABLE = json.loads((Path(pintpot.__file__).parent / "data" / "models.json").read_text())
SHAPE = TABLE["models"][0]["shape"]


def named(entry: Entry) -> str:
    return entry.name


def test_size_of_the_catalog() -> None:
    assert len(ENTRIES) >= 40
    assert len(RUNNABLE) >= 40
    assert {entry.arch for entry in ENTRIES} >= {
        "qwen35moe",
        "gemma4",
        "gpt-oss",
        "deepseek2",
        "nemotron_h_moe",
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_parameters_are_those_published(entry: Entry) -> None:
    total, half_a_digit = parse_count(entry.params)
    assert entry.n_params_published == total
    assert abs(entry.n_params - total) <= max(0.01 * total, half_a_digit)


def test_parameters_to_the_last_digit() -> None:
    """Counts that llama.cpp and model cards give in full."""
    assert find("nemotron-3-nano:30b-a3b")[0].n_params == 31_577_940_288
    assert round(find("qwen3.5:0.8b")[0].n_params, -4) == 752_390_000
    assert round(find("granite4:tiny-h")[0].n_params, -7) == 6_940_000_000


@pytest.mark.parametrize(
    ("name", "active"),
    [("qwen3:30b-a3b", 3.3), ("qwen3:235b-a22b", 22), ("gemma4:26b-a4b", 3.8), ("mixtral:8x7b", 12.9),
     ("llama4:scout", 17), ("nemotron-3-nano:30b-a3b", 3.6), ("lfm2:8b-a1b", 1.5)],
)  # fmt: skip
def test_active_parameters(name: str, active: float) -> None:
    assert find(name)[0].n_params_active == pytest.approx(active * 1e9, rel=0.05)


@pytest.mark.parametrize(("entry", "quant"), WITH_FILES, ids=lambda v: getattr(v, "name", v))
def test_files_on_the_hub_have_the_computed_size(entry: Entry, quant: str) -> None:
    """A file is its tensors and a header of a few MB, the vocabulary."""
    header = entry.files[quant] - entry.weights_bytes(quant, importance=True)
    assert abs(header) <= 0.01 * entry.files[quant]


@pytest.mark.parametrize(
    ("name", "quant", "mtp", "gib"),
    [
        ("llama3.1:8b", "Q4_K_M", False, 4.58),
        ("qwen3:30b-a3b", "Q4_K_M", False, 17.28),
        ("qwen3.5:35b-a3b", "Q6_K", False, 26.55),
        ("qwen3.5:27b", "Q4_K_S", False, 14.49),
        ("qwen3.5:0.8b", "Q8_0", False, 763.78 / 1024),
        ("glm-4.7-flash", "BF16", False, 55.79),
        ("granite4:tiny-h", "IQ4_XS", False, 3.49),
    ],
)
def test_tensor_bytes_that_llama_bench_prints(name: str, quant: str, mtp: bool, gib: float) -> None:
    size = find(name)[0].weights_bytes(quant, importance=True, mtp=mtp)
    assert size / 2**30 == pytest.approx(gib, rel=0.003)


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_every_tensor_has_a_name_of_its_own(entry: Entry) -> None:
    names = [name for name, _ in entry.tensors()]
    assert len(names) == len(set(names))
    assert all(min(ne) > 0 for _, ne in entry.tensors())


@pytest.mark.parametrize("entry", ONE_PER_ARCH, ids=named)
def test_variants_grow_with_their_bits(entry: Entry) -> None:
    variants = entry.variants()
    assert {v.quant for v in variants} <= set(RECIPES)
    assert [v.weights_bytes for v in variants] == sorted(v.weights_bytes for v in variants)
    assert variants[-1].quant == "BF16"
    assert 1.9 * entry.n_params < variants[-1].weights_bytes < 2.15 * entry.n_params


@pytest.mark.parametrize("entry", RUNNABLE, ids=named)
def test_spec_agrees_with_the_shape(entry: Entry) -> None:
    spec, shape = entry.spec(), entry.shape
    assert (spec.arch, spec.n_layer, spec.n_embd, spec.n_vocab) == (
        shape.arch, shape.n_layer, shape.n_embd, shape.n_vocab,
    )  # fmt: skip
    assert spec.ctx_train == entry.ctx_train
    assert spec.tied_output == shape.tied
    assert spec.n_layer_mtp == 0
    if shape.experts is not None:
        ffn = spec.layers[-1].ffn
        assert isinstance(ffn, MoEFFN)
        assert (ffn.n_expert, ffn.n_expert_used) == (shape.experts.n_expert, shape.experts.n_used)


def test_hybrid_layers() -> None:
    mixers = [layer.mixer for layer in find("qwen3.5:35b-a3b")[0].spec().layers]
    assert sum(isinstance(mixer, DeltaNetLayer) for mixer in mixers) == 30
    assert sum(isinstance(mixer, AttentionLayer) for mixer in mixers) == 10
    names = {name for name, _ in find("nemotron-3-nano")[0].tensors()}
    assert sum(name.endswith("ssm_in.weight") for name in names) == 23
    assert sum(name.endswith("attn_q.weight") for name in names) == 6
    assert sum(name.endswith("ffn_up_exps.weight") for name in names) == 23


def test_mtp_layers_are_optional() -> None:
    entry, _ = find("qwen3.5:27b")
    assert entry.spec(mtp=True).n_layer_mtp == 1
    extra = sum(prod(ne) for _, ne in entry.tensors(mtp=True)) - entry.n_params
    assert 0.4e9 < extra < 0.45e9  # llama.cpp counts 27.32 B with it, 26.90 B without


def test_what_does_not_run_has_no_spec() -> None:
    entry, _ = find("phi4:14b")
    assert not entry.runnable
    with pytest.raises(UnsupportedError, match="phi4:14b: architecture phi3 is not supported"):
        entry.spec()


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_sources(entry: Entry) -> None:
    assert entry.as_of
    known_only = any("not read for this table" in source.title for source in entry.sources)
    assert entry.verified is not known_only
    assert re.fullmatch(r"(\d{4}-\d{2})?", entry.released)
    assert "/" in entry.repo


@pytest.mark.parametrize(
    ("text", "name", "quant"),
    [
        ("qwen3.5:35b-a3b-q4_k_m", "qwen3.5:35b-a3b", "Q4_K_M"),
        ("Qwen3.5-35B-A3B-Instruct-Q6_K.gguf", "qwen3.5:35b-a3b", "Q6_K"),
        ("qwen3.5:35b", "qwen3.5:35b-a3b", None),
        ("Qwen/Qwen3-8B", "qwen3:8b", None),
        ("hf.co/unsloth/Qwen3-4B-GGUF:Q8_0", "qwen3:4b", "Q8_0"),
        ("Qwen3-30B-A3B-Thinking-2507", "qwen3:30b-a3b-2507", None),
        ("Llama-3.1-8B", "llama3.1:8b", None),
        ("llama3.1:8b-instruct-q4_K_M", "llama3.1:8b", "Q4_K_M"),
        ("gemma-3-4b-it-Q4_K_M.gguf", "gemma3:4b", "Q4_K_M"),
        ("gpt-oss-20b-MXFP4", "gpt-oss:20b", "MXFP4"),
        ("nemotron-3-nano", "nemotron-3-nano:30b-a3b", None),
        ("phi-4", "phi4:14b", None),
        ("mistral-small3.2", "mistral-small3.2:24b", None),
    ],
)
def test_find(text: str, name: str, quant: str | None) -> None:
    entry, found = find(text)
    assert (entry.name, found) == (name, quant)
    if found is not None:
        assert find_recipe(found)


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_found_by_every_name(entry: Entry) -> None:
    names = [entry.name, entry.repo, *entry.aliases, *filter(None, [entry.gguf_repo])]
    assert all(find(name)[0] is entry for name in names)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("qwen3.5", "did you mean qwen3.5:0.8b, qwen3.5:2b"),
        ("qwen3:31b", "did you mean qwen3:32b"),
        ("no-such-model", "docs/formats/catalog.md"),
    ],
)
def test_unknown_names_get_suggestions(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=rf"is not in the catalog; .*{re.escape(hint)}"):
        find(text)


def test_nothing_but_a_recipe_has_a_size() -> None:
    with pytest.raises(UsageError, match="is not known"):
        ENTRIES[0].weights_bytes("Q9_K")
    with pytest.raises(UsageError, match="COPY"):
        ENTRIES[0].weights_bytes("COPY")


def changed(**changes: Any) -> dict[str, Any]:
    """The table's first model, with fields replaced (None: left out)."""
    model = {**copy.deepcopy(TABLE["models"][0]), **changes}
    return {"sources": TABLE["sources"], "models": [{k: v for k, v in model.items() if v is not None}]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (changed(colour="red"), 'qwen3.5:0.8b: unknown field colour'),
        (changed(license=None), "qwen3.5:0.8b: field 'license' is missing"),
        (changed(vision="yes"), 'qwen3.5:0.8b.vision: is yes, expected bool'),
        (changed(aliases="x"), 'qwen3.5:0.8b.aliases: is x, expected a list'),
        (changed(params="many"), "many is no number of parameters"),
        (changed(shape=None), "qwen3.5:0.8b: field 'shape' is missing"),
        (changed(shape={"like": "nothing"}), 'no earlier model is called nothing'),
        (changed(shape={"arch": "qwen3"}), "qwen3.5:0.8b.shape: field 'n_layer' is missing"),
        (changed(shape={**SHAPE, "n_layer": True}), "n_layer: is True, expected int"),
        (changed(shape={**SHAPE, "mixers": "AA"}), "2 letters for 24 layers"),
        (changed(shape={**SHAPE, "delta": {"heads": 1}}), 'delta: unknown field heads'),
        (changed(sources=["rumour"]), 'rumour is none of'),
        (changed(sources=[]), "field 'sources' is missing"),
        ({"sources": {}, "models": [{}]}, "a model without a name"),
        ([], "expected an object of 'sources' and 'models'"),
        ({"sources": TABLE["sources"], "models": [TABLE["models"][0]] * 2}, "are both called"),
    ],
)  # fmt: skip
def test_damaged_tables_are_refused(table: object, message: str) -> None:
    with pytest.raises(PintpotError, match=re.escape(message)):
        catalog.load(table, "table")


def test_no_torch() -> None:
    code = "from pintpot.store.catalog import find; find('qwq')[0].spec(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = done.stdout.split()
    assert "pintpot.store.catalog" in modules
    assert "torch" not in modules


@pytest.mark.parametrize("entry", ONE_PER_ARCH, ids=named)
def test_tensor_names_are_those_of_the_format(entry: Entry) -> None:
    """gguf-py lists the tensors that each architecture's files may have."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == entry.arch)
    allowed = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[arch]}
    stems = {re.sub(r"^blk\.\d+\.", "blk.{bid}.", name) for name, _ in entry.tensors()}
    stems = {re.sub(r"\.(weight|bias|scale)$", "", stem) for stem in stems}
    assert stems <= allowed
