from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from serving.scheduling.batcher import Batcher, QueueFullError
from serving.scheduling.load_shedding import LoadShedder, WaitLimits

LIMITS = WaitLimits(burst_seconds=0.5, standing_seconds=0.03, batch_seconds=1.0)
MANY = 16


def begin_overload(pressure: LoadShedder, now: float, waiting: int) -> bool:
    """Refuse as many as it takes; tell whether an overload begins with the last of them, and not before."""
    return [pressure.refused(now, waiting) for _ in range(MANY)] == [False] * (MANY - 1) + [True]


def test_the_wait_is_the_rest_of_the_running_batch_and_the_full_batches_before() -> None:
    pressure = LoadShedder(4, LIMITS)
    assert pressure.wait_seconds(0.0, 0) == 0.0
    assert pressure.wait_seconds(0.0, 9) == pytest.approx(0.02)  # two batches of 10 ms go first
    pressure.began(10.0, 4, left=0)
    assert pressure.wait_seconds(10.004, 3) == pytest.approx(0.006)
    assert pressure.wait_seconds(10.004, 4) == pytest.approx(0.016)
    assert pressure.wait_seconds(10.010, 0) == pytest.approx(0.005)  # late already, so not to be trusted


def test_the_mean_time_of_a_job_follows_usual_batches_only() -> None:
    pressure = LoadShedder(4, LIMITS)
    pressure.began(10.0, 2, left=0)
    pressure.ended(10.01, usual=True)
    assert pressure.job_seconds == pytest.approx(0.003)  # 0.0025 + a fifth of the difference to 0.005
    pressure.began(11.0, 4, left=0)
    pressure.ended(15.0, usual=False)
    assert pressure.job_seconds == pytest.approx(0.003)
    assert pressure.wait_seconds(16.0, 0) == 0.0


def test_batches_are_as_large_as_their_time_allows_and_not_small_without_need() -> None:
    pressure = LoadShedder(32, WaitLimits(0.5, 0.1, batch_seconds=0.02))
    assert pressure.batch_size == 32
    # As many as take 20 ms; up to 16 where they take no more than 40; four in any case.
    for job_seconds, size in ((0.001, 20), (0.002, 16), (0.004, 10), (0.1, 4)):
        for _ in range(60):
            pressure.began(0.0, 2, left=0)
            pressure.ended(2 * job_seconds, usual=True)
        assert abs(pressure.batch_size - size) <= 1
        assert pressure.batch_seconds == pytest.approx(pressure.batch_size * job_seconds, rel=0.01)
    assert LoadShedder(32, None).batch_size == 32


def test_lists_that_need_more_time_in_small_batches_do_not_get_smaller_and_smaller_ones() -> None:
    # A batch costs 20 ms by itself and 2.5 ms a list, as on a busy machine; 32 callers ask again at once.
    pressure, now, sizes = LoadShedder(64, WaitLimits(0.5, 0.15, batch_seconds=0.04)), 10.0, []
    for _ in range(100):
        size = min(pressure.batch_size, 32)
        pressure.began(now, size, left=32 - size)
        now += 0.02 + 0.0025 * size
        assert not pressure.too_many(now, 32 - size)
        pressure.ended(now, usual=True)
        sizes.append(size)
    assert min(sizes) >= 14


def test_a_queue_that_does_not_empty_allows_little_waiting() -> None:
    pressure = LoadShedder(4, LIMITS)
    pressure.began(20.0, 4, left=0)  # batches take 10 ms, and this one is late
    assert not pressure.too_many(20.05, 4 * 49)
    assert pressure.too_many(20.05, 4 * 50)
    pressure.began(20.06, 4, left=1)
    assert not pressure.too_many(20.11, 4 * 2)
    assert pressure.too_many(20.11, 4 * 3)
    assert not pressure.too_many(20.2, 0)  # nobody waits
    assert not pressure.too_many(20.29, 4 * 49)
    assert pressure.too_many(20.29, 4 * 50)
    assert not LoadShedder(4, None).too_many(1e9, 10**6)


