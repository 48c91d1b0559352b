"""The model catalog: open models with the numbers their sizes follow from, and where each number is from.

`data/models.json` is the table (docs/formats/catalog.md); nothing is downloaded. Bytes of a quantization are
not stored but computed: the shape gives the tensors, the recipe their types.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pintpot.errors import PintpotError, UnsupportedError, UsageError
from pintpot.gguf import GGMLType, GGUFFile, GGUFWriter, TensorDecl, row_bytes
from pintpot.gguf.metadata import show
from pintpot.quants.choice import choose_types
from pintpot.quants.names import parse_model_name
from pintpot.quants.recipes import Traits, find_recipe
from pintpot.spec import SUPPORTED_ARCHITECTURES, ModelSpec
from pintpot.spec.shape import Shape
from pintpot.spec.size import is_expert
from pintpot.store.decode import decode
from pintpot.store.inventory import Named, inventory

# What publishers of GGUF files commonly offer, smallest first.
COMMON_QUANTS: Final = (
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "IQ4_XS", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0",
    "BF16",
)  # fmt: skip

_DATA: Final = Path(__file__).parents[1] / "data"
_FILE: Final = "models.json"

_COUNT: Final = re.compile(r"(?P<number>\d+(?:\.(?P<digits>\d+))?)(?P<unit>[BM])")

# Words of a name that say how a model was trained, which changes no size.
_FILLERS: Final = frozenset({"instruct", "it", "chat", "hf", "meta", "text"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where numbers are from, as of a day."""

    title: str
    url: str
    as_of: str

    def __post_init__(self) -> None:
        date.fromisoformat(self.as_of)


@dataclass(frozen=True, slots=True)
class Variant:
    """A quantization of a model, by its recipe's name; `weights_bytes` are those of all tensors."""

    quant: str
    weights_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # one object a model: equal only to itself
