"""Which quantizations of the catalog's models are published: asked of the hub, and kept until asked again.

The shipped catalog has the formats that publishers usually offer. `refresh` lists the files of every entry's
`gguf_repo`, or where it has none, of the most downloaded GGUF repository of the model (no file is read);
`Offers.apply` puts what was found into an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pintpot.quants.recipes import RECIPES
from pintpot.store.catalog import Entry
from pintpot.store.folders import cache_dir
from pintpot.store.remembered import read_remembered, write_remembered

if TYPE_CHECKING:  # HTTP is slow to import, and plans only read what is kept
    from pintpot.store.hub import Hub, HubFile, HubModel

_FORMAT: Final = 1
_WHAT: Final = "models"
_HOPELESS: Final = 3  # failures at once: a hub that is not there is not waited for eighty times


@dataclass(frozen=True, slots=True)
class Offer:
    """What is published of a model: bytes of each quantization's files in a repository, as of a day."""

    as_of: str  # ISO 8601
    gguf_repo: str
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Offers:
    """Offers by the repository of the original weights, none where the hub was never asked."""

    by_repo: Mapping[str, Offer] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def as_of(self) -> str:
        """Day of the oldest; "" for none."""
        return min((offer.as_of for offer in self.by_repo.values()), default="")

    def apply(self, entry: Entry) -> Entry:
        """`entry` with the quantizations that its repository offers, smallest first."""
        offer = self.by_repo.get(entry.repo)
        if offer is None:
            return entry
        quants = tuple(sorted(offer.files, key=lambda quant: offer.files[quant]))
        return replace(entry, gguf_repo=offer.gguf_repo, quants=quants, files=offer.files)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What asking came to; `failed` has a line for every model of which nothing was learnt."""

    offers: Offers
    n_asked: int
    n_changed: int
    failed: tuple[str, ...]


def refresh(
    hub: Hub,
    entries: Iterable[Entry],
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Refreshed:
    """Asks the hub about every entry and keeps the answers. `progress`: models done, in all.

    A model that fails keeps what is known of it. Raises HubError when the first ones fail together or all do,
    OSError where the answers cannot be written.
    """
    from pintpot.store.hub import HubError

    known = dict(recall_offers(folder).by_repo)
    asked = list({entry.repo: entry for entry in entries}.values())
    failures: list[HubError] = []
    n_changed = 0
    for done, entry in enumerate(asked):
        if progress is not None:
            progress(done, len(asked))
        try:
            offer = _ask(hub, entry)
        except HubError as error:
            failures.append(error)
            if len(failures) == done + 1 == min(_HOPELESS, len(asked)):
                raise
            continue
        before = known.get(entry.repo)
        n_changed += before is None or (before.gguf_repo, before.files) != (offer.gguf_repo, offer.files)
        known[entry.repo] = offer
    write_remembered(_path(folder), _FORMAT, {repo: _to_json(offer) for repo, offer in known.items()}, _WHAT)
    return Refreshed(Offers(MappingProxyType(known)), len(asked), n_changed, tuple(map(str, failures)))


def _ask(hub: Hub, entry: Entry) -> Offer:
    from pintpot.store.hub import HubError, HubModel

    repo = entry.gguf_repo or hub.gguf_repo_of(entry.repo)
    model = HubModel(repo)
    files = _published(model, hub.files(model))
    if not files:
        raise HubError(f"{model}: holds no .gguf file whose name says a known quantization")
    return Offer(datetime.now(UTC).date().isoformat(), repo, MappingProxyType(files))


def recall_offers(folder: Path | None = None) -> Offers:
    """What is known; nothing where the file is absent, damaged or of another format."""
    entries = read_remembered(_path(folder), _FORMAT, _WHAT)
    try:
        found = {repo: _from_json(entry) for repo, entry in entries.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return Offers()
    return Offers(MappingProxyType(found))


def _published(model: HubModel, files: Iterable[HubFile]) -> dict[str, int]:
    """Bytes by quantization, of all parts of a split; names that are no recipe's are left out."""
    from pintpot.store.hub import parts_of

    by_quant: dict[str, list[HubFile]] = {}
    for file in files:
        recipe = RECIPES.get(file.quant)
        if recipe is not None and recipe.base is not None:
            by_quant.setdefault(file.quant, []).append(file)
    return {q: sum(part.nbytes for part in parts_of(model, found)) for q, found in by_quant.items()}


def _path(folder: Path | None) -> Path:
    return (folder or cache_dir()) / "offers.json"


def _to_json(offer: Offer) -> dict[str, Any]:
    return {"as_of": offer.as_of, "gguf_repo": offer.gguf_repo, "files": dict(offer.files)}


def _from_json(entry: dict[str, Any]) -> Offer:
    datetime.fromisoformat(entry["as_of"])
    files = {str(quant): int(nbytes) for quant, nbytes in entry["files"].items()}
    if not files or any(quant not in RECIPES or nbytes <= 0 for quant, nbytes in files.items()):
        raise ValueError("no offer")
    return Offer(entry["as_of"], str(entry["gguf_repo"]), MappingProxyType(files))
