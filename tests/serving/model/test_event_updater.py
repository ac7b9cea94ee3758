"""Counting of recorded events: which, when, and failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import pytest

from ranking.live.recorded_events import CountResult, Interaction, RecordedEvent
from serving.model.event_updater import EventUpdater
from serving.model.execute_batch import execute_batch
from serving.model.interfaces import Answer, Job
from serving.scheduling.batcher import Batcher
from serving.state.contracts.user_state import MICROS, FeedPage, StateUnavailableError, UserState
from tests.serving.fake_bundle import DATA_END, FakeBundle

T = TypeVar("T")
AFTER = (DATA_END + 1) * MICROS


def event(item_id: str, time_us: int = AFTER, kind: str = "click", *before: Interaction) -> RecordedEvent:
    return RecordedEvent(item_id, kind, time_us, before)


class Notebook(FakeBundle):
    """Records the events to count; fails on `poison`."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.events: list[RecordedEvent] = []
        self.threads: set[str] = set()
        self.behind = 0

    def count_events(self, events: Sequence[RecordedEvent]) -> CountResult:
        if any(event.item_id == "poison" for event in events):
            raise ValueError("cannot be counted")
        self.threads.add(threading.current_thread().name.split("_")[0])
        self.batches.append([event.item_id for event in events])
        self.events += events
        self.behind = max(self.behind - 1, 0)
        unknown = sum(event.item_id == "unknown" for event in events)
        return CountResult(len(events) - unknown, unknown, self.behind)


class Feed:
    """An in-memory feed that can be made to fail; positions are numbers of events."""

    def __init__(self, *events: RecordedEvent) -> None:
        self.stored = list(events)
        self.failures: list[Exception] = []
        self.asked_after = 0

    async def recorded_since(self, position: int, limit: int, after_us: int) -> FeedPage:
        if self.failures:
            raise self.failures.pop()
        self.asked_after = after_us
        page = self.stored[position : position + limit]
        return FeedPage([event for event in page if event.time_us > after_us], position + len(page))


def following(
    feed: Feed, scenario: Callable[[EventUpdater, Notebook], Awaitable[T]], poll_seconds: float = 0.01
) -> T:
    async def run() -> T:
        model, jobs = Notebook(), Batcher[Job, Answer](execute_batch, max_batch=8, max_queue=1, name="model")
        follower = EventUpdater(model, cast(UserState, feed), jobs, poll_seconds)
        try:
            return await scenario(follower, model)
        finally:
            await follower.stop()
            await jobs.close()

    return asyncio.run(run())


async def prepared(follower: EventUpdater) -> None:
    with ThreadPoolExecutor(1, "loading") as loading:
        await follower.prepare(loading)


async def reached(follower: EventUpdater, count: int) -> None:
    async with asyncio.timeout(20):
        while follower.counted < count:
            await asyncio.sleep(0.002)


def test_a_model_counts_everything_page_by_page_before_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.event_updater.START_CHUNK", 2)

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        await prepared(follower)
        assert model.batches == [["a", "b"], ["c", "d"], ["e"]]
        assert model.threads == {"loading"}
        assert follower.counted == 5
        await prepared(follower)
        assert len(model.batches) == 3
        follower.start()
        feed.stored.append(event("f"))
        follower.poll_now()
        await reached(follower, 6)
        assert model.batches[3:] == [["f"]]
        assert model.threads == {"loading", "model"}

    feed = Feed(*(event(item) for item in "abcde"))
    following(feed, scenario, poll_seconds=60.0)


def test_what_the_bundle_may_have_learnt_from_is_not_counted() -> None:
    """Training data have whole seconds: all of the last one belongs to the bundle."""

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        await prepared(follower)
        assert model.batches == [["next"]]

    last = DATA_END * MICROS
    following(Feed(event("last", last), event("within", last + 999_999), event("next", AFTER)), scenario)


def test_kinds_count_as_the_model_understands_them_and_others_not_at_all() -> None:
    """The fake model knows purchase, add_to_cart, click and impression: a view counts as a click."""
    click, wish, seen = (
        Interaction("i1", "click"),
        Interaction("i2", "wishlist"),
        Interaction("i3", "impression"),
    )
    feed = Feed(
        event("a", AFTER, "click", wish, click, seen), event("b", AFTER, "wishlist", click),
        event("c", AFTER, "view"), event("d", AFTER, "impression"), event("e", AFTER, "purchase", click),
    )  # fmt: skip

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        await prepared(follower)
        assert [(e.item_id, e.before) for e in model.events] == [("a", (click,)), ("c", ()), ("e", (click,))]

    following(feed, scenario)


def test_events_of_others_are_found_without_being_rung_for() -> None:
    feed = Feed()

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        follower.start()
        feed.stored.append(event("a"))
        await reached(follower, 1)

    following(feed, scenario)


def test_events_that_come_together_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.event_updater.MIN_INTERVAL_SECONDS", 0.2)
    feed = Feed(event("a"))

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        follower.start()
        follower.poll_now()
        await reached(follower, 1)
        for item in "bcdef":
            feed.stored.append(event(item))
            follower.poll_now()
            await asyncio.sleep(0)
        await reached(follower, 6)
        assert model.batches == [["a"], [*"bcdef"]]

    following(feed, scenario, poll_seconds=60.0)


def test_items_of_a_former_day_are_brought_to_this_one_without_waiting_for_events() -> None:
    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        model.behind = 4
        follower.start()
        follower.poll_now()
        async with asyncio.timeout(20):
            while len(model.batches) < 4:
                await asyncio.sleep(0.002)
        assert model.batches == [["a"], [], [], []]

    following(Feed(event("a")), scenario)


def test_what_cannot_be_counted_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed(event("a"))

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        await prepared(follower)
        follower.start()
        feed.stored.append(event("poison"))
        async with asyncio.timeout(20):
            while "cannot be counted" not in caplog.text:
                await asyncio.sleep(0.002)
        feed.stored += [event("unknown"), event("b")]
        await reached(follower, 2)
        assert model.batches == [["a"], ["unknown", "b"]]
        assert follower.unknown == 1

    following(feed, scenario)
    assert "1 recorded events cannot be counted" in caplog.text


@pytest.mark.parametrize("failure", [StateUnavailableError("disk"), RuntimeError("anything")])
def test_a_store_that_fails_is_asked_again(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed(event("a"))
    feed.failures = [failure, failure]

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        before = follower.behind_seconds
        follower.start()
        await asyncio.sleep(0.005)
        assert follower.behind_seconds > before
        await reached(follower, 1)

    following(feed, scenario)
    assert caplog.text.count("recorded events cannot be counted") == 1  # said once, not at every look


def test_a_model_that_has_ended_loses_nothing() -> None:
    feed = Feed(event("poison"))

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        model.works = False
        with pytest.raises(ValueError, match="cannot be counted"):
            await prepared(follower)
        cast(Any, feed.stored)[0] = event("a")
        await prepared(follower)
        assert model.batches == [["a"]]

    following(feed, scenario)


def test_it_stops_while_events_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.event_updater.MIN_INTERVAL_SECONDS", 60.0)
    feed = Feed(event("a"))

    async def scenario(follower: EventUpdater, model: Notebook) -> None:
        follower.start()
        await reached(follower, 1)
        await asyncio.wait_for(follower.stop(), 20)
        feed.stored.append(event("b"))
        follower.poll_now()
        await asyncio.sleep(0.05)
        assert model.batches == [["a"]]

    following(feed, scenario)
