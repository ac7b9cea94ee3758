from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import Any

import grpc
import polars as pl
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from conf.schema import PrivacyConfig
from conf.serving import LimitsConfig
from serving.scheduling.batcher import QueueFullError
from serving.state.contracts.user_state import StateUnavailableError
from shelfwise_client import Client, Event, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers

Reject = pb.RowReject


def record(server: Harness, *events: pb.Event) -> pb.RecordEventsResponse:
    response: pb.RecordEventsResponse = server.stub.RecordEvents(
        pb.RecordEventsRequest(events=events), timeout=10
    )
    return response


def event(**changes: Any) -> pb.Event:
    return pb.Event(**{"user_id": "u", "item_id": "i7", "event": "click", **changes})


def counts(response: pb.RecordEventsResponse) -> tuple[int, int, int]:
    return response.new_count, response.duplicate_count, len(response.rejects)


def test_the_next_list_reflects_an_event(server: Harness) -> None:
    with Client(server.address) as client:
        assert client.recommend(RecommendQuery(user_id="u")).degradation == "popularity"
        for item, follower in (("i7", "i8"), ("i20", "i21")):
            client.record_events([Event("u", item, "purchase")])
            result = client.recommend(RecommendQuery(user_id="u", page_size=40))
            assert follower in [i.item_id for i in result.items[:2]]
            assert result.degradation == "none"


def test_events_are_idempotent_by_id_within_a_user(server: Harness) -> None:
    assert counts(record(server, event(event_id="a"), event(event_id="b"))) == (2, 0, 0)
    assert counts(record(server, event(event_id="a"), event(event_id="c"), event(event_id="c"))) == (1, 2, 0)
    assert counts(record(server, event(event_id="a", user_id="v"))) == (1, 0, 0)
    status = server.stub.GetStatus(pb.GetStatusRequest(), timeout=10)
    assert (status.event_count, status.user_count) == (4, 2)


def test_events_without_id_are_idempotent_by_content(server: Harness) -> None:
    at = Timestamp(seconds=1_700_000_000, nanos=5)
    assert counts(record(server, event(event_time=at))) == (1, 0, 0)
    assert counts(record(server, event(event_time=at))) == (0, 1, 0)
    later = Timestamp(seconds=1_700_000_000, nanos=6)
    assert counts(record(server, event(event_time=later), event(event_time=at, event="purchase"))) == (
        2,
        0,
        0,
    )
    assert counts(record(server, event(), event())) == (2, 0, 0)  # no time: each is new


def test_bad_rows_are_rejected_one_by_one_with_index_and_reason(server: Harness) -> None:
    ahead = int(time.time()) + 7200
    response = record(
        server,
        event(user_id=""),
        event(event_id="good"),
        event(item_id="nope"),
        event(item_id=""),
        event(event="a click"),
        event(event_time=Timestamp(seconds=ahead)),
        event(event_time=Timestamp(seconds=-1)),
        event(event_time=Timestamp(seconds=10**15)),
        event(user_id="u" * 257),
        event(event_id="e" * 257),
        event(event=""),
    )
    assert (response.new_count, response.duplicate_count) == (1, 0)
    assert [(r.index, r.reason) for r in response.rejects] == [
        (0, Reject.USER_ID),
        (2, Reject.ITEM_ID),
        (3, Reject.ITEM_ID),
        (4, Reject.EVENT_KIND),
        (5, Reject.EVENT_TIME),
        (6, Reject.EVENT_TIME),
        (7, Reject.EVENT_TIME),
        (8, Reject.USER_ID),
        (9, Reject.EVENT_ID),
        (10, Reject.EVENT_KIND),
    ]
    messages = {r.index: r.message for r in response.rejects}
    assert messages[2] == "item_id 'nope' is not in the catalogue"
    assert messages[4] == "event kind 'a click' cannot be used; use 1 to 64 characters of A-Z a-z 0-9 _ . : -"
    assert messages[10] == "event is empty; name what happened, for example `view`"
    assert "future" in messages[5]


def test_kinds_that_the_model_does_not_know_are_stored_and_named(server: Harness) -> None:
    kinds = ("wishlist", "view", "x" * 64, "page:scroll-1.5", "wishlist", "impression", "click")
    response = record(server, *[event(event=kind) for kind in kinds])
    assert counts(response) == (7, 0, 0)
    assert list(response.unknown_event_kinds) == ["wishlist", "view", "x" * 64, "page:scroll-1.5"]
    server.stub.Recommend(pb.RecommendRequest(user_id="u"), timeout=10)
    history = server.model.recommender.seen[-1].history
    assert history.kinds.tolist() == [2, 3, 2]  # a view counts as a click; what means nothing is left out


def test_a_slightly_fast_clock_is_accepted_and_counts_as_now(server: Harness) -> None:
    ahead = Timestamp(seconds=int(time.time()) + 600)
    assert counts(record(server, event(event_time=ahead))) == (1, 0, 0)
    server.stub.Recommend(pb.RecommendRequest(user_id="u"), timeout=10)
    request = server.model.recommender.seen[-1]
    assert request.history.times.tolist() == [request.now]