def test_a_queue_stands_from_its_first_job_on_however_long_the_batch_takes_during_which_it_fills() -> None:
    pressure = LoadShedder(4, LIMITS)
    pressure.began(20.0, 4, left=0)
    assert not any(pressure.too_many(20.01 + waiting / 1000, waiting) for waiting in range(80))
    assert pressure.too_many(20.12, 80)  # the same batch still runs
    assert begin_overload(pressure, 20.12, 80)


def test_a_few_callers_of_slow_lists_are_no_overload() -> None:
    pressure = LoadShedder(4, LIMITS)
    assert not pressure.too_many(10.0, 0)
    for step in range(60):
        pressure.began(10.0 + step, 4, left=3)
        pressure.ended(10.16 + step, usual=True)  # batches of 160 ms, where 30 ms of waiting are allowed
    pressure.began(80.0, 4, left=3)
    assert not pressure.too_many(80.0, 7)
    assert pressure.too_many(80.0, 8)
    for _ in range(60):
        pressure.began(90.0, 4, left=3)
        pressure.ended(92.0, usual=True)  # longer than a burst allows
    pressure.began(100.0, 4, left=3)
    assert pressure.too_many(100.0, 4)


def test_once_a_standing_queue_has_grown_too_long_nobody_waits_for_it_until_refusals_end() -> None:
    pressure = LoadShedder(4, LIMITS)
    pressure.began(18.95, 4, left=0)
    assert not any(pressure.refused(19.0, 9) for _ in range(2 * MANY))  # a burst
    assert not pressure.overloaded(19.0)
    pressure.began(20.0, 4, left=0)
    assert begin_overload(pressure, 20.2, 9)
    pressure.began(20.3, 4, left=0)  # that it is empty now and then proves nothing
    assert pressure.too_many(20.4, 4)  # room for the next batch
    assert not pressure.too_many(20.4, 3)
    assert not pressure.refused(21.0, 4)  # it has begun before
    assert pressure.too_many(21.9, 4)
    assert not pressure.too_many(22.1, 4)
    assert not pressure.overloaded(22.1)


def test_batches_are_short_while_most_of_the_work_is_refusing() -> None:
    pressure = LoadShedder(32, WaitLimits(0.5, 0.1, batch_seconds=0.04))
    assert not pressure.too_many(10.0, 0)

    def sizes(start: float, refused: int) -> list[int]:
        found = []
        for step in range(40):
            now = start + step / 100
            pressure.began(now, 4, left=1)
            for _ in range(refused):
                pressure.refused(now, 4)
            pressure.ended(now + 0.008, usual=True)
            found.append(pressure.batch_size)
        return found

    assert abs(sizes(20.0, refused=0)[-1] - 20) <= 1
    assert abs(sizes(30.0, refused=3)[-1] - 20) <= 1  # an overload, but more are answered
    assert sizes(40.0, refused=20)[-1] == 5
    assert abs(sizes(50.0, refused=0)[-1] - 20) <= 1


def test_a_flood_is_known_by_those_who_wait_when_it_begins() -> None:
    def size(waiting: int) -> int:
        pressure = LoadShedder(32, WaitLimits(0.5, 0.1, batch_seconds=0.04))
        for _ in range(60):
            pressure.began(20.0, 20, left=0)
            pressure.ended(20.04, usual=True)
        assert abs(pressure.batch_size - 20) <= 1
        assert begin_overload(pressure, 20.2, waiting)
        return pressure.batch_size

    assert abs(size(waiting=18) - 20) <= 1
    assert size(waiting=22) == 5


def test_an_overload_that_goes_on_is_doubted_now_and_then() -> None:
    pressure = LoadShedder(4, LIMITS)
    pressure.began(20.0, 4, left=0)
    overloaded = []
    for tenth in range(2, 1000):
        now = 20.0 + tenth / 10
        pressure.began(now, 4, left=1)
        overloaded.append(pressure.overloaded(now))
        for _ in range(MANY):
            pressure.refused(now, 4)
    assert overloaded.count(False) == 4  # at the beginning, and three times after half a minute


def test_a_few_refusals_now_and_then_are_no_overload() -> None:
    pressure = LoadShedder(4, LIMITS)
    pressure.began(20.0, 4, left=0)
    for second in range(10):
        for _ in range(MANY - 1):
            assert not pressure.refused(20.5 + 1.1 * second, 9)
    assert not pressure.overloaded(31.0)


