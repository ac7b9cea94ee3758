"""The index of words in a bundle: published, looked into, changed while it is served, or missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from conf.errors import InputError
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Catalogue, Dataset
from features.text.item_text import TextTemplate
from ranking.bundle.bundle import Bundle, load_bundle
from ranking.bundle.catalogue_file import CATALOG
from ranking.bundle.store import VERSIONS
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.snapshot import LiveVersion
from ranking.live.updates import LiveItems
from ranking.types import Request
from ranking.words.word_index import NAMES, WORDS, WordIndex
from tests.bundles import make_bundle, publish_bundle, published_again
from tests.synthetic import EMPTY


@pytest.fixture
def store(tmp_path: Path, dataset: Dataset, encoder: TextEncoder, bert: Path) -> Path:
    publish_bundle(tmp_path, make_bundle(dataset, encoder), bert)
    return tmp_path


def asked(bundle: Bundle | LiveVersion, said: str, k: int = 3) -> Request:
    return Request(EMPTY, 1, k, query_text=said, intent=bundle.encode_queries([said])[0])


def found(version: LiveVersion, said: str, k: int = 3) -> list[str]:
    """Ids that a search finds, and those that an intent brings, which are the same."""
    request = asked(version, said, k)
    [searched], [listed] = version.recommender.search([request]), version.recommender.recommend([request])
    assert [i.row for i in searched.items[:1]] == [i.row for i in listed.items[:1]]
    return [version.catalogue.ids[item.row] for item in searched.items]


def change(live: LiveItems, *changes: ItemChange) -> LiveVersion:
    return live.apply(live.plan(changes))


def test_it_is_published_with_the_bundle_and_finds_what_is_named(store: Path) -> None:
    bundle = load_bundle(store)
    folder = store / VERSIONS / bundle.version
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert f"{WORDS}/{NAMES}" in files
    assert f"{WORDS}/vocab.index.json" in files
    live = LiveItems(bundle, 10).current
    for row in (0, 7, 59):
        assert found(live, bundle.catalogue.frame["title"][row].upper())[0] == f"i{row}"
        assert found(live, f"I{row}")[0] == f"i{row}"
        assert found(live, f"no{row}")[0] == f"i{row}"  # a word that one title has


def test_a_bundle_without_one_has_it_made_when_it_is_loaded(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As an earlier release published it."""
    whole = load_bundle(store)
    version = published_again(store, lambda folder: shutil.rmtree(folder / WORDS))
    with caplog.at_level("INFO"):
        bundle = load_bundle(store)
    assert f"{version}: published without an index of words; making it" in caplog.text
    for said in ("trail boots", "no7 Acme", "i7"):
        before, after = (b.recommender.texts.query(b.text_vectors[0], said).matches for b in (whole, bundle))
        assert before is not None
        assert after is not None
        assert len(before.rows) + len(before.named)
        assert before.rows.tolist() == after.rows.tolist()
        assert before.named.tolist() == after.named.tolist()


def test_one_of_another_catalogue_is_refused(store: Path) -> None:
    def fewer(folder: Path) -> None:
        shutil.rmtree(folder / WORDS)
        catalogue = Catalogue(pl.read_parquet(folder / CATALOG).head(57))
        WordIndex.build(catalogue, TextTemplate(("title", "brand"))).save(folder / WORDS)

    published_again(store, fewer)
    with pytest.raises(InputError, match="words: 57 rows, the catalogue has 60 items"):
        load_bundle(store)


def test_changes_are_found_at_once_and_what_was_is_not(store: Path) -> None:
    live = LiveItems(load_bundle(store), 10)
    former = live.current.catalogue.base.frame["title"][4]
    new = {"title": "Kombucha ginger lemon", "brand": "Acme", "price": 2.0}
    version = change(live, ItemChange("fresh-1", new))
    assert found(version, "kombucha")[0] == found(version, "FRESH-1")[0] == "fresh-1"
    version = change(live, ItemChange("i4", {**new, "title": "Kombucha mango"}))
    assert set(found(version, "kombucha")[:2]) == {"fresh-1", "i4"}
    assert found(version, "no4")[0] != "i4"
    assert found(version, "i4")[0] == "i4"
    version = change(live, ItemChange("fresh-1", None))
    assert found(version, "kombucha")[0] == "i4"
    assert "fresh-1" not in found(version, "fresh-1", 60)
    version = change(live, ItemChange("i4", {"title": former, "brand": "Acme"}))
    assert found(version, "no4")[0] == "i4"


def test_a_changed_price_leaves_the_words_alone(store: Path) -> None:
    live = LiveItems(load_bundle(store), 10)
    frame = live.current.catalogue.base.frame
    values = frame.select("title", "brand").row(4, named=True)
    assert live.plan([ItemChange("i4", {**values, "price": 99.0})]).words == []
    assert [position for position, _ in live.plan([ItemChange("i4", {**values, "title": "x"})]).words] == [0]


def test_an_item_without_text_is_found_by_its_id_alone(store: Path) -> None:
    live = LiveItems(load_bundle(store), 10)
    version = change(live, ItemChange("item-77", {"price": 1.0}))
    assert "item-77" not in found(version, "item", 61)
    assert found(version, "item-77")[0] == "item-77"


def test_an_id_goes_before_a_title_that_reads_the_same(store: Path) -> None:
    live = LiveItems(load_bundle(store), 10)
    version = change(live, ItemChange("other", {"title": "i7", "brand": "Acme"}))
    assert found(version, "i7", 2) == ["i7", "other"]
    assert found(version, "I 7")[0] != "i7"