class Entry:
    """A published model. Sizes are of the language model, as in its GGUF file: no vision or audio parts."""

    name: str  # as Ollama spells it, name:size
    aliases: tuple[str, ...] = ()
    repo: str  # of the original weights on the Hugging Face hub
    gguf_repo: str = ""  # a hub repository that holds the usual quantizations
    license: str  # SPDX identifier, or the publisher's name of it
    released: str = ""  # year-month
    params: str  # in all, as published or as llama.cpp counts them: "30.53B"
    params_active: str = ""  # for a token, as published
    shape: Shape
    n_mtp: int = 0  # multi-token prediction layers of the checkpoint; most GGUF files leave them out
    vision: bool = False  # takes images, with a separate projector file
    quants: tuple[str, ...] = COMMON_QUANTS
    files: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # bytes of published files
    sources: tuple[Source, ...]
    # Every number of the shape was read in the sources. False: partly known of the published config.json, and
    # consistent with the parameters that are published.
    verified: bool = True

    def __post_init__(self) -> None:
        parse_count(self.params)

    @property
    def arch(self) -> str:
        """`general.architecture` of its GGUF files."""
        return self.shape.arch

    @property
    def runnable(self) -> bool:
        """Whether this version's engine has the architecture."""
        return self.arch in SUPPORTED_ARCHITECTURES

    @property
    def ctx_train(self) -> int:
        return self.shape.ctx_train

    @property
    def as_of(self) -> str:
        """Day of the oldest source."""
        return min(source.as_of for source in self.sources)

    def tensors(self, *, mtp: bool = False) -> tuple[Named, ...]:
        """Name and shape of every tensor, in GGUF order (a row's length first). `mtp`: with the layers of
        multi-token prediction, for architectures that run."""
        return _tensors(self, mtp)

    @property
    def n_params_published(self) -> float:
        """`params` as a number; unlike `n_params` it takes no time, enough to rule a model out."""
        return parse_count(self.params)[0]

    @property
    def n_params(self) -> int:
        """Values of all tensors, exactly."""
        return sum(prod(ne) for _, ne in self.tensors())

    @property
    def n_params_active(self) -> int:
        """Used for one token, as `spec.size` counts: unselected experts and looked-up rows are not."""
        experts, total = self.shape.experts, 0
        for name, ne in self.tensors():
            if experts is not None and is_expert(name):
                total += prod(ne) * experts.n_used // experts.n_expert
            elif not name.startswith("per_layer_token_embd."):
                total += prod(ne)
        return total

    def tensor_bytes(
        self, quant: str, *, importance: bool = False, mtp: bool = False
    ) -> tuple[tuple[str, int], ...]:
        """Name and bytes of every tensor when the model is quantized as `quant`, a recipe's name.

        `importance`: with an importance matrix, as most publishers have. Raises UsageError for a name that is
        no recipe's.
        """
        recipe = find_recipe(quant)
        if recipe.base is None:
            raise UsageError(f"type {recipe.name}: says nothing about sizes, choose a quantization")
        declared = _declared(self, mtp)
        chosen = choose_types(recipe, self._traits(importance=importance, mtp=mtp), declared)
        return tuple(
            (t.name, row_bytes(chosen[t.name].ggml_type, t.ne[0]) * prod(t.ne[1:])) for t in declared
        )

    def weights_bytes(self, quant: str, *, importance: bool = False, mtp: bool = False) -> int:
        """Bytes of all tensors; see `tensor_bytes`."""
        return sum(n for _, n in self.tensor_bytes(quant, importance=importance, mtp=mtp))

    def variants(self) -> tuple[Variant, ...]:
        """The quantizations that are commonly published, smallest first."""
        sized = (Variant(quant, self.weights_bytes(quant)) for quant in self.quants)
        return tuple(sorted(sized, key=lambda v: v.weights_bytes))

    def spec(self, *, mtp: bool = False) -> ModelSpec:
        """The spec that a file of this model has. Raises UnsupportedError when the engine cannot run it."""
        if not self.runnable:
            raise UnsupportedError(
                f"{self.name}: architecture {self.arch} is not supported, these are:"
                f" {', '.join(SUPPORTED_ARCHITECTURES)}"
            )
        from pintpot.synth.metadata import model_metadata

        path = Path(self.repo)
        metadata = model_metadata(_with_mtp(self, mtp), 0)
        header = GGUFWriter(path, metadata, _declared(self, mtp)).header
        return ModelSpec.from_gguf(GGUFFile.from_header(path, header))

    def _traits(self, *, importance: bool, mtp: bool) -> Traits:
        shape = self.shape
        first_has_kv = not shape.mixers or shape.mixers[0] == "A"
        return Traits(
            shape.arch,
            n_layer=shape.n_layer + (self.n_mtp if mtp else 0),
            n_expert=0 if shape.experts is None else shape.experts.n_expert,
            n_head=shape.n_head,
            n_head_kv=shape.layer_n_head_kv(0) if first_has_kv else 0,
            importance=importance,
        )


def _with_mtp(entry: Entry, mtp: bool) -> Shape:
    return replace(entry.shape, n_mtp=entry.n_mtp if mtp else 0)


@cache
def _tensors(entry: Entry, mtp: bool) -> tuple[Named, ...]:
    if not entry.runnable:
        return tuple(inventory(entry.shape))
    from pintpot.synth.tensors import tensor_table

    return tuple((t.name, t.shape[::-1]) for t in tensor_table(_with_mtp(entry, mtp)))


@cache
def _declared(entry: Entry, mtp: bool) -> tuple[TensorDecl, ...]:
    return tuple(TensorDecl(name, GGMLType.F32, ne) for name, ne in _tensors(entry, mtp))


def parse_count(text: str) -> tuple[float, float]:
    """What `30.53B` says: the count, and half a unit of its last digit. Raises PintpotError."""
    match = _COUNT.fullmatch(text)
    if match is None:
        raise PintpotError(f"{show(text)} is no number of parameters, expected one such as 30.53B or 752.39M")
    unit = 1e9 if match["unit"] == "B" else 1e6
    return float(match["number"]) * unit, 0.5 * 10.0 ** -len(match["digits"] or "") * unit


