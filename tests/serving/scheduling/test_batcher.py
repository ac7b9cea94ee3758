from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from conf.serving import LimitsConfig
from serving.scheduling.batcher import INTERVAL_SECONDS, Batcher, QueueFullError
from tests.serving.conftest import until

T = TypeVar("T")


class Work:
    """Doubles numbers; waits for its gate; fails on negative ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.gate.wait(10)
        self.batches.append(list(jobs))
        if any(job < 0 for job in jobs):
            raise ValueError("negative")
        return [job * 2 for job in jobs]


FOR_EVER = 3600.0
"""A wait that ends a test by its time limit."""


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, which fails when it takes too long even for a busy machine."""
    return asyncio.run(asyncio.wait_for(scenario, 60))


def batcher(
    work: Work, max_batch: int = 4, max_queue: int = 100, gather_seconds: float = 0.0
) -> Batcher[int, int]:
    return Batcher[int, int](
        work, max_batch=max_batch, max_queue=max_queue, name="test", gather_seconds=gather_seconds
    )


def test_an_idle_worker_starts_at_once_and_a_busy_one_finds_a_batch() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work)
        work.gate.clear()
        first = asyncio.create_task(worker.submit(1))
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(worker.submit(n)) for n in range(2, 8)]
        await asyncio.sleep(0.02)
        assert len(worker) == 6
        work.gate.set()
        assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10, 12, 14]
        assert work.batches == [[1], [2, 3, 4, 5], [6, 7]]
        await worker.close()

    run(scenario())


def test_after_a_batch_of_several_those_that_come_together_are_waited_for() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, gather_seconds=FOR_EVER)

        async def later(job: int) -> int:
            await asyncio.sleep(0.05)
            return await worker.submit(job)

        assert await worker.submit(1) == 2  # no callers have come together yet
        await asyncio.gather(worker.submit(2), worker.submit(3))
        await asyncio.gather(worker.submit(4), later(5))  # as soon as both are there again
        await asyncio.gather(*(worker.submit(n) for n in range(7, 11)))  # a full batch waits for no other
        assert work.batches == [[1], [2, 3], [4, 5], [7, 8, 9, 10]]
        await worker.close()

    run(scenario())


def test_two_groups_that_take_turns_become_one() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, gather_seconds=FOR_EVER)
        await asyncio.gather(worker.submit(1), worker.submit(2))
        work.gate.clear()
        first = [asyncio.create_task(worker.submit(n)) for n in (3, 4)]
        while len(worker) or not worker.busy:
            await asyncio.sleep(0.001)
        second = [asyncio.create_task(worker.submit(n)) for n in (5, 6)]  # while the first are worked on
        await asyncio.sleep(0)
        work.gate.set()
        await asyncio.gather(*first)
        first = [asyncio.create_task(worker.submit(n)) for n in (7, 8)]
        await asyncio.gather(*first, *second)
        assert work.batches == [[1, 2], [3, 4], [5, 6, 7, 8]]
        await worker.close()

    run(scenario())


def test_the_next_full_batch_does_not_wait_for_the_event_loop() -> None:
    async def scenario() -> None:
        work = Work()
        work.gate.clear()
        worker = batcher(work, max_batch=2)
        tasks = [asyncio.create_task(worker.submit(n)) for n in range(7)]
        while len(worker) != 5:
            await asyncio.sleep(0.001)
        tasks[3].cancel()
        await asyncio.sleep(0)
        work.gate.set()
        until(lambda: len(work.batches) == 3)  # the event loop has much to do
        assert work.batches == [[0, 1], [2, 4], [5, 6]]
        await asyncio.wait(tasks)
        await worker.close()

    run(scenario())


def test_after_jobs_of_the_background_no_other_is_waited_for() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, gather_seconds=FOR_EVER)
        for _ in range(2):
            await asyncio.gather(*(worker.submit(n, lane="background") for n in (1, 2, 3)))
        await worker.submit(4)
        assert work.batches[-2:] == [[1, 2, 3], [4]]
        await worker.close()

    run(scenario())


def test_callers_that_do_not_come_are_waited_for_until_no_other_comes() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, gather_seconds=0.05)
        await asyncio.gather(worker.submit(1), worker.submit(2))
        assert await worker.submit(3) == 6
        assert work.batches == [[1, 2], [3]]
        await worker.close()

    run(scenario())


def test_cancelled_and_expired_jobs_are_dropped_before_work() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work)
        work.gate.clear()
        first = asyncio.create_task(worker.submit(1))
        await asyncio.sleep(0.02)
        cancelled = asyncio.create_task(worker.submit(2))
        expired = asyncio.create_task(worker.submit(3, asyncio.get_running_loop().time() + 0.01))
        kept = asyncio.create_task(worker.submit(4, asyncio.get_running_loop().time() + 10))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(TimeoutError):
            await expired
        work.gate.set()
        assert (await first, await kept) == (2, 8)
        assert work.batches == [[1], [4]]
        await worker.close()

    run(scenario())


