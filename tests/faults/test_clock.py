"""The server's clock is set back or forward: no event is lost or restored, and no call fails."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from shelfwise_client import Client, Event, Item, RecommendQuery, SimilarQuery
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.faults.changing_bundle import ChangingBundle
from tests.serving.conftest import Harness, Servers

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)


class Clock:
    """The wall clock of the server, with a step; `time.time_ns` is the only place where it reads it.

    `time.time` stays as it is: the client in the same process makes deadlines with it.
    """

    def __init__(self) -> None:
        self._true = time.time_ns
        self._step = 0

    def step(self, by: timedelta) -> None:
        self._step += int(by.total_seconds()) * 1_000_000_000

    def time_ns(self) -> int:
        return self._true() + self._step

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_ns() / 1e9, UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "time_ns", made.time_ns)
    return made


def listed(client: Client, **query: object) -> set[str]:
    """Return the followers of the items in the user's history; see FakeRecommender."""
    page = client.recommend(RecommendQuery(user_id="u", page_size=30, **query))  # type: ignore[arg-type]
    return {item.item_id for item in page.items if item.source == "item_to_item"}


@pytest.mark.parametrize("step", [-HOUR, -YEAR, HOUR, 5 * YEAR])
def test_events_of_before_and_after_a_step_are_all_seen(
    server: Harness, clock: Clock, step: timedelta
) -> None:
    with Client(server.address) as client:
        client.record_events([Event("u", "i3", "click", event_id="before")])
        clock.step(step)
        assert client.record_events([Event("u", "i3", "click", event_id="before")]).duplicate_count == 1
        client.record_events([Event("u", "i10", "click", event_id="after")])
        assert listed(client) == {"i4", "i11"}
        clock.step(-step)  # and it is put right again
        client.record_events([Event("u", "i20", "click", event_id="again")])
        assert listed(client) == {"i4", "i11", "i21"}
        status = client.status()
        assert (status.event_count, status.user_count) == (3, 1)
        assert abs(server.model.recommender.seen[-1].now - clock.now().timestamp()) < 60
        # Events that lie ahead count as of now: no age is negative, none is in the order before older ones.
        times = server.model.recommender.seen[-1].history.times
        assert times.max() <= server.model.recommender.seen[-1].now
        assert (times[1:] >= times[:-1]).all()


def test_what_is_too_far_ahead_is_decided_by_the_clock_of_the_moment(server: Harness, clock: Clock) -> None:
    with Client(server.address) as client:
        event = Event("u", "i3", "click", time=clock.now() + HOUR / 2, event_id="e")
        clock.step(-HOUR)
        refused = client.record_events([event])
        assert [(r.index, r.reason) for r in refused.rejects] == [(0, "EVENT_TIME")]
        assert "check the sender's clock" in refused.rejects[0].message
        clock.step(HOUR)
        assert client.record_events([event]).new_count == 1
        clock.step(-YEAR)  # what is stored already is not judged again
        assert listed(client) == {"i4"}
        assert listed(client, request_time=clock.now()) == set()  # strictly before that time, as asked


@pytest.mark.parametrize("step", [-DAY, DAY])
def test_a_deleted_users_events_do_not_come_back_with_a_step(
    server: Harness, clock: Clock, step: timedelta
) -> None:
    with Client(server.address) as client:
        events = [
            Event("u", f"i{n}", "click", time=clock.now() + n * HOUR / 20, event_id=f"e{n}") for n in range(9)
        ]
        assert client.record_events(events).new_count == 9
        clock.step(step)
        assert client.delete_user("u").deleted_event_count == 9
        clock.step(-step - DAY)
        assert client.delete_user("u").deleted_event_count == 0
        clock.step(DAY)
        again = client.record_events(events)  # by a sender who has not heard of it
        assert again.new_count == 0
        assert {r.reason for r in again.rejects} == {"USER_DELETED"}
        assert client.status().user_count == 0
        later = clock.now() + HOUR / 2 + (DAY if step > timedelta() else timedelta())
        clock.step(later - clock.now())
        assert client.record_events([Event("u", "i3", "click")]).new_count == 1  # a new beginning


def test_the_last_change_of_an_item_counts_whatever_the_clock_says(servers: Servers, clock: Clock) -> None:
    model = ChangingBundle()
    server = servers.start(model, live=model)
    with Client(server.address) as client:
        for title, step in (
            ("Boot one", -DAY),
            ("Boot two", 2 * DAY),
            ("Boot three", -YEAR),
            ("Boot four", DAY),
        ):
            client.upsert_items([Item("n", {"title": title})])
            clock.step(step)
            found = client.similar_items(SimilarQuery(text=title, page_size=1)).items[0]
            assert (found.item_id, found.title) == ("n", title)
        client.delete_items(["n"])
        assert client.status().deleted_item_count == 1


def test_uptime_does_not_follow_the_wall_clock(server: Harness, clock: Clock) -> None:
    for step in (-YEAR, 2 * YEAR):
        clock.step(step)
        assert 0 <= server.stub.GetStatus(pb.GetStatusRequest(), timeout=10).uptime.seconds < 300
