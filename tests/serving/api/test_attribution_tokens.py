"""Attribution: a list has a token, and its events are stored with the list's origin."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.attribution_tokens import KEY_ENV, MAX_CHARS, AttributionTokens, ListOrigin
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers
from tests.serving.fake_bundle import FakeBundle

ORIGIN = ListOrigin("r-1", "v1", 1_700_000_000, "home", "phone", 17, 20, (2**-0.5, 2**-7.5, 1.0))
COLUMNS = "item_id, kind, request_id, list_position, surface, model_version, device, hour, propensity"
Row = tuple[object, ...]


def record(server: Harness, *events: pb.Event, **fields: Any) -> pb.RecordEventsResponse:
    response: pb.RecordEventsResponse = server.stub.RecordEvents(
        pb.RecordEventsRequest(events=events, **fields), timeout=10
    )
    return response


def stored(server: Harness) -> list[Row]:
    with sqlite3.connect(server.store / "state.sqlite") as db:
        rows: list[Row] = db.execute(f"SELECT {COLUMNS} FROM events ORDER BY time_us, position").fetchall()
    db.close()
    return rows


def event(item: str, kind: str = "click", **fields: Any) -> pb.Event:
    return pb.Event(user_id="u", item_id=item, event=kind, **fields)


def without_impressions() -> FakeBundle:
    bundle = FakeBundle()
    bundle.kinds = ["purchase", "click"]
    return bundle


def test_a_token_says_what_it_was_made_of() -> None:
    tokens = AttributionTokens(b"")
    old = replace(ORIGIN, hour=0, surface="", before=0, propensities=None)
    arms = replace(ORIGIN, experiments="layout=wide;ranking=new")
    for origin in (ORIGIN, ListOrigin("r", "", 0), old, arms, replace(arms, propensities=())):
        assert tokens.read(tokens.make(origin)) == origin
    usual = ListOrigin("0" * 32, "20240531T120000-3f2a9c1", 1_700_000_000, "product_page", "phone", 3)
    assert len(tokens.make(usual)) < 130


def test_a_token_has_the_propensities_of_its_page() -> None:
    tokens = AttributionTokens(b"")
    chances = (0.8, 0.2 / 45, 0.8, 1e-12, *[0.8] * 296)
    arms = ";".join(f"{number}{'e' * 31}={'a' * 32}" for number in range(8))
    token = tokens.make(
        replace(ORIGIN, request_id="0" * 128, surface="s" * 64, propensities=chances, experiments=arms)
    )
    assert len(token) <= MAX_CHARS
    origin = tokens.read(token)
    assert origin is not None
    known = [origin.propensity(position) for position in (21, 22, 23, 120)]
    assert known == [pytest.approx(p, rel=2e-4) for p in (0.8, 0.2 / 45, 0.8, 0.8)]
    assert origin.propensity(24) == pytest.approx(2**-32, rel=1e-3)  # the smallest one
    assert [origin.propensity(position) for position in (20, 121)] == [None, None]
    assert replace(ORIGIN, propensities=()).propensity(7) == 1.0
    assert replace(ORIGIN, propensities=None).propensity(21) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_change_of_a_token_goes_unnoticed(data: st.DataObject) -> None:
    tokens = AttributionTokens(b"")
    token = tokens.make(ORIGIN)
    place = data.draw(st.integers(0, len(token) - 1))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=. é"
    letter = data.draw(st.sampled_from(letters))
    changed = token[:place] + letter + token[place + 1 :]
    found = tokens.read(changed)
    # The last letter of base64 has bits that say nothing.
    assert found is None or (found == ORIGIN and (changed == token or place == len(token) - 1))


@pytest.mark.parametrize("token", ["", "A", "AAAA", "=" * 8, "A" * 200, "A" * 5000, "\u00e9" * 40])
def test_what_is_no_token_is_none(token: str) -> None:
    assert AttributionTokens(b"").read(token) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_forged_bodies_with_a_right_check_do_not_break_the_reader(body: bytes) -> None:
    tokens = AttributionTokens(b"")
    origin = tokens.read(tokens._codec.encode(body))
    assert origin is None or tokens.read(tokens.make(origin)) == origin


def test_a_key_signs_and_only_its_holder_can_make_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, "secret")
    signed = AttributionTokens()
    assert signed.read(signed.make(ORIGIN)) == ORIGIN
    assert AttributionTokens(b"secret").read(signed.make(ORIGIN)) == ORIGIN
    for other in (b"", b"guessed"):
        assert signed.read(AttributionTokens(other).make(ORIGIN)) is None


def test_every_list_carries_a_token_and_places(server: Harness) -> None:
    tokens = AttributionTokens()
    session = pb.SessionContext(device="tablet", hour=0)
    lists = {
        "home": server.stub.Recommend(pb.RecommendRequest(surface="home", session=session, page_size=3)),
        "find": server.stub.SearchItems(pb.SearchItemsRequest(query="x", surface="find", page_size=3)),
        "more": server.stub.SimilarItems(pb.SimilarItemsRequest(item_id="i1", surface="more", page_size=3)),
    }
    for surface, response in lists.items():
        origin = tokens.read(response.attribution_token)
        assert origin is not None
        assert abs(origin.time - time.time()) < 60
        assert (origin.request_id, origin.model_version, origin.surface) == (
            response.request_id,
            "v1",
            surface,
        )
        assert [item.list_position for item in response.items] == [1, 2, 3]
    home = tokens.read(lists["home"].attribution_token)
    assert home is not None
    assert (home.device, home.hour) == ("tablet", 0)


def test_places_go_on_over_pages(server: Harness) -> None:
    first = server.stub.SearchItems(pb.SearchItemsRequest(query="x", page_size=4))
    second = server.stub.SearchItems(
        pb.SearchItemsRequest(query="x", page_size=2, page_token=first.next_page_token)
    )
    assert [item.list_position for item in (*first.items, *second.items)] == [1, 2, 3, 4, 5, 6]


def test_the_read_mask_leaves_places_out(server: Harness) -> None:
    response = server.stub.Recommend(pb.RecommendRequest(read_mask={"paths": ["item_id"]}))
    assert {item.list_position for item in response.items} == {0}


def test_events_are_stored_with_the_list_that_they_came_from(server: Harness) -> None:
    session = pb.SessionContext(device="phone", hour=17)
    page = server.stub.Recommend(pb.RecommendRequest(user_id="u", surface="home", session=session))
    token, request_id = page.attribution_token, page.request_id
    response = record(
        server,
        event("i2", attribution_token=token, list_position=3),
        event("i4", "purchase", attribution_token=token),
        event("i5", list_position=9),
        event("i6"),
    )
    assert (response.new_count, len(response.rejects)) == (4, 0)
    assert stored(server) == [
        ("i2", "click", request_id, 3, "home", "v1", "phone", 17, 1.0),
        ("i4", "purchase", request_id, None, "home", "v1", "phone", 17, None),
        ("i5", "click", None, 9, None, None, None, None, None),
        ("i6", "click", None, None, None, None, None, None, None),
    ]


def test_bad_tokens_and_places_are_rejected_row_by_row(server: Harness) -> None:
    token = server.stub.Recommend(pb.RecommendRequest()).attribution_token
    response = record(
        server,
        event("i1", attribution_token="forged"),
        event("i2", attribution_token=token[:-4]),
        event("i3", attribution_token=token),
        event("i4", list_position=-1),
        event("i5", list_position=100_001),
        event("i6", attribution_token="x" * 100_000),
    )
    assert response.new_count == 1
    assert [(r.index, r.reason) for r in response.rejects] == [
        (0, pb.RowReject.ATTRIBUTION_TOKEN),
        (1, pb.RowReject.ATTRIBUTION_TOKEN),
        (3, pb.RowReject.LIST_POSITION),
        (4, pb.RowReject.LIST_POSITION),
        (5, pb.RowReject.ATTRIBUTION_TOKEN),
    ]
    assert "leave it out" in response.rejects[0].message


def test_a_token_outlives_the_server_and_the_model(servers: Servers) -> None:
    first = servers.start()
    page = first.stub.Recommend(pb.RecommendRequest(surface="cart"))
    servers.stop(first)
    second = servers.start(model=FakeBundle("v2"))
    assert record(second, event("i1", attribution_token=page.attribution_token)).new_count == 1
    assert stored(second)[0][2:6] == (page.request_id, None, "cart", "v1")


def impressions(page: pb.RecommendResponse) -> list[pb.Event]:
    return [
        event(
            i.item_id, "impression", attribution_token=page.attribution_token, list_position=i.list_position
        )
        for i in page.items
    ]


def test_impressions_told_again_count_once(server: Harness) -> None:
    page = server.stub.Recommend(pb.RecommendRequest(page_size=5))
    shown = impressions(page)
    assert record(server, *shown).new_count == 5
    again = record(server, *shown, *shown)
    assert (again.new_count, again.duplicate_count) == (0, 10)
    other = server.stub.Recommend(pb.RecommendRequest(page_size=5))
    assert record(server, *impressions(other)).new_count == 5  # shown in another list


def test_replayed_events_with_other_tokens_change_nothing(server: Harness) -> None:
    page = server.stub.Recommend(pb.RecommendRequest(surface="home"))
    at = Timestamp(seconds=1_700_000_000)
    record(server, event("i1", event_id="e1"), event("i2", event_time=at))
    token = page.attribution_token
    again = record(
        server,
        event("i1", event_id="e1", attribution_token=token),
        event("i2", event_time=at, attribution_token=token, list_position=4),
    )
    assert (again.new_count, again.duplicate_count) == (0, 2)
    assert [row[2:5] for row in sorted(stored(server), key=str)] == [(None, None, None)] * 2


def test_impressions_are_taken_by_a_model_that_does_not_know_them_and_change_no_list(
    servers: Servers,
) -> None:
    server = servers.start(model=without_impressions(), max_history=4)
    record(server, event("i20", "purchase", event_time=Timestamp(seconds=1_700_000_000)))
    before = server.stub.Recommend(pb.RecommendRequest(user_id="u"))
    assert before.items[0].item_id == "i21"
    shown = [item for item in impressions(before) if item.item_id != "i20"]
    assert record(server, *shown).new_count == len(before.items)
    after = server.stub.Recommend(pb.RecommendRequest(user_id="u"))
    assert after.items == before.items
    assert after.degradation == pb.DEGRADATION_NONE
    assert len(stored(server)) == 1 + len(before.items)


def test_a_model_that_knows_impressions_sees_them_in_histories(server: Harness) -> None:
    record(server, event("i7", "impression"))
    page = server.stub.Recommend(pb.RecommendRequest(user_id="u", page_size=1))
    assert page.items[0].item_id == "i8"


def test_kinds_that_the_model_does_not_know_are_attributed_too(servers: Servers) -> None:
    server = servers.start(model=without_impressions())
    page = server.stub.Recommend(pb.RecommendRequest(page_size=2, surface="home"), timeout=10)
    told = {"attribution_token": page.attribution_token, "list_position": 2}
    response = record(server, event("i1", "wishlist", **told), event("i1", "impression", **told))
    assert (response.new_count, list(response.unknown_event_kinds)) == (2, ["wishlist"])
    assert stored(server) == [
        ("i1", kind, page.request_id, 2, "home", "v1", None, None, 1.0) for kind in ("wishlist", "impression")
    ]


def test_nothing_is_stored_when_only_validating(server: Harness) -> None:
    response = record(server, event("i1"), event("nope"), validate_only=True)
    assert (response.new_count, [r.index for r in response.rejects]) == (1, [1])
    assert stored(server) == []
