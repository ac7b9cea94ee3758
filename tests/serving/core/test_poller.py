"""Background polling: when, how often, and how failures are handled."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from serving.core.poller import Poller

LONG = 3600.0


class Target:
    """A polled object: counts polls; each poll raises the next of the given failures."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.polls = 0
        self.ended = asyncio.Condition()

    async def poll(self) -> None:
        async with self.ended:
            self.polls += 1
            self.ended.notify_all()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    async def wait_for(self, polls: int) -> None:
        async with asyncio.timeout(10), self.ended:
            await self.ended.wait_for(lambda: self.polls >= polls)


def test_polling_repeats_from_start_to_stop() -> None:
    async def scenario() -> None:
        target = Target()
        poller = Poller(target.poll, 0.001, "failed")
        await asyncio.sleep(0.01)
        assert target.polls == 0
        poller.start()
        await target.wait_for(3)
        await poller.stop()
        polls = target.polls
        await asyncio.sleep(0.01)
        assert target.polls == polls

    asyncio.run(scenario())


def test_poll_now_polls_at_once_and_during_a_poll_requests_another() -> None:
    async def scenario() -> None:
        started, release, polls = asyncio.Event(), asyncio.Event(), 0

        async def poll() -> None:
            nonlocal polls
            polls += 1
            started.set()
            await release.wait()

        poller = Poller(poll, LONG, "failed")
        poller.start()
        poller.poll_now()
        async with asyncio.timeout(10):
            await started.wait()
            started.clear()
            poller.poll_now()
            poller.poll_now()
            release.set()
            await started.wait()
        await poller.stop()
        assert polls == 2

    asyncio.run(scenario())


def test_failures_in_a_row_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    bad, odd = OSError("no such place"), ValueError("odd")

    async def scenario() -> None:
        target = Target(bad, bad, odd, None, odd, bad)
        poller = Poller(target.poll, 0.001, "it cannot be seen", (OSError,))
        poller.start()
        await target.wait_for(7)
        await poller.stop()

    asyncio.run(scenario())
    logged = [(record.getMessage(), record.exc_info is None) for record in caplog.records]
    assert logged == [("it cannot be seen: no such place", True), ("it cannot be seen: odd", False)]


def test_stop_cancels_a_poll_and_may_precede_start() -> None:
    async def scenario() -> None:
        started, cancelled = asyncio.Event(), False

        async def poll() -> None:
            nonlocal cancelled
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled = True
                raise

        poller = Poller(poll, LONG, "failed")
        await poller.stop()
        poller.start()
        poller.poll_now()
        await started.wait()
        await poller.stop()
        assert cancelled

    asyncio.run(scenario())


def test_a_poll_that_swallows_its_cancellation_is_the_last() -> None:
    """Libraries called by a poll may do so if a response arrives at the same moment."""

    async def scenario() -> None:
        polls, started = 0, asyncio.Event()

        async def poll() -> None:
            nonlocal polls
            polls += 1
            started.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(LONG)

        poller = Poller(poll, 0.001, "failed")
        poller.start()
        await started.wait()
        async with asyncio.timeout(10):
            await poller.stop()
        assert polls == 1

    asyncio.run(scenario())
