"""Several servers on one state: responses of all reflect what any of them has acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conf.serving import LimitsConfig
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.live.updates import LiveItems
from serving.state.erasure import HistoriesCleaner
from shelfwise_client import Client, Event, Item, RecommendQuery, SearchQuery, ServiceError, SimilarQuery
from tests.bundles import make_bundle
from tests.serving.backends import Backend
from tests.serving.conftest import Harness, Servers, until

BOOTS = "trail boots summit ridge"
PATIENT: dict[str, Any] = {"limits": LimitsConfig(history_seconds=10.0), "item_poll_seconds": 3600.0}
"""Replicas that poll only on requests, and wait long for revisions."""


class Replicas:
    """Two servers with one model each, and their clients."""

    def __init__(self, left: Harness, right: Harness) -> None:
        self.left, self.right = left, right
        self.a, self.b = Client(left.address), Client(right.address)


@pytest.fixture
def replicas(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder
) -> Iterator[Replicas]:
    started = [
        servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), state=backend.state, **PATIENT)
        for _ in range(2)
    ]
    replicas = Replicas(*started)
    yield replicas
    replicas.a.close()
    replicas.b.close()


def everything(client: Client, filter_: str = "") -> set[str]:
    query = RecommendQuery(page_size=500, filter=filter_)
    return {item.item_id for item in client.recommend(query).items}


def test_an_event_changes_the_next_list_of_the_other(servers: Servers, backend: Backend) -> None:
    left, right = (servers.start(state=backend.state) for _ in range(2))
    with Client(left.address) as a, Client(right.address) as b:
        for sender, reader, item in ((a, b, 20), (b, a, 9), (a, b, 3)):
            click = [Event("u", f"i{item}", "click", event_id=f"e{item}")]
            assert sender.record_events(click).new_count == 1
            shown = [i.item_id for i in reader.recommend(RecommendQuery(user_id="u", page_size=30)).items]
            assert shown[0] == f"i{item + 1}"  # what follows an item of the history comes first
            assert f"i{item}" not in shown
            assert reader.record_events(click).duplicate_count == 1


def test_an_item_that_one_takes_can_be_found_and_shopped_at_the_other(replicas: Replicas) -> None:
    boots = Item("new-1", {"title": BOOTS, "brand": "Acme", "price": 4321.0})
    assert replicas.a.upsert_items([boots]).upserted_count == 1
    assert "new-1" in everything(replicas.b)
    assert replicas.b.search_items(SearchQuery(BOOTS, page_size=1)).items[0].item_id == "new-1"
    assert replicas.b.record_events([Event("u", "new-1", "purchase")]).new_count == 1
    # an event for an item that this one has not heard of yet
    replicas.a.upsert_items([Item("new-2", {"title": "x", "brand": "Acme", "price": 1.0})])
    assert replicas.b.record_events([Event("u", "new-2", "purchase")]).rejects == ()


def test_an_item_that_is_changed_at_one_is_filtered_accordingly_at_the_other(replicas: Replicas) -> None:
    item = Item("new-1", {"title": BOOTS, "brand": "Acme", "price": 4321.0})
    replicas.a.upsert_items([item])
    assert everything(replicas.b, "price > 4000") == {"new-1"}
    replicas.b.upsert_items([Item("new-1", {**item.attributes, "price": 1.0})])
    assert everything(replicas.a, "price > 4000") == set()


def test_a_deleted_item_is_absent_from_the_very_next_answer_of_the_other(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder
) -> None:
    """Even of a server without time to wait, whose copy of the items is stale."""
    bundle = make_bundle(dataset, encoder)
    a, b = (
        Client(
            servers.start(live=LiveItems(bundle, 100), state=backend.state, item_poll_seconds=3600.0).address
        )
        for _ in range(2)
    )
    for item in sorted(everything(b))[:10]:
        title = next(i for i in b.recommend(RecommendQuery(page_size=500)).items if i.item_id == item).title
        a.delete_items([item])
        assert item not in everything(b)
        assert item not in {i.item_id for i in b.search_items(SearchQuery(title, page_size=500)).items}
        assert item not in {i.item_id for i in b.similar_items(SimilarQuery(text=title, page_size=500)).items}
        with pytest.raises(ServiceError, match="not in the catalogue"):
            b.similar_items(SimilarQuery(item_id=item))
    back = sorted(everything(a))[0]
    a.delete_items([back])
    assert back not in everything(b)


def test_items_that_others_change_arrive_without_a_request(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder
) -> None:
    bundle = make_bundle(dataset, encoder)
    left, right = (servers.start(live=LiveItems(bundle, 100), state=backend.state) for _ in range(2))
    with Client(left.address) as a, Client(right.address) as b:
        a.upsert_items([Item("new-1", {"title": BOOTS, "brand": "Acme", "price": 5.0})])
        until(lambda: b.status().changed_item_count == 1)
        assert b.get_item("new-1").attributes == {"title": BOOTS, "brand": "Acme", "price": 5.0}


def histories(folder: Path) -> Path:
    folder.mkdir()
    rows = [(user, "i7", "click", 1_600_000_000 + n, n) for user in ("ada", "bob") for n in range(3)]
    columns = ["user_id", "item_id", "event", "timestamp", "order"]
    path = folder / "histories.parquet"
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(path, compression="uncompressed")
    return path


def test_a_user_deleted_at_one_is_gone_at_the_other_and_from_its_files(
    servers: Servers, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.running._CLEAN_SECONDS", 0.02)
    paths = [histories(tmp_path / name) for name in ("left", "right")]
    left, right = (servers.start(state=backend.state, artifacts=str(path.parent)) for path in paths)
    with Client(left.address) as a, Client(right.address) as b:
        assert b.recommend(RecommendQuery(user_id="ada")).degradation == "none"
        assert a.delete_user("ada").deleted_event_count == 3
        assert b.recommend(RecommendQuery(user_id="ada")).degradation == "popularity"
        assert b.recommend(RecommendQuery(user_id="bob")).degradation == "none"
        for path in paths:
            until(lambda path=path: b"ada" not in path.read_bytes())  # type: ignore[misc]
            assert pl.read_parquet(path)["user_id"].to_list() == ["bob"] * 3
    # one that starts later, with histories of a training that still knew the user
    late = histories(tmp_path / "late")
    with Client(servers.start(state=backend.state, artifacts=str(late.parent)).address) as c:
        assert c.recommend(RecommendQuery(user_id="ada")).degradation == "popularity"
        assert b"ada" not in late.read_bytes()


def test_histories_that_cannot_be_cleaned_do_not_keep_a_server_from_starting(
    servers: Servers, backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = histories(tmp_path / "left")

    async def scenario() -> None:
        async with backend.opened() as stores:
            await stores.users.delete_user("ada")
            path.write_bytes(b"nonsense")
            await HistoriesCleaner(stores.users, path, 1.0).clean()

    asyncio.run(scenario())
    assert "deleted users may still be in histories.parquet" in caplog.text
    assert "ada" not in caplog.text
