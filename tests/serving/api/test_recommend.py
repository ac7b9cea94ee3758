from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from conf.serving import LimitsConfig
from shelfwise_client import Client, Event, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers, fill_queue, until
from tests.serving.fake_bundle import DATA_END, ITEMS, KINDS, POISON, FakeBundle


def ask(server: Harness, **fields: Any) -> pb.RecommendResponse:
    response: pb.RecommendResponse = server.stub.Recommend(pb.RecommendRequest(**fields), timeout=10)
    return response


def ids(response: pb.RecommendResponse) -> list[str]:
    return [item.item_id for item in response.items]


def refused(server: Harness, **fields: Any) -> ServiceError:
    with pytest.raises(grpc.RpcError) as caught:
        ask(server, **fields)
    return ServiceError.of(caught.value)


def session(*items: str, intent: str = "") -> pb.SessionContext:
    return pb.SessionContext(events=[pb.SessionEvent(item_id=i) for i in items], intent=intent)


def stamp(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


def test_an_empty_request_gets_twenty_popular_items(server: Harness) -> None:
    response = ask(server)
    assert ids(response) == [f"i{r}" for r in range(20)]
    assert response.degradation == pb.DEGRADATION_POPULARITY
    assert response.model_version == "v1"
    assert len(response.request_id) == 32
    assert {item.source for item in response.items} == {"popular"}


def test_an_unknown_user_falls_back_and_says_so(server: Harness) -> None:
    response = ask(server, user_id="nobody", page_size=3)
    assert ids(response) == ["i0", "i1", "i2"]
    assert response.degradation == pb.DEGRADATION_POPULARITY


def test_a_session_personalises_and_is_reported(server: Harness) -> None:
    response = ask(server, user_id="nobody", session=session("i7"), page_size=2)
    assert ids(response) == ["i8", "i0"]
    assert response.degradation == pb.DEGRADATION_SESSION_ONLY


def test_words_alone_are_text_only(server: Harness) -> None:
    response = ask(server, session=session(intent="  running   shoes "), page_size=1)
    assert response.degradation == pb.DEGRADATION_TEXT_ONLY
    intent = server.model.recommender.seen[-1].intent
    assert intent is not None
    assert (intent == server.model.encode_queries(["running shoes"])[0]).all()


def test_unknown_session_items_are_ignored_and_listed_once(server: Harness) -> None:
    response = ask(server, session=session("zzz", "i7", "zzz", "yyy"), page_size=1)
    assert ids(response) == ["i8"]
    assert list(response.unknown_item_ids) == ["zzz", "yyy"]


def test_a_page_larger_than_the_catalogue_is_the_whole_catalogue(server: Harness) -> None:
    response = ask(server, page_size=10_000)
    assert sorted(ids(response)) == sorted(f"i{r}" for r in range(ITEMS))
    assert response.next_page_token == ""


def test_page_size_is_coerced_to_the_maximum(servers: Servers) -> None:
    server = servers.start(max_page_size=4)
    assert len(ask(server, page_size=100).items) == 4
    assert len(ask(server).items) == 4


def test_pages_cover_the_catalogue_without_duplicates(server: Harness) -> None:
    seen: list[str] = []
    token, sizes = "", []
    for size in (7, 7, 11, 7, 7):
        response = ask(server, page_size=size, page_token=token, session=session("i7"))
        seen += ids(response)
        sizes.append(len(response.items))
        token = response.next_page_token
        if not token:
            break
    # i7 itself is left out as seen: 29 items
    assert sizes == [7, 7, 11, 4]
    assert len(seen) == len(set(seen)) == 29


def test_the_last_full_page_has_no_token(server: Harness) -> None:
    first = ask(server, page_size=15)
    second = ask(server, page_size=15, page_token=first.next_page_token)
    assert len(second.items) == 15
    assert second.next_page_token == ""


def test_pages_stay_disjoint_when_the_user_acts_and_the_model_changes(servers: Servers) -> None:
    before, after = servers.start(FakeBundle("v1")), servers.start(FakeBundle("v2"))
    first = ask(before, user_id="u", page_size=10)
    with Client(after.address) as client:
        client.record_events([Event("u", "i5", "purchase"), Event("u", "i20", "purchase")])
    second = ask(after, user_id="u", page_size=10, page_token=first.next_page_token)
    assert second.model_version == "v2"
    assert second.items[0].item_id == "i21"
    assert not set(ids(first)) & set(ids(second))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"filter": "price < 5"}, "PAGE_TOKEN_MISMATCH"),
        ({"user_id": "other"}, "PAGE_TOKEN_MISMATCH"),
        ({"diversity": 0.0}, "PAGE_TOKEN_MISMATCH"),
        ({"page_token": "AAAA"}, "PAGE_TOKEN_INVALID"),
        ({"page_token": "not base64!"}, "PAGE_TOKEN_INVALID"),
        ({"page_token": "é"}, "PAGE_TOKEN_INVALID"),
    ],
)
def test_foreign_and_damaged_tokens_are_refused(server: Harness, change: dict[str, Any], reason: str) -> None:
    token = ask(server, page_size=3).next_page_token
    error = refused(server, **{"page_size": 3, "page_token": token, **change})
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert [v.field for v in error.violations] == ["page_token"]