class Gated:
    """Returns its jobs once its gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.done: list[int] = []

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.gate.wait(10)
        self.done.extend(jobs)
        return list(jobs)


def test_whoever_has_waited_too_long_is_told_even_where_a_batch_never_ends() -> None:
    async def scenario() -> None:
        work = Gated()
        worker = Batcher[int, int](
            work, max_batch=1, max_queue=100, name="test", limits=WaitLimits(0.05, 0.05, 1.0)
        )
        running = asyncio.create_task(worker.submit(1))
        await asyncio.sleep(0)
        upkeep = asyncio.create_task(worker.submit(2, urgent=True))
        waiting = [asyncio.create_task(worker.submit(number)) for number in (3, 4)]
        for task in waiting:
            with pytest.raises(QueueFullError) as caught:
                await task
            assert caught.value.reason == "queue_wait"
        assert len(worker) == 1  # upkeep stays, however long it takes
        work.gate.set()
        assert list(await asyncio.gather(running, upkeep)) == [1, 2]
        assert work.done == [1, 2]
        await worker.close()

    asyncio.run(scenario())


def test_when_an_overload_begins_the_newest_are_answered_and_the_others_told() -> None:
    async def scenario() -> None:
        work, gone, retry = Gated(), [], []
        limits = WaitLimits(1.0, 0.05, batch_seconds=0.02)
        worker = Batcher[int, int](work, max_batch=2, max_queue=100, name="test", limits=limits)

        async def ask(number: int) -> None:
            try:
                await worker.submit(number)
            except QueueFullError as full:
                gone.append(number)
                retry.append(full.retry_seconds)

        work.gate.set()
        first = [asyncio.create_task(ask(number)) for number in range(3)]  # two batches: a queue stands
        await asyncio.gather(*first)
        work.gate.clear()
        tasks = [asyncio.create_task(ask(number)) for number in range(10, 18)]
        await asyncio.sleep(0.15)
        tasks += [asyncio.create_task(ask(number)) for number in range(20, 50)]
        await asyncio.sleep(0)
        work.gate.set()
        await asyncio.gather(*tasks)
        assert work.done[:5] == [0, 1, 2, 10, 11]
        answered = set(work.done[5:])
        assert answered
        assert min(answered) >= 20
        assert answered | set(gone) == {*range(12, 18), *range(20, 50)}
        assert not answered & set(gone)
        assert all(seconds >= 1.0 for seconds in retry[MANY - 1 :])
        await worker.close()

    asyncio.run(scenario())


def test_announced_jobs_are_counted_until_they_come_or_have_been_long_enough_on_the_way() -> None:
    async def scenario() -> None:
        limits = WaitLimits(0.019, 0.019, batch_seconds=1.0)
        worker = Batcher[int, int](Gated(), max_batch=1, max_queue=100, name="test", limits=limits)
        worker.expect()
        worker.expect()  # behind one of 10 ms
        with pytest.raises(QueueFullError) as caught:
            worker.expect()
        assert caught.value.reason == "queue_wait"
        worker.admit()  # nobody waits yet
        await asyncio.sleep(0.12)
        worker.expect()
        await worker.close()

    asyncio.run(scenario())


def test_a_job_whose_caller_will_have_gone_is_refused_at_once() -> None:
    async def scenario() -> None:
        work, loop = Gated(), asyncio.get_running_loop()
        worker = Batcher[int, int](
            work, max_batch=1, max_queue=100, name="test", limits=WaitLimits(5.0, 5.0, 1.0)
        )
        tasks = [asyncio.create_task(worker.submit(number)) for number in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as caught:  # four batches of 10 ms are before it
            await worker.submit(9, loop.time() + 0.02)
        assert caught.value.reason == "deadline"
        assert caught.value.retry_seconds >= 0.05
        with pytest.raises(TimeoutError):  # nothing of it is the load's fault where the deadline has passed
            await worker.submit(9, loop.time() - 1)
        work.gate.set()
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4]
        await worker.close()

    asyncio.run(scenario())
