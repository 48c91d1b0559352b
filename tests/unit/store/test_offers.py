"""What the hub offers takes the place of the shipped formats, and is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from pintpot.quants.recipes import RECIPES
from pintpot.store import catalog
from pintpot.store.hub import HubError, HubFile, HubModel
from pintpot.store.offers import Offers, recall_offers, refresh

WITH_REPO = [entry for entry in catalog.entries() if entry.gguf_repo][:4]
ENTRIES = [*WITH_REPO, *[entry for entry in catalog.entries() if not entry.gguf_repo][:2]]
FILES = (
    HubFile("model-Q8_0.gguf", 800),
    HubFile("model-Q4_K_M.gguf", 400),
    HubFile("Q6_K/model-Q6_K-00001-of-00002.gguf", 350),
    HubFile("Q6_K/model-Q6_K-00002-of-00002.gguf", 250),
    HubFile("model-notes.gguf", 1),
)


class Answers:
    """Stands for a hub: files of every repository but those that fail."""

    def __init__(self, *failing: str, files: tuple[HubFile, ...] = FILES) -> None:
        self.failing, self.files_, self.asked = failing, files, []

    def gguf_repo_of(self, repo: str) -> str:
        return f"{repo}-found"

    def files(self, model: HubModel) -> tuple[HubFile, ...]:
        self.asked.append(model.repo)
        if model.repo in self.failing:
            raise HubError(f"{model}: is not there")
        return self.files_


def test_offers_are_kept_and_applied(tmp_path: Path) -> None:
    seen = []
    found = refresh(Answers(), ENTRIES, tmp_path, lambda done, n: seen.append((done, n)))
    assert (found.n_asked, found.n_changed, found.failed) == (6, 6, ())
    assert seen == [(i, 6) for i in range(6)]
    kept = recall_offers(tmp_path)
    assert kept == found.offers
    entry = kept.apply(ENTRIES[0])
    assert entry.quants == ("Q4_K_M", "Q6_K", "Q8_0")
    assert dict(entry.files) == {"Q4_K_M": 400, "Q6_K": 600, "Q8_0": 800}
    assert all(quant in RECIPES for quant in entry.quants)
    assert kept.apply(ENTRIES[-1]).gguf_repo == f"{ENTRIES[-1].repo}-found"
    other = next(entry for entry in catalog.entries() if entry.repo not in kept.by_repo)
    assert kept.apply(other) is other
    assert refresh(Answers(), ENTRIES, tmp_path).n_changed == 0


def test_a_repository_that_fails_keeps_what_is_known(tmp_path: Path) -> None:
    refresh(Answers(), ENTRIES, tmp_path)
    gone = ENTRIES[1].gguf_repo
    found = refresh(Answers(gone, files=FILES[:1]), ENTRIES, tmp_path)
    assert found.failed == (f"hf.co/{gone}: is not there",)
    kept = recall_offers(tmp_path)
    assert kept.apply(ENTRIES[1]).quants == ("Q4_K_M", "Q6_K", "Q8_0")
    assert kept.apply(ENTRIES[0]).quants == ("Q8_0",)


def test_a_repository_without_models_keeps_the_shipped_formats(tmp_path: Path) -> None:
    class Odd(Answers):
        def files(self, model: HubModel) -> tuple[HubFile, ...]:
            return FILES[-1:] if model.repo == ENTRIES[2].gguf_repo else FILES

    (failed,) = refresh(Odd(), ENTRIES, tmp_path).failed
    assert failed.startswith(f"hf.co/{ENTRIES[2].gguf_repo}: holds no .gguf file")
    assert recall_offers(tmp_path).apply(ENTRIES[2]) is ENTRIES[2]


def test_a_hub_that_is_not_there_is_given_up(tmp_path: Path) -> None:
    hub = Answers(*(entry.gguf_repo for entry in WITH_REPO))
    with pytest.raises(HubError, match="is not there"):
        refresh(hub, ENTRIES, tmp_path)
    assert len(hub.asked) == 3
    assert list(tmp_path.iterdir()) == []


def stored(as_of: str = "2026-11-01", files: str = '{"Q8_0": 1}', version: int = 1) -> str:
    offer = f'{{"as_of": "{as_of}", "gguf_repo": "c/d", "files": {files}}}'
    return f'{{"format": {version}, "models": {{"a/b": {offer}}}}}'


@pytest.mark.parametrize(
    "damage",
    [
        "",
        '{"format": 1, "models": {"a/b": {}}}',
        stored(as_of="x"),
        stored(files='{"Q99": 1}'),
        stored(files='{"Q8_0": -1}'),
        stored(version=2),
    ],
)
def test_a_damaged_file_is_no_offers(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "offers.json"
    path.write_text(damage, encoding="utf-8")
    assert recall_offers(tmp_path) == Offers()
    path.write_text(stored(), encoding="utf-8")
    assert recall_offers(tmp_path).as_of == "2026-11-01"