def test_every_flipped_character_of_a_token_is_noticed(server: Harness) -> None:
    token = ask(server, page_size=2).next_page_token
    for position in range(len(token) - 1):
        flipped = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        assert refused(server, page_size=2, page_token=flipped).violations[0].field == "page_token"


def test_a_token_of_another_rpc_is_refused(server: Harness) -> None:
    token = ask(server, page_size=2).next_page_token
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.SimilarItems(pb.SimilarItemsRequest(item_id="i1", page_token=token), timeout=10)
    assert ServiceError.of(caught.value).reason == "PAGE_TOKEN_MISMATCH"


def test_filters_restrict_the_list(server: Harness) -> None:
    response = ask(server, filter='category = "SHOES" AND price < 10 AND NOT in_stock')
    assert ids(response) == ["i9"]  # 3 has no price, 15 costs too much
    assert response.next_page_token == ""
    assert ids(ask(server, filter="price > 1000")) == []


def test_exclusions_hold_and_may_be_unknown(server: Harness) -> None:
    response = ask(server, exclude_item_ids=["i0", "i2", "nope", "i0"], page_size=3)
    assert ids(response) == ["i1", "i3", "i4"]


def test_exclude_seen_follows_the_bundle_unless_the_request_says(server: Harness) -> None:
    seen = session("i0")
    assert "i0" not in ids(ask(server, session=seen))
    assert "i0" in ids(ask(server, session=seen, exclude_seen=False))
    server.model.exclude_seen = False
    assert "i0" in ids(ask(server, session=seen))
    assert "i0" not in ids(ask(server, session=seen, exclude_seen=True))


def test_explain_gives_readable_reasons(server: Harness) -> None:
    items = ask(server, session=session("i7"), explain=True, page_size=2).items
    assert items[0].reasons[0] == pb.Reason(kind="goes_with", because_item_id="i7", text='Goes with "Item 7"')
    assert items[1].reasons[0] == pb.Reason(kind="popular", text="Popular right now")
    assert not ask(server, session=session("i7")).items[0].reasons


def test_items_are_described(server: Harness) -> None:
    zero, one = ask(server, page_size=2).items
    assert (zero.title, zero.score) == ("Item 0", 1.0)
    assert zero.snippet.startswith("Item number 0. A fine thing")
    assert zero.snippet.endswith("…")
    assert len(zero.snippet) <= 160
    assert not zero.HasField("p_click")  # NaN in the model
    assert one.p_click == 0.5
    assert not one.HasField("p_purchase")


def test_read_mask_keeps_only_its_fields(server: Harness) -> None:
    response = ask(server, page_size=2, read_mask={"paths": ["item_id", "score"]})
    assert list(response.items) == [
        pb.RecommendedItem(item_id="i0", score=1.0),
        pb.RecommendedItem(item_id="i1", score=0.5),
    ]
    everything = ask(server, page_size=1, read_mask={"paths": ["*"]}).items[0]
    assert everything.title == "Item 0"


