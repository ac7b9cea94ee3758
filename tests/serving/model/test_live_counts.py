"""Recorded events change all lists at once: over a socket, on every replica, after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.bundle.bundle import Bundle
from ranking.live.updates import LiveItems
from shelfwise_client import Client, Event, Item, RecommendQuery, SessionEvent
from tests.bundles import make_bundle
from tests.serving.backends import Backend
from tests.serving.conftest import Harness, Servers, until
from tests.serving.model.test_reload import V1, V2, point

SHOPPERS = 200
GUITAR = Item("new", {"title": "guitar drum melody", "brand": "Acme", "price": 5.0})


@pytest.fixture
def bundle_until(dataset: Dataset, encoder: TextEncoder) -> Callable[..., Bundle]:
    def make(end: int = 1_700_000_000, version: str = "v1") -> Bundle:
        made = make_bundle(dataset, encoder, version=version)
        return replace(made, manifest={**made.manifest, "data_end": end})

    return make


Make = Callable[..., Bundle]


def buy(client: Client, item_id: str, beside: str, times: int = SHOPPERS) -> None:
    """Record purchases of two items, one after the other, by so many users."""
    first = [Event(f"u{n}", beside, "purchase", event_id="1") for n in range(times)]
    then = [Event(f"u{n}", item_id, "purchase", event_id="2") for n in range(times)]
    assert client.record_events(first).new_count == client.record_events(then).new_count == times


def popular(client: Client, count: int = 3) -> list[str]:
    """Return the first items for an unknown user."""
    return [item.item_id for item in client.recommend(RecommendQuery(page_size=count)).items]


def proposed_beside(client: Client, item_id: str) -> set[str]:
    """Return the items recommended as going with one in the session."""
    query = RecommendQuery(session=(SessionEvent(item_id, "purchase"),), page_size=60, explain=True)
    items = client.recommend(query).items
    return {i.item_id for i in items if any(reason.kind == "goes_with" for reason in i.reasons)}


def served(servers: Servers, backend: Backend, bundle: Bundle) -> Harness:
    return servers.start(live=LiveItems(bundle, 100), state=backend.state)


def unpopular(client: Client) -> str:
    return popular(client, 60)[-1]


def test_what_many_buy_is_popular_and_proposed_beside_it_soon_after(
    servers: Servers, backend: Backend, bundle_until: Make
) -> None:
    left, right = (served(servers, backend, bundle_until()) for _ in range(2))
    with Client(left.address) as a, Client(right.address) as b:
        old, beside = unpopular(a), popular(a, 20)[-1]
        assert old not in proposed_beside(a, beside)
        buy(a, old, beside)
        for client in (a, b):  # also at the replica, which has not been told
            until(lambda client=client: set(popular(client, 2)) == {old, beside})  # type: ignore[misc]
            assert old in proposed_beside(client, beside)
            assert beside in proposed_beside(client, old)


def test_an_added_item_that_many_buy_is_popular_too_and_stays_so_after_a_restart(
    servers: Servers, backend: Backend, bundle_until: Make
) -> None:
    first = served(servers, backend, bundle_until())
    with Client(first.address) as client:
        client.upsert_items([GUITAR])
        beside = popular(client, 20)[-1]
        assert "new" not in popular(client, 60)[:30]
        buy(client, "new", beside)
        until(lambda: set(popular(client, 2)) == {"new", beside})
        assert "new" in proposed_beside(client, beside)
        before = popular(client, 30)
    servers.stop(first)
    with Client(served(servers, backend, bundle_until()).address) as client:
        assert popular(client, 30) == before
        assert "new" in proposed_beside(client, beside)


def test_a_next_model_that_has_learnt_from_them_does_not_count_them_again(
    servers: Servers, backend: Backend, bundle_until: Make
) -> None:
    first = served(servers, backend, bundle_until())
    with Client(first.address) as client:
        before = popular(client, 60)
        buy(client, before[-1], before[-2])
        until(lambda: set(popular(client, 2)) == {before[-1], before[-2]})
    learnt = served(servers, backend, bundle_until(int(time.time()) + 1))
    with Client(learnt.address) as client:
        assert popular(client, 60) == before
        later = datetime.now(UTC) + timedelta(seconds=10)
        client.record_events([Event(f"v{n}", before[9], "purchase", time=later) for n in range(500)])
        until(lambda: popular(client, 1) == [before[9]])
        assert popular(client, 60)[1:] == [item for item in before if item != before[9]]


def test_a_model_that_takes_over_has_counted_what_the_former_had(
    servers: Servers, backend: Backend, bundle_until: Make, tmp_path: Path
) -> None:
    bundles = {version: bundle_until(version=version) for version in (V1, V2)}
    point(tmp_path, V1)
    shop = servers.start(
        live=LiveItems(bundles[V1], 100), load=lambda version, _: LiveItems(bundles[version], 100),
        state=backend.state, reload_seconds=0.05,
    )  # fmt: skip
    with Client(shop.address) as client:
        before = popular(client, 60)
        buy(client, before[-1], before[-2])
        until(lambda: set(popular(client, 2)) == {before[-1], before[-2]})
        known = popular(client, 60)
        point(tmp_path, V2)
        deadline = time.monotonic() + 20
        while client.status().model_version == V1:
            assert popular(client, 60) == known
            assert time.monotonic() < deadline
        assert popular(client, 60) == known
        client.record_events([Event(f"w{n}", before[30], "purchase") for n in range(900)])
        until(lambda: popular(client, 1) == [before[30]])


def test_events_of_an_erased_user_are_counted_no_more_after_a_restart(
    servers: Servers, backend: Backend, bundle_until: Make
) -> None:
    first = served(servers, backend, bundle_until())
    with Client(first.address) as client:
        before = popular(client, 60)
        client.record_events([Event("ada", before[-1], "purchase", event_id=str(n)) for n in range(500)])
        until(lambda: popular(client, 1) == [before[-1]])
        client.delete_user("ada")
    servers.stop(first)
    with Client(served(servers, backend, bundle_until()).address) as client:
        assert popular(client, 60) == before


def test_impressions_make_nothing_popular(servers: Servers, backend: Backend, bundle_until: Make) -> None:
    with Client(served(servers, backend, bundle_until()).address) as client:
        before = popular(client, 60)
        client.record_events([Event(f"u{n}", before[-1], "impression") for n in range(500)])
        client.record_events([Event(f"u{n}", before[-2], "purchase") for n in range(500)])
        until(lambda: popular(client, 1) == [before[-2]])
        assert popular(client, 60)[-1] == before[-1]