@cache
def entries() -> tuple[Entry, ...]:
    """The whole catalog, in the order of the file: families together, small models first."""
    path = _DATA / _FILE
    if not path.is_file():
        raise PintpotError(f"{path}: the catalog is not part of this installation; install pintpot again")
    return load(json.loads(path.read_text("utf-8")), _FILE)


def load(table: object, where: str) -> tuple[Entry, ...]:
    """Entries of a table in the form of data/models.json.

    Raises PintpotError naming the entry and field: unknown, missing, of a wrong type, a name used twice.
    """
    if not isinstance(table, dict) or set(table) != {"sources", "models"}:
        raise PintpotError(f"{where}: expected an object of 'sources' and 'models'")
    sources = {
        key: decode(Source, value, f"{where}: source {key}") for key, value in table["sources"].items()
    }
    shapes: dict[str, dict[str, Any]] = {}
    read = tuple(_entry(item, where, sources, shapes) for item in table["models"])
    _index(read, where)
    return read


def find(text: str) -> tuple[Entry, str | None]:
    """The model that `text` names in any usual spelling (quants.names), and the quantization it names.

    The beginning of a name will do where only one model's begins so. Raises UsageError with near matches when
    there is none or more than one.
    """
    parsed = parse_model_name(text)
    index, key = _names(), _key(text)
    near = [key] if key in index else [k for k in index if k.startswith(key)]
    found = list(dict.fromkeys(index[k].name for k in near))
    if len(found) == 1:
        return index[near[0]], str(parsed.quant) if parsed.quant else None
    if not found:
        near = difflib.get_close_matches(key, index, n=8, cutoff=0.6)
        found = list(dict.fromkeys(index[k].name for k in near))
    hint = f"did you mean {', '.join(found[:5])}?" if found else "docs/formats/catalog.md says how to add it"
    raise UsageError(f"{show(text)} is not in the catalog; {hint}")


@cache
def _names() -> Mapping[str, Entry]:
    return _index(entries(), _FILE)


def _entry(
    item: object, where: str, sources: Mapping[str, Source], shapes: dict[str, dict[str, Any]]
) -> Entry:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise PintpotError(f"{where}: a model without a name")
    where = f"{where}: {item['name']}"
    rest = dict(item)
    values, keys = rest.pop("shape", None), rest.pop("sources", [])
    if not isinstance(values, dict):
        raise PintpotError(f"{where}: field 'shape' is missing")
    like = values.get("like")
    if like is not None and like not in shapes:
        raise PintpotError(f"{where}.shape.like: no earlier model is called {show(like)}")
    values = (shapes[like] if like is not None else {}) | {k: v for k, v in values.items() if k != "like"}
    shapes[item["name"]] = values
    if not keys:
        raise PintpotError(f"{where}: field 'sources' is missing")
    for key in keys:
        if key not in sources:
            raise PintpotError(f"{where}.sources: {show(key)} is none of the table's sources")
    shape = decode(Shape, values, f"{where}.shape", name=item["name"])
    if shape.mixers and len(shape.mixers) != shape.n_layer:
        raise PintpotError(f"{where}.shape.mixers: {len(shape.mixers)} letters for {shape.n_layer} layers")
    return decode(Entry, rest, where, shape=shape, sources=tuple(sources[key] for key in keys))


def _index(read: Iterable[Entry], where: str) -> dict[str, Entry]:
    index: dict[str, Entry] = {}
    for entry in read:
        for name in (entry.name, *entry.aliases, entry.repo, entry.gguf_repo):
            if name and index.setdefault(_key(name), entry) is not entry:
                raise PintpotError(
                    f"{where}: {entry.name} and {index[_key(name)].name} are both called {name}"
                )
    return index


def _key(name: str) -> str:
    """What is left of a name when case, separators and words that change no size are ignored."""
    parsed = parse_model_name(name)
    words = "-".join(filter(None, (parsed.base, parsed.size, parsed.variant))).split("-")
    kept = [word for word in words if word not in _FILLERS] or words
    return re.sub(r"[^a-z0-9.]", "", "".join(kept))