def test_the_request_time_is_the_models_now_and_hides_later_events(server: Harness) -> None:
    with Client(server.address) as client:
        day = datetime.fromtimestamp(DATA_END, UTC)
        client.record_events(
            [
                Event("u", "i4", "purchase", day),
                Event("u", "i9", "click", day + timedelta(days=2)),
            ]
        )
    ask(server, user_id="u", request_time=stamp(DATA_END + 86_400))
    request = server.model.recommender.seen[-1]
    assert request.now == DATA_END + 86_400
    assert request.history.items.tolist() == [4]
    assert request.history.times.tolist() == [DATA_END]
    assert request.history.kinds.tolist() == [KINDS.index("purchase")]
    ask(server, user_id="u", request_time=stamp(DATA_END))  # strictly before
    assert server.model.recommender.seen[-1].history.items.tolist() == []


def test_history_and_session_are_merged_in_time_order_without_repeats(server: Harness) -> None:
    with Client(server.address) as client:
        start = datetime.fromtimestamp(DATA_END, UTC)
        client.record_events(
            [Event("u", "i4", "purchase", start), Event("u", "i6", "click", start + timedelta(seconds=20))]
        )
    told_again = pb.SessionEvent(item_id="i6", event="click", event_time=stamp(DATA_END + 20))
    between = pb.SessionEvent(item_id="i5", event="add_to_cart", event_time=stamp(DATA_END + 10))
    context = pb.SessionContext(events=[told_again, between, pb.SessionEvent(item_id="i8")])
    response = ask(server, user_id="u", session=context)
    history = server.model.recommender.seen[-1].history
    assert history.items.tolist() == [4, 5, 6, 8]
    assert history.kinds.tolist() == [0, 1, 2, 2]  # no kind given: a view, which is a click here
    assert history.times[-1] == server.model.recommender.seen[-1].now
    assert response.degradation == pb.DEGRADATION_NONE


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"page_size": -1}, "page_size", "negative"),
        ({"diversity": 1.5}, "diversity", "between 0 and 1"),
        ({"diversity": float("nan")}, "diversity", "between 0 and 1"),
        ({"novelty": 1.5}, "novelty", "between 0 and 1"),
        ({"filter": "pric < 3"}, "filter", "did you mean 'price'"),
        ({"filter": "price <"}, "filter", "column 8"),
        ({"filter": 'price = "x"'}, "filter", "needs a number"),
        ({"filter": "price = 1 OR " * 400 + "in_stock"}, "filter", "longer than 2000"),
        ({"filter": "NOT " * 40 + "in_stock"}, "filter", "nested deeper"),
        ({"read_mask": {"paths": ["scores"]}}, "read_mask", "did you mean 'score'"),
        ({"read_mask": {"paths": ["reasons.text"]}}, "read_mask", "no field"),
        ({"surface": "Home Page"}, "surface", "a-z"),
        ({"user_id": "u" * 257}, "user_id", "256"),
        ({"request_time": stamp(-5)}, "request_time", "1970"),
        ({"exclude_item_ids": ["x"] * 10_001}, "exclude_item_ids", "10,000"),
        ({"session": session(intent="x" * 1001)}, "session.intent", "1,000"),
        ({"session": session(*["i1"] * 501)}, "session.events", "500"),
        ({"session": session("i1", "")}, "session.events[1].item_id", "empty"),
        (
            {"session": pb.SessionContext(events=[pb.SessionEvent(item_id="i1", event="a purchase")])},
            "session.events[0].event",
            "event kind 'a purchase' cannot be used",
        ),
        (
            {
                "session": pb.SessionContext(
                    events=[pb.SessionEvent(item_id="i1", event_time=Timestamp(seconds=1, nanos=-1))]
                )
            },
            "session.events[0].event_time",
            "1970",
        ),
    ],
)
def test_bad_fields_are_named(server: Harness, fields: dict[str, Any], path: str, says: str) -> None:
    error = refused(server, **fields)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == [path]
    assert says in error.violations[0].description
    special = {"filter": "FILTER_INVALID", "page_token": "PAGE_TOKEN_INVALID"}
    assert error.reason == special.get(path, "INVALID_FIELD")
    assert len(error.request_id) == 32


