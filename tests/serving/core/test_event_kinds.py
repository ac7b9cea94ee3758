"""Event kinds: valid names, and kinds unknown to the model."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from conf.operating import ExportEventsConfig
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from features.data.histories import INTEREST
from ranking.live.updates import LiveItems
from serving.cli.export_events import export_events
from serving.core.event_kinds import history_codes, kind_fault
from shelfwise_client import Client, Event, RecommendQuery, SessionEvent
from tests.bundles import make_bundle
from tests.serving.conftest import Harness, Servers
from tests.synthetic import make_dataset


@pytest.mark.parametrize("kind", ["a", "View", "add_to_cart", "app:open-2.1", "_x", "9", "k" * 64])
def test_kinds_that_can_be_stored(kind: str) -> None:
    assert kind_fault(kind, ["purchase"]) == ""


@pytest.mark.parametrize("kind", ["", " ", "k" * 65, "in den Korb", "käuf", "-x", ".x", "a\n", "a/b", "\x00"])
def test_kinds_that_cannot(kind: str) -> None:
    empty = "event is empty; name what happened, for example `view`"
    named = f"event kind '{kind[:64]}' cannot be used; use 1 to 64 characters of A-Z a-z 0-9 _ . : -"
    assert kind_fault(kind, ["purchase"]) == (named if kind else empty)
    assert kind_fault(kind, ["purchase", kind]) == ""  # trained on it: whatever it is called


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (["purchase"], {"purchase": 0, "add_to_cart": INTEREST, "click": INTEREST, "view": INTEREST}),
        (["purchase", "click"], {"purchase": 0, "click": 1, "add_to_cart": 1, "view": 1}),
        (["view"], {"view": 0, "click": 0, "add_to_cart": 0, "purchase": 0}),
        (["purchase", "add_to_cart", "impression"], {
            "purchase": 0, "add_to_cart": 1, "impression": 2, "click": INTEREST, "view": INTEREST,
        }),
        (["order", "visit"], {
            "order": 0, "visit": 1, **dict.fromkeys(("purchase", "add_to_cart", "click", "view"), INTEREST),
        }),
    ],
)  # fmt: skip
def test_a_kind_counts_as_the_nearest_weaker_one_or_as_interest(
    known: list[str], expected: dict[str, int]
) -> None:
    assert dict(history_codes(known)) == expected


@pytest.fixture(scope="module")
def baskets(dataset: Dataset) -> Dataset:
    """A shop that was trained on purchases alone."""
    events = [(f"u{n}", f"i{n % 60}", "purchase", 1000 + n) for n in range(120)]
    return make_dataset(events, dataset.catalogue.frame)


@pytest.fixture
def shop(servers: Servers, baskets: Dataset, encoder: TextEncoder) -> Harness:
    assert baskets.kinds == ["purchase"]
    return servers.start(live=LiveItems(make_bundle(baskets, encoder), 100))


def test_a_view_personalises_and_is_no_purchase(shop: Harness) -> None:
    """With a model trained on purchases; recorded, in the session, or without a kind."""
    with Client(shop.address) as client:
        recorded = client.record_events([Event("ben", "i2", "view"), Event("ben", "i2", "click")])
        assert (recorded.new_count, recorded.unknown_event_kinds) == (2, ("view", "click"))
        nobody = client.recommend(RecommendQuery(page_size=60))
        for query in (
            RecommendQuery(user_id="ben", page_size=60, explain=True),
            RecommendQuery(session=(SessionEvent("i2"),), page_size=60, explain=True),
            RecommendQuery(session=(SessionEvent("i2", "view"),), page_size=60, explain=True),
        ):
            page = client.recommend(query)
            assert page.degradation in ("none", "session_only")
            assert [i.item_id for i in page.items] != [i.item_id for i in nobody.items]
            assert any(reason.because_item_id == "i2" for item in page.items for reason in item.reasons)
            assert not [i.item_id for i in page.items if i.source == "repeat"]
            assert not [r for i in page.items for r in i.reasons if r.kind == "bought_before"]
        client.record_events([Event("ben", "i2", "purchase")])
        page = client.recommend(RecommendQuery(user_id="ben", page_size=60, explain=True))
        bought = [i.item_id for i in page.items for r in i.reasons if r.kind == "bought_before"]
        assert bought == ["i2"]


def test_kinds_that_the_model_does_not_know_are_exported(
    servers: Servers, shop: Harness, tmp_path: Path
) -> None:
    with Client(shop.address) as client:
        client.record_events([Event("ben", "i2", kind) for kind in ("wishlist", "view", "purchase")])
    servers.stop(shop)
    output = tmp_path / "events.parquet"
    export_events(ExportEventsConfig(artifacts=str(shop.store), output=str(output)), Console(quiet=True))
    assert pl.read_parquet(output)["event"].to_list() == ["wishlist", "view", "purchase"]


def test_what_means_nothing_does_not_push_out_what_was_bought(servers: Servers) -> None:
    server = servers.start(max_history=4)
    with Client(server.address) as client:
        client.record_events([Event("ben", f"i{n}", "purchase") for n in range(6)])
        client.record_events([Event("ben", "i9", "scroll") for _ in range(30)])
        client.record_events([Event("ben", "i8", "view")])
        client.recommend(RecommendQuery(user_id="ben"))
        assert server.model.recommender.seen[-1].history.items.tolist() == [3, 4, 5, 8]
        client.record_events([Event("ben", "i9", "scroll") for _ in range(40)])
        client.recommend(RecommendQuery(user_id="ben"))  # there is an end to it
        assert server.model.recommender.seen[-1].history.items.tolist() == []


def test_what_means_nothing_to_the_model_changes_no_list(shop: Harness) -> None:
    with Client(shop.address) as client:
        client.record_events([Event("ben", "i2", "newsletter"), Event("ben", "i3", "impression")])
        page = client.recommend(RecommendQuery(user_id="ben"))
        assert page.degradation == "popularity"
        session = client.recommend(RecommendQuery(session=(SessionEvent("i2", "return"),)))
        assert session.degradation == "popularity"