def test_a_deadline_that_has_passed_needs_no_work() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work)
        with pytest.raises(TimeoutError):
            await worker.submit(1, asyncio.get_running_loop().time() - 1)
        assert await worker.submit(2) == 4
        assert work.batches == [[2]]
        await worker.close()

    run(scenario())


def test_only_the_job_at_fault_fails() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work)
        work.gate.clear()
        first = asyncio.create_task(worker.submit(0))
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(worker.submit(n)) for n in (1, -1, 2)]
        await asyncio.sleep(0)
        work.gate.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert results[:2] + results[3:] == [0, 2, 4]
        assert isinstance(results[2], ValueError)
        assert work.batches == [[0], [1, -1, 2], [1], [-1], [2]]
        await worker.close()

    run(scenario())


def test_a_full_queue_refuses_with_an_estimate_that_grows_with_the_work() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, max_batch=1, max_queue=3)
        work.gate.clear()
        tasks = [asyncio.create_task(worker.submit(0))]
        await asyncio.sleep(0.3)  # teaches the batcher that batches are slow once this one ends
        work.gate.set()
        await tasks[0]
        work.gate.clear()
        tasks += [asyncio.create_task(worker.submit(n)) for n in range(4)]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(worker.submit(9))] if len(worker) < 3 else []
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as caught:
            await worker.submit(10)
        assert 0.1 < caught.value.retry_seconds < 2
        work.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await worker.close()

    run(scenario())


def test_the_event_loop_runs_on_during_work() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def until_told(jobs: Sequence[int]) -> list[int]:
        begun.set()
        assert go_on.wait(30)
        return list(jobs)

    async def scenario() -> None:
        worker = Batcher[int, int](until_told, max_batch=1, max_queue=1, name="test")
        working = asyncio.create_task(worker.submit(1))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        assert not working.done()
        go_on.set()  # by the event loop, which the work does not stop
        assert await working == 1
        await worker.close()

    run(scenario())


def test_closing_finishes_what_waits_and_refuses_more() -> None:
    async def scenario() -> None:
        worker = batcher(Work(), max_batch=1)
        waiting = [asyncio.create_task(worker.submit(n)) for n in range(5)]
        await asyncio.sleep(0)
        await worker.close()
        assert [await w for w in waiting] == [0, 2, 4, 6, 8]
        with pytest.raises(RuntimeError, match="closed"):
            await worker.submit(1)

    run(scenario())


def test_a_wrong_number_of_results_is_an_error() -> None:
    async def scenario() -> None:
        worker = Batcher[int, int](lambda jobs: [], max_batch=1, max_queue=1, name="test")
        with pytest.raises(ValueError, match="shorter"):
            await worker.submit(1)
        await worker.close()

    run(scenario())


def test_background_jobs_wait_for_all_others_and_come_in_small_batches() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, max_batch=100, max_queue=3)
        work.gate.clear()
        first = asyncio.create_task(worker.submit(1))
        await asyncio.sleep(0)
        while len(worker):
            await asyncio.sleep(0.001)
        behind = [asyncio.create_task(worker.submit(n, lane="background")) for n in range(20, 32)]
        await asyncio.sleep(0)
        others = [asyncio.create_task(worker.submit(n)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        assert len(worker) == 3, "those of the background do not count, and are not refused"
        behind[1].cancel()
        work.gate.set()
        await asyncio.gather(first, *others, *behind, return_exceptions=True)
        assert work.batches == [[1], [2, 3, 4], [20, *range(22, 29)], [29, 30, 31]]
        await worker.close()

    run(scenario())


def test_what_an_overload_leaves_over_is_refused_and_the_newest_are_answered() -> None:
    async def scenario() -> None:
        work = Work()
        limits = LimitsConfig(max_queue_seconds=60.0, standing_queue_seconds=0.05, batch_seconds=1e-9)
        worker = Batcher[int, int](work, max_batch=2, max_queue=100, name="test", limits=limits)
        assert await worker.submit(0) == 0  # teaches the cost of a job
        work.gate.clear()
        first = asyncio.create_task(worker.submit(0))
        while len(worker) or not worker.busy:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)  # the batch is late by more than the target ...
        old = [asyncio.create_task(worker.submit(n)) for n in range(1, 9)]
        await asyncio.sleep(INTERVAL_SECONDS + 0.05)  # ... for an interval
        new = [asyncio.create_task(worker.submit(9))]  # which makes it an overload
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as caught:
            worker.admit()
        assert caught.value.reason == "queue_wait"
        work.gate.set()
        outcomes = await asyncio.gather(first, *old, *new, return_exceptions=True)
        assert outcomes[0] == 0
        assert outcomes[-2:] == [16, 18]
        assert all(isinstance(refused, QueueFullError) for refused in outcomes[1:-2])
        assert work.batches == [[0], [0], [8, 9]]
        await worker.close()

    run(scenario())