def test_the_callers_request_id_is_used_when_it_is_one(server: Harness) -> None:
    def request_id(given: str) -> str:
        metadata = (("x-request-id", given),)
        return str(server.stub.Recommend(pb.RecommendRequest(), metadata=metadata, timeout=10).request_id)

    assert request_id("cart-17.a_B") == "cart-17.a_B"
    assert request_id("two words") != "two words"
    assert len(request_id("x" * 129)) == 32


def test_bytes_that_are_no_request_are_invalid_not_internal(server: Harness) -> None:
    with grpc.insecure_channel(server.address) as channel:
        raw: Any = channel.unary_unary("/shelfwise.v1.RecommendationService/Recommend")
        for garbage in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):  # no message; invalid UTF-8 in user_id
            with pytest.raises(grpc.RpcError) as caught:
                raw(garbage, timeout=10)
            error = ServiceError.of(caught.value)
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


def test_a_failing_model_is_internal_with_a_request_id_and_spares_its_neighbours(
    server: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    server.model.recommender.gate.clear()
    blocker = server.stub.Recommend.future(pb.RecommendRequest(), timeout=10)
    until(lambda: server.running._host.jobs.busy)
    until(lambda: len(server.running._host.jobs) == 0)
    good = server.stub.Recommend.future(pb.RecommendRequest(page_size=1), timeout=10)
    bad = server.stub.Recommend.future(pb.RecommendRequest(session=session(intent=POISON)), timeout=10)
    until(lambda: len(server.running._host.jobs) == 2)
    server.model.recommender.gate.set()
    assert len(blocker.result().items) == 20
    assert ids(good.result()) == ["i0"]
    error = ServiceError.of(bad.exception())
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert error.request_id in caplog.text
    assert "poisoned" not in error.message


def test_a_deadline_of_one_millisecond_is_exceeded_and_its_work_dropped(server: Harness) -> None:
    server.model.recommender.gate.clear()
    blocker = server.stub.Recommend.future(pb.RecommendRequest(), timeout=10)
    until(lambda: server.running._host.jobs.busy and len(server.running._host.jobs) == 0)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Recommend(pb.RecommendRequest(user_id="late"), timeout=0.001)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # The caller gives up by its own clock; the server may be a moment behind.
    server.stub.GetStatus(pb.GetStatusRequest(), timeout=10)
    until(lambda: len(server.running._host.jobs) == 0)
    server.model.recommender.gate.set()
    blocker.result()
    ask(server, page_size=1)
    assert sum(server.model.recommender.batches) == 2  # the late request was never worked on


def test_slow_model_work_does_not_block_other_calls(server: Harness) -> None:
    server.model.recommender.gate.clear()
    slow = server.stub.Recommend.future(pb.RecommendRequest(), timeout=60)
    until(lambda: server.running._host.jobs.busy)
    for _ in range(10):
        server.stub.GetStatus(pb.GetStatusRequest(), timeout=20)
    assert not slow.done()
    server.model.recommender.gate.set()
    assert slow.result().items
    assert len(slow.result().items) == 20


def test_requests_that_wait_are_scored_together(server: Harness) -> None:
    server.model.recommender.gate.clear()
    calls = [server.stub.Recommend.future(pb.RecommendRequest(page_size=1), timeout=10)]
    until(lambda: server.running._host.jobs.busy)
    until(lambda: len(server.running._host.jobs) == 0)
    calls += [server.stub.Recommend.future(pb.RecommendRequest(page_size=n), timeout=10) for n in range(2, 8)]
    until(lambda: len(server.running._host.jobs) == 6)
    server.model.recommender.gate.set()
    assert [len(c.result().items) for c in calls] == [1, 2, 3, 4, 5, 6, 7]
    assert server.model.recommender.batches == [1, 6]


def test_a_full_queue_is_refused_with_a_time_to_retry(servers: Servers) -> None:
    server = servers.start(max_queue=1, limits=LimitsConfig(max_queue_seconds=20))
    running, waiting = fill_queue(server)
    error = refused(server)
    server.model.recommender.gate.set()
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert error.retry_seconds is not None
    assert error.retry_seconds > 0
    assert len(running.result().items) == 20
    assert len(waiting.result().items) == 20