@pytest.mark.parametrize(("size", "says"), [(0, "empty"), (1001, "at most 1,000")])
def test_empty_and_oversized_batches_are_refused_whole(server: Harness, size: int, says: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        record(server, *[event()] * size)
    error = ServiceError.of(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations[0].field == "events"
    assert says in error.message


def test_a_deleted_users_old_events_are_rejected_and_new_ones_welcome(server: Harness) -> None:
    old = Timestamp(seconds=1_700_000_000)
    record(server, event(event_time=old))
    assert server.call(server.running.service._state.delete_user("u")) == 1
    response = record(server, event(event_time=old), event(event_id="after"))
    assert [(r.index, r.reason) for r in response.rejects] == [(0, Reject.USER_DELETED)]
    assert response.new_count == 1


def test_history_is_limited_to_the_latest_events(servers: Servers) -> None:
    server = servers.start(max_history=3)
    rows = [event(item_id=f"i{n}", event_time=Timestamp(seconds=1_700_000_000 + n)) for n in range(8)]
    record(server, *rows)
    server.stub.Recommend(pb.RecommendRequest(user_id="u"), timeout=10)
    assert server.model.recommender.seen[-1].history.items.tolist() == [5, 6, 7]


@pytest.mark.parametrize("refused", [False, True], ids=["no answer in time", "refused at once"])
def test_a_deadline_too_short_for_the_state_is_named_as_the_cause_once_a_minute(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refused: bool
) -> None:
    server = servers.start(limits=LimitsConfig(history_seconds=4.0))

    async def slow(user: str, limit: int, applied: int, before: int | None, until: float, *_: Any) -> Any:
        if refused:
            raise QueueFullError(0.1, "deadline")
        await asyncio.sleep(until - asyncio.get_running_loop().time())
        raise TimeoutError

    monkeypatch.setattr(server.running.service._state, "snapshot", slow)
    for _ in range(3):
        response = server.stub.Recommend(pb.RecommendRequest(user_id="u", page_size=1), timeout=2)
        assert response.degradation == pb.DEGRADATION_HISTORY_UNAVAILABLE
    (line,) = [r.getMessage() for r in caplog.records if r.name == "serving.api.user_context"]
    assert line.startswith("lists made without stored events because of their callers' deadlines: 1 since ")
    waited = int(re.search(r"the latest had (\d+) ms", line)[1])  # type: ignore[index]
    assert 500 <= waited <= 1010  # half of what was left of two seconds, which gRPC rounds up
    assert line.endswith("deadlines of 8000 ms leave all of limits.history_seconds")
    # A state that fails is still named when the deadline is long enough.
    response = server.stub.Recommend(pb.RecommendRequest(user_id="u", page_size=1), timeout=20)
    assert response.degradation == pb.DEGRADATION_HISTORY_UNAVAILABLE
    lines = [r.getMessage() for r in caplog.records if r.name == "serving.api.user_context"]
    assert len(lines) == 2
    assert lines[1].startswith("lists are made without stored events from now on: ")
    assert refused or lines[1].endswith("no answer within 4 s")


def test_an_unreadable_history_degrades_the_list_but_fails_the_write(
    server: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise StateUnavailableError("disk on fire")

    monkeypatch.setattr(server.running.service._state, "snapshot", broken)
    monkeypatch.setattr(server.running.service._state, "record", broken)
    response = server.stub.Recommend(pb.RecommendRequest(user_id="u", page_size=1), timeout=10)
    assert response.degradation == pb.DEGRADATION_HISTORY_UNAVAILABLE
    assert [i.item_id for i in response.items] == ["i0"]
    with pytest.raises(grpc.RpcError) as caught:
        record(server, event())
    error = ServiceError.of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE")
    assert error.retry_seconds == 1.0
    assert "fire" not in error.message


def test_training_histories_are_imported_at_start(servers: Servers) -> None:
    rows = {
        "user_id": ["old"],
        "item_id": ["i4"],
        "event": ["purchase"],
        "timestamp": [1_600_000_000],
        "order": [0],
    }
    pl.DataFrame(rows).write_parquet(servers.store / "histories.parquet")
    server = servers.start()
    response = server.stub.Recommend(pb.RecommendRequest(user_id="old", page_size=1), timeout=10)
    assert response.items[0].item_id == "i5"
    assert response.degradation == pb.DEGRADATION_NONE


def test_pseudonymised_users_are_found_and_their_ids_are_not_stored(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELFWISE_USER_KEY", "secret")
    server = servers.start(privacy=PrivacyConfig(hash_users=True))
    with Client(server.address) as client:
        client.record_events([Event("alice@example.com", "i7", "click")])
        found = client.recommend(RecommendQuery(user_id="alice@example.com"))
    assert found.degradation == "none"
    stored = b"".join(path.read_bytes() for path in servers.store.glob("state.sqlite*"))
    assert b"alice" not in stored
    assert b"i7" in stored


def test_raw_user_ids_do_not_reach_the_log(server: Harness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="serving")
    with Client(server.address) as client:
        client.record_events([Event("alice@example.com", "i7", "click", datetime.now(UTC))])
        client.recommend(RecommendQuery(user_id="alice@example.com", surface="cart"))
    assert "surface=cart" in caplog.text
    assert "user=ff8d9819" in caplog.text  # sha256 of the id begins with this
    assert "alice" not in caplog.text
