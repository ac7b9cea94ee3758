"""A published model that searches in Milvus: the lists of FAISS, changes of items, and outages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conf.encoders import TextEncoderConfig
from conf.engines.milvus import Consistency, LoadCandidatesConfig, RetrievalConfig
from conf.errors import InputError
from conf.operating import RollbackConfig
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from features.data.dataset import Dataset
from ranking.bundle.bundle import Bundle, load_bundle
from ranking.bundle.collections import load_candidates
from ranking.bundle.rollback import rollback
from ranking.bundle.store import current_version
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.milvus_indexes import MilvusIndexes
from ranking.live.updates import LiveItems
from ranking.milvus.collection import VectorQuery
from ranking.milvus.connection import MilvusError
from ranking.milvus.loading import CollectionLoader
from ranking.milvus.searcher import MilvusIndex
from ranking.milvus.status import EngineStatus
from ranking.retrieval.searcher import QueryGroup
from ranking.retrieval.unavailable import SearchUnavailableError, within
from ranking.types import Request
from tests.bundles import make_bundle, publish_bundle, published_again
from tests.ranking.changes import change, item
from tests.ranking.milvus.lite import Lite, settings
from tests.synthetic import EMPTY, make_factors, request_of

QUIET, ROOM = Console(quiet=True), 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, bert: Path) -> Path:
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()
    folder = Path(tmp_path_factory.mktemp("store"))
    near = make_bundle(dataset, encoder).recommender.arrays.text_near
    publish_bundle(folder, make_bundle(dataset, encoder, factors=make_factors(dataset).impute(near)), bert)
    return folder


@pytest.fixture(scope="module")
def config(server: Lite, store: Path) -> RetrievalConfig:
    """Settings of a Milvus with the store's collection."""
    found = settings(server.uri)
    load_candidates(LoadCandidatesConfig(str(store), retrieval=found), QUIET)
    return found


def connected(store: Path, config: RetrievalConfig) -> Bundle:
    bundle = load_bundle(store, room=ROOM, retrieval=config)
    assert bundle.collection is not None
    bundle.collection.connect()
    bundle.collection.keep_connected()
    return bundle


@pytest.fixture
def live(store: Path, config: RetrievalConfig) -> Iterator[LiveItems]:
    found = LiveItems(connected(store, config), ROOM)
    yield found
    found.close()


def settled(live: LiveItems) -> None:
    """Wait until Milvus has confirmed every change."""
    assert isinstance(live._indexes, MilvusIndexes)
    until(lambda: live._indexes.status().pending == 0)  # type: ignore[union-attr]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def asked(dataset: Dataset) -> list[Request]:
    first = [request_of(dataset, user) for user in range(10)]
    half = np.arange(len(dataset.catalogue)) % 2 == 0
    return [
        *first,
        replace(first[0], allowed=half, filter='brand = "Acme"', exclude_seen=True),
        replace(first[1], history=EMPTY),
    ]


def test_lists_are_those_of_faiss(store: Path, live: LiveItems, dataset: Dataset) -> None:
    plain = LiveItems(load_bundle(store, room=ROOM), ROOM)
    requests = asked(dataset)
    made = live.current.recommender.recommend(requests)
    assert repr(made) == repr(
        plain.current.recommender.recommend(requests)
    )  # without a head NaNs are in them
    intent = live.current.text_vectors[5]
    query = replace(requests[0], intent=intent, query_text="tent")
    found = live.current.recommender.search([query])
    assert repr(found) == repr(plain.current.recommender.search([query]))
    recommender = live.current.recommender.recommender
    assert isinstance(recommender.index, MilvusIndex)
    assert isinstance(recommender.indexes.factors, MilvusIndex)


