from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from serving.scheduling.batcher import Batcher, QueueFullError


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

    asyncio.run(scenario())


def test_after_a_batch_of_several_those_that_come_together_are_waited_for() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, gather_seconds=0.5)

        async def later(seconds: float, job: int) -> int:
            await asyncio.sleep(seconds)
            return await worker.submit(job)

        loop = asyncio.get_running_loop()
        began = loop.time()
        await worker.submit(1)
        assert loop.time() - began < 0.5, "nobody came together yet"
        await asyncio.gather(worker.submit(2), worker.submit(3))
        both = loop.time()
        await asyncio.gather(worker.submit(4), later(0.05, 5))
        assert loop.time() - both < 0.5, "as soon as both are there again, nobody else is waited for"
        full = loop.time()
        await asyncio.gather(*(worker.submit(n) for n in range(7, 11)))
        assert loop.time() - full < 0.5, "a full batch waits for nobody"
        assert work.batches[-3:] == [[2, 3], [4, 5], [7, 8, 9, 10]]
        await worker.submit(11)
        alone = loop.time()
        await worker.submit(12)
        assert loop.time() - alone < 0.5, "a single job after a single one does not wait"
        await worker.close()

    asyncio.run(scenario())


def test_two_groups_that_take_turns_become_one() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, gather_seconds=0.5)
        await asyncio.gather(worker.submit(1), worker.submit(2))
        work.gate.clear()
        first = [asyncio.create_task(worker.submit(n)) for n in (3, 4)]
        await asyncio.sleep(0.02)
        second = [asyncio.create_task(worker.submit(n)) for n in (5, 6)]  # while the first are worked on
        await asyncio.sleep(0)
        work.gate.set()
        await asyncio.gather(*first)
        first = [asyncio.create_task(worker.submit(n)) for n in (7, 8)]
        await asyncio.gather(*first, *second)
        assert work.batches[1:] == [[3, 4], [5, 6, 7, 8]]
        await worker.close()

    asyncio.run(scenario())


def test_who_comes_while_the_event_loop_stands_still_is_waited_for() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, gather_seconds=0.1)
        await asyncio.gather(worker.submit(1), worker.submit(2))
        first = asyncio.create_task(worker.submit(3))
        await asyncio.sleep(0.01)
        time.sleep(0.5)  # noqa: ASYNC251 - as a look for garbage does: all timers are over then

        async def read_afterwards(job: int) -> int:
            for _ in range(5):
                await asyncio.sleep(0)
            return await worker.submit(job)

        await asyncio.gather(first, read_afterwards(4))
        assert work.batches == [[1, 2], [3, 4]]
        await worker.close()

    asyncio.run(scenario())


def test_the_next_full_batch_does_not_wait_for_the_event_loop() -> None:
    async def scenario() -> None:
        work = Work()
        work.gate.clear()
        worker = batcher(work, max_batch=2)
        tasks = [asyncio.create_task(worker.submit(n)) for n in range(6)]
        await asyncio.sleep(0.02)
        tasks[3].cancel()  # handed over already, but not begun
        await asyncio.sleep(0)
        assert len(worker) == 3
        work.gate.set()
        time.sleep(0.1)  # noqa: ASYNC251 - the event loop has much to do
        assert work.batches == [[0, 1], [2]]
        await asyncio.wait(tasks)
        assert work.batches == [[0, 1], [2], [4, 5]]
        await worker.close()

    asyncio.run(scenario())


def test_after_jobs_of_the_background_nobody_is_waited_for() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, gather_seconds=0.5)
        for _ in range(2):
            await asyncio.gather(*(worker.submit(n, background=True) for n in (1, 2, 3)))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await worker.submit(4)
        assert loop.time() - began < 0.5
        assert work.batches[-2:] == [[1, 2, 3], [4]]
        await worker.close()

    asyncio.run(scenario())


def test_nobody_is_waited_for_for_ever() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, max_batch=1000, max_queue=1000, gather_seconds=0.05)
        await asyncio.gather(worker.submit(1), worker.submit(2))
        loop = asyncio.get_running_loop()
        first = asyncio.create_task(worker.submit(3))
        began, others = loop.time(), []
        while not first.done() and loop.time() - began < 5:
            await asyncio.sleep(0.01)
            others.append(asyncio.create_task(worker.submit(4)))
        assert loop.time() - began < 2.0
        await asyncio.gather(*others)
        await worker.close()

    asyncio.run(scenario())


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

    asyncio.run(scenario())


def test_a_deadline_that_has_passed_needs_no_work() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work)
        with pytest.raises(TimeoutError):
            await worker.submit(1, asyncio.get_running_loop().time() - 1)
        assert await worker.submit(2) == 4
        assert work.batches == [[2]]
        await worker.close()

    asyncio.run(scenario())


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

    asyncio.run(scenario())


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

    asyncio.run(scenario())


def test_the_event_loop_runs_on_during_work() -> None:
    def slowly(jobs: Sequence[int]) -> list[int]:
        time.sleep(0.2)
        return list(jobs)

    async def scenario() -> int:
        worker = Batcher[int, int](slowly, max_batch=1, max_queue=1, name="test")
        working = asyncio.create_task(worker.submit(1))
        ticks = 0
        while not working.done():
            await asyncio.sleep(0.005)
            ticks += 1
        await worker.close()
        return ticks

    assert asyncio.run(scenario()) >= 10


def test_closing_finishes_what_waits_and_refuses_more() -> None:
    async def scenario() -> None:
        worker = batcher(Work(), max_batch=1)
        waiting = [asyncio.create_task(worker.submit(n)) for n in range(5)]
        await asyncio.sleep(0)
        await worker.close()
        assert [await w for w in waiting] == [0, 2, 4, 6, 8]
        with pytest.raises(RuntimeError, match="closed"):
            await worker.submit(1)

    asyncio.run(scenario())


def test_a_wrong_number_of_results_is_an_error() -> None:
    async def scenario() -> None:
        worker = Batcher[int, int](lambda jobs: [], max_batch=1, max_queue=1, name="test")
        with pytest.raises(RuntimeError, match="0 results for 1 jobs"):
            await worker.submit(1)
        await worker.close()

    asyncio.run(scenario())


def test_background_jobs_wait_for_all_others_and_come_in_small_batches() -> None:
    async def scenario() -> None:
        work = Work()
        worker = batcher(work, max_batch=100, max_queue=3)
        work.gate.clear()
        first = asyncio.create_task(worker.submit(1))
        await asyncio.sleep(0)
        while len(worker):
            await asyncio.sleep(0.001)
        behind = [asyncio.create_task(worker.submit(n, background=True)) for n in range(20, 32)]
        await asyncio.sleep(0)
        others = [asyncio.create_task(worker.submit(n)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        assert len(worker) == 3, "those of the background do not count, and are not refused"
        behind[1].cancel()
        work.gate.set()
        await asyncio.gather(first, *others, *behind, return_exceptions=True)
        assert work.batches == [[1], [2, 3, 4], [20, *range(22, 29)], [29, 30, 31]]
        await worker.close()

    asyncio.run(scenario())
