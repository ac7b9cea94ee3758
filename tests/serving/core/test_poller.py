"""Looking in the background: when, how often, and what becomes of failures."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from serving.core.poller import Poller

LONG = 3600.0


class Place:
    """Looked at; each look takes one of the failures that are left, and is counted when it ends."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.looks = 0
        self.ended = asyncio.Condition()

    async def look(self) -> None:
        async with self.ended:
            self.looks += 1
            self.ended.notify_all()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    async def reach(self, looks: int) -> None:
        async with asyncio.timeout(10), self.ended:
            await self.ended.wait_for(lambda: self.looks >= looks)


def test_it_looks_again_and_again_but_not_before_it_is_started() -> None:
    async def scenario() -> None:
        place = Place()
        watch = Poller(place.look, 0.001, "trouble")
        await asyncio.sleep(0.01)
        assert place.looks == 0
        watch.start()
        await place.reach(3)
        await watch.stop()
        looks = place.looks
        await asyncio.sleep(0.01)
        assert place.looks == looks

    asyncio.run(scenario())


def test_a_ring_is_a_look_at_once_and_one_during_a_look_is_another() -> None:
    async def scenario() -> None:
        begun, go_on, looks = asyncio.Event(), asyncio.Event(), 0

        async def look() -> None:
            nonlocal looks
            looks += 1
            begun.set()
            await go_on.wait()

        watch = Poller(look, LONG, "trouble")
        watch.start()
        watch.ring()
        async with asyncio.timeout(10):
            await begun.wait()
            begun.clear()
            watch.ring()
            watch.ring()
            go_on.set()
            await begun.wait()
        await watch.stop()
        assert looks == 2

    asyncio.run(scenario())


def test_failures_in_a_row_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bad, odd = OSError("no such place"), ValueError("odd")

    async def scenario() -> None:
        place = Place(bad, bad, odd, None, odd, bad)
        watch = Poller(place.look, 0.001, "it cannot be seen", (OSError,))
        watch.start()
        await place.reach(7)
        await watch.stop()

    asyncio.run(scenario())
    told = [(record.getMessage(), record.exc_info is None) for record in caplog.records]
    assert told == [("it cannot be seen: no such place", True), ("it cannot be seen: odd", False)]


def test_stopping_cancels_a_look_and_may_come_before_a_start() -> None:
    async def scenario() -> None:
        begun, cancelled = asyncio.Event(), False

        async def look() -> None:
            nonlocal cancelled
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled = True
                raise

        watch = Poller(look, LONG, "trouble")
        await watch.stop()
        watch.start()
        watch.ring()
        await begun.wait()
        await watch.stop()
        assert cancelled

    asyncio.run(scenario())


def test_a_look_that_loses_the_cancellation_is_the_last() -> None:
    """As the libraries that a look calls do, where their answer comes at the same moment."""

    async def scenario() -> None:
        looks, begun = 0, asyncio.Event()

        async def look() -> None:
            nonlocal looks
            looks += 1
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(LONG)

        watch = Poller(look, 0.001, "trouble")
        watch.start()
        await begun.wait()
        async with asyncio.timeout(10):
            await watch.stop()
        assert looks == 1

    asyncio.run(scenario())