def test_a_filter_is_given_to_milvus(
    live: LiveItems, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it returns is checked against the mask, which may be narrower."""
    recommender = live.current.recommender.recommender
    index = recommender.index
    assert isinstance(index, MilvusIndex)
    sent: list[str] = []
    search = index.collection.search

    def recording(asked: list[VectorQuery]) -> object:
        sent.extend(query.expression for query in asked)
        return search(asked)

    monkeypatch.setattr(index.collection, "search", recording)
    monkeypatch.setattr("ranking.milvus.searcher.SPARE", 0)
    brands = np.array(dataset.catalogue.frame["brand"].to_list())
    allowed = brands == "Acme"
    narrower = allowed & (np.arange(len(allowed)) % 3 > 0)
    request = replace(request_of(dataset, 0, 4), allowed=narrower, filter='brand = "Acme" AND title:"a"')
    [answer] = live.current.recommender.recommend([request])
    assert answer.items
    assert narrower[[found.row for found in answer.items]].all()
    assert '(a_brand == "Acme")' in sent
    assert answer.degradation == "none"


def test_a_change_is_found_at_once_and_then_by_milvus(live: LiveItems, config: RetrievalConfig) -> None:
    first = change(live, item("added", "tent compass trail"), item("i3", "guitar drum", price=3.0))
    index = first.recommender.recommender.text_index
    added = first.catalogue.row("added")
    assert isinstance(index, MilvusIndex)
    assert added is not None
    text = first.encode_items([first.catalogue.text(added)])
    assert index.search(text, 1)[0].tolist() == [[added]]
    settled(live)
    # Milvus alone: nothing is pending, so the row comes from there.
    assert len(index.pending.rows) == 0
    assert index.search(text, 1)[0].tolist() == [[added]]
    assert index.collection.search([_text_query(index, text, 'item_id == "added" and a_price == 9.0')])[0][0][
        0
    ]
    change(live, ItemChange("added", None))
    newest = live.current.recommender.recommender.text_index
    assert isinstance(newest, MilvusIndex)
    assert added not in newest.search(text, 5)[0]
    settled(live)
    assert not list(index.collection.search([_text_query(index, text, 'item_id == "added"')])[0][0][0])


def _text_query(index: MilvusIndex, vector: np.ndarray, expression: str) -> VectorQuery:
    return VectorQuery(index.field_name, vector, 5, expression)


def test_servers_that_write_the_same_changes_agree(
    store: Path, config: RetrievalConfig, live: LiveItems
) -> None:
    """Though their rows differ: another order of the stream's batches gives an added item another row."""
    other = LiveItems(connected(store, config), ROOM)
    try:
        change(live, item("one", "rose soil hose"), item("two", "crib rattle bib"))
        change(other, item("two", "crib rattle bib"))
        change(other, item("one", "rose soil hose"))
        settled(live)
        settled(other)
        for server in (live, other):
            version = server.current
            index = version.recommender.recommender.text_index
            assert isinstance(index, MilvusIndex)
            assert len(index.pending.rows) == 0
            for item_id in ("one", "two"):
                own = version.catalogue.row(item_id)
                assert own is not None
                text = version.encode_items([version.catalogue.text(own)])
                assert index.search(text, 1)[0].tolist() == [[own]]
        change(live, ItemChange("one", None), ItemChange("two", None))
        settled(live)
    finally:
        other.close()


def test_an_outage_costs_the_sources_that_search_and_nothing_else(
    store: Path, server: Lite, config: RetrievalConfig, dataset: Dataset
) -> None:
    bundle = connected(store, replace(config, timeout_seconds=1.0))
    live = LiveItems(bundle, ROOM)
    assert bundle.collection is not None
    try:
        requests = asked(dataset)
        whole = live.current.recommender.recommend(requests)
        server.stop()
        answers = live.current.recommender.recommend(requests)
        assert {answer.degradation for answer in answers[:-1]} == {"candidates_unavailable"}
        assert answers[-1].degradation == "popularity"
        searching = {"user_vector", "co_purchase", "new_items"}
        assert all(answer.items for answer in answers)
        assert not searching & {found.source for answer in answers for found in answer.items}
        began = time.monotonic()
        live.current.recommender.recommend(requests)
        assert time.monotonic() - began < 0.9  # no list waits again
        change(live, item("meanwhile", "harmonica"))  # is applied without Milvus
        query = replace(requests[0], intent=live.current.text_vectors[5], query_text="harmonica")
        [found] = live.current.recommender.search([query])
        assert found.degradation == "candidates_unavailable"
        assert live.current.catalogue.ids[found.items[0].row] == "meanwhile"  # by its words
        with pytest.raises(SearchUnavailableError):
            live.current.recommender.similar(live.current.text_vectors[:1], 5, np.zeros(0, np.int32))
        near = live.current.recommender.stored_neighbours(0)
        assert len(near.ids)
        assert 0 not in near.ids
        server.start()
        until(lambda: bundle.collection is not None and bundle.collection.up)
        settled(live)
        after = live.current.recommender.recommend(requests)
        assert [answer.degradation for answer in after] == [answer.degradation for answer in whole]
        assert "user_vector" in {found.source for answer in after for found in answer.items}
        change(live, ItemChange("meanwhile", None))
        settled(live)
    finally:
        server.stop()
        server.start()
        live.close()


def test_a_slow_milvus_is_waited_for_as_long_as_the_call_has_time(
    live: LiveItems, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = live.current.recommender.recommender.index
    assert isinstance(index, MilvusIndex)
    waits: list[float] = []

    def send(client: object, queries: object, seconds: float) -> object:
        waits.append(seconds)
        raise SearchUnavailableError("too slow")

    monkeypatch.setattr(index.collection, "_send", send)
    monkeypatch.setattr(index.collection, "_mark_down", lambda why: None)
    with within(time.monotonic() + 9.0):
        [answer] = live.current.recommender.recommend([request_of(dataset, 0)])
    with within(time.monotonic() - 1.0):
        live.current.recommender.recommend([request_of(dataset, 0)])
    assert answer.degradation == "candidates_unavailable"
    assert 2.5 < waits[0] <= 9.0  # and not the 10 of `timeout_seconds`
    assert waits[-1] == 2.5  # a quarter of `timeout_seconds`, for the others of its batch


def test_an_expression_that_milvus_refuses_costs_no_list(
    live: LiveItems, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = live.current.recommender.recommender.index
    assert isinstance(index, MilvusIndex)
    allowed = np.arange(len(dataset.catalogue)) % 3 > 0
    expected = index.search(live.current.recommender.recommender.arrays.item_vectors[:2], 5, allowed)[0]
    broken = replace(index, translate=lambda _: "this is ( no expression")
    group = QueryGroup(np.array([0, 1]), 5, allowed, 'brand = "Acme"')
    vectors = live.current.recommender.recommender.arrays.item_vectors[:2]
    assert np.array_equal(broken.search_groups(vectors, [group])[0][0], expected)
    assert index.collection.up


def test_a_version_without_a_collection_cannot_be_searched(store: Path, config: RetrievalConfig) -> None:
    bundle = load_bundle(store, retrieval=replace(config, prefix="other"))
    assert bundle.collection is not None
    with pytest.raises(InputError, match="has no collection other_.*; load it: shelfwise load-candidates"):
        bundle.collection.connect()


def test_a_rollback_brings_the_collection_and_the_alias_back(
    tmp_path: Path, server: Lite, dataset: Dataset, encoder: TextEncoder, bert: Path
) -> None:
    config = settings(server.uri, prefix="back", keep=0)
    publish_bundle(tmp_path, make_bundle(dataset, encoder), bert)
    load_candidates(LoadCandidatesConfig(str(tmp_path), retrieval=config), QUIET)
    first = current_version(tmp_path)
    published_again(tmp_path, lambda folder: (folder / "note").write_text("later"))  # type: ignore[arg-type]
    load_candidates(LoadCandidatesConfig(str(tmp_path), retrieval=config), QUIET)
    second = current_version(tmp_path)
    with CollectionLoader(config) as loader:
        assert loader.collections() == [f"back_{second.replace('-', '_')}"]
        rollback(RollbackConfig(str(tmp_path), retrieval=config), QUIET)
        assert current_version(tmp_path) == first
        assert loader.current() == f"back_{first.replace('-', '_')}"
    away = replace(config, uri="http://127.0.0.1:9", connect_seconds=0.3)
    rollback(RollbackConfig(str(tmp_path), second, away), QUIET)  # a bad model is left whatever Milvus does
    assert current_version(tmp_path) == second


def test_a_rollback_happens_though_milvus_cannot_load_the_collection(
    tmp_path: Path, server: Lite, dataset: Dataset, encoder: TextEncoder, bert: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = settings(server.uri, prefix="full")
    publish_bundle(tmp_path, make_bundle(dataset, encoder), bert)
    first = current_version(tmp_path)
    second = published_again(tmp_path, lambda folder: (folder / "note").write_text("later"))  # type: ignore[arg-type]
    call = CollectionLoader._call

    def fails(self: CollectionLoader, method: str, *arguments: object, **more: object) -> object:
        if method == "create_collection":
            raise MilvusError("Milvus at x: create collection failed (memory quota exceeded)")
        return call(self, method, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(CollectionLoader, "_call", fails)
    console = Console(record=True, width=300)
    rollback(RollbackConfig(str(tmp_path), retrieval=config), console)
    assert current_version(tmp_path) == first
    printed = console.export_text()
    assert f"memory quota exceeded); servers need the collection of {first} to load it: shelfwise" in printed
    damaged = tmp_path / "versions" / second / "note"
    damaged.write_text("damaged")
    with pytest.raises(InputError, match="note"):
        rollback(RollbackConfig(str(tmp_path), second, config), console)
    assert current_version(tmp_path) == first


def test_load_candidates_points_a_lost_alias_at_the_current_collection(
    store: Path, config: RetrievalConfig
) -> None:
    name = f"shelfwise_{current_version(store).replace('-', '_')}"
    with CollectionLoader(config) as loader:
        assert loader.current() == name
        loader._call("drop_alias", "shelfwise")
        bundle = connected(store, config)  # servers search by the version's name
        assert bundle.collection is not None
        assert bundle.collection.up
        bundle.collection.close()
        load_candidates(LoadCandidatesConfig(str(store), retrieval=config), QUIET)
        assert loader.current() == name


def test_load_candidates_names_what_milvus_does_not_test(store: Path, config: RetrievalConfig) -> None:
    console = Console(record=True, width=300)
    filters = ['brand = "Acme" AND title:"oak"', 'brand = "Acme"', 'title:"oak"']
    load_candidates(LoadCandidatesConfig(str(store), filters=filters, retrieval=config), console)
    case = 'title:"...": Milvus compares texts with their case'
    assert [line for line in console.export_text().splitlines() if line.startswith("filter")] == [
        f'filter 1: the server tests {case}; Milvus tests the rest: (a_brand == "Acme")',
        'filter 2: Milvus tests all of it: a_brand == "Acme"',
        f"filter 3: the server tests {case}; Milvus tests the rest: nothing",
    ]
    with pytest.raises(InputError, match="filters: number 1: column 1: unknown attribute 'colour'"):
        load_candidates(LoadCandidatesConfig(str(store), filters=["colour = 1"], retrieval=config), QUIET)


def test_a_condition_that_milvus_does_not_test_is_named_once_without_its_value(
    live: LiveItems, dataset: Dataset, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranking.milvus.searcher.SPARE", 0)  # else few items are searched here anyway
    assert live.engine == EngineStatus(works=True)
    allowed = np.arange(len(dataset.catalogue)) % 2 == 0
    for word in ("oak", "elm"):
        request = replace(request_of(dataset, 0), allowed=allowed, filter=f'title:"{word}"')
        live.current.recommender.recommend([request])
    named = 'title:"...": Milvus compares texts with their case'
    assert live.engine == EngineStatus(works=True, untested=(named,))
    assert [r.getMessage() for r in caplog.records if r.name == "ranking.live.milvus_indexes"] == [
        f"Milvus does not test this condition of a filter, this process does: {named}"
    ]


def test_a_confirmed_write_stays_in_memory_until_every_search_sees_it(
    store: Path, config: RetrievalConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranking.live.milvus_indexes._SETTLE_SECONDS", 0.3)
    live = LiveItems(connected(store, replace(config, consistency=Consistency.bounded)), ROOM)
    try:
        change(live, item("settling", "oboe"))
        settled(live)
        index = live.current.recommender.recommender.index
        assert isinstance(index, MilvusIndex)
        assert index.pending.rows.tolist() == [live.current.catalogue.row("settling")]
        until(lambda: len(index.pending.rows) == 0)
        change(live, ItemChange("settling", None))
        settled(live)
    finally:
        live.close()
