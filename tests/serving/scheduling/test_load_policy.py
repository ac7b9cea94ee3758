"""The load policy alone: every expectation is worked out by hand, and no time passes but the clock's."""

from __future__ import annotations

import pytest

from conf.serving import LimitsConfig
from serving.scheduling.batcher import (
    CALM_SECONDS,
    INTERVAL_SECONDS,
    SMALLEST_BATCH,
    LoadPolicy,
    QueuedJob,
    QueueFullError,
)
from tests.serving.scheduling.simulation import Clock

LIMITS = LimitsConfig(max_queue_seconds=0.5, standing_queue_seconds=0.15, batch_seconds=0.04)
JOB_SECONDS = 0.002


class Bench:
    """A policy with a fake clock, for which a job costs `job_seconds`."""

    def __init__(
        self,
        limits: LimitsConfig | None = LIMITS,
        max_batch: int = 32,
        max_queue: int = 512,
        job_seconds: float = JOB_SECONDS,
    ) -> None:
        self.clock = Clock()
        self.clock.now = 100.0
        self.policy = LoadPolicy[int](max_batch, max_queue, limits, self.clock)
        if job_seconds:
            self.batch(1, job_seconds)

    def add(self, *jobs: int) -> list[QueuedJob[int]]:
        return [self.policy.add(job) for job in jobs]

    def batch(self, size: int, seconds: float) -> None:
        """Run a batch of so many seconds."""
        self.add(*range(size))
        self.begin()
        self.clock.now += seconds
        self.policy.finished()

    def begin(self) -> list[int]:
        return [queued.job for queued in self.policy.next_batch()[0]]

    def gathers(self) -> bool:
        return self.policy.gathering

    def refused(self, deadline: float | None = None) -> QueueFullError:
        with pytest.raises(QueueFullError) as caught:
            self.policy.admit(deadline)
        return caught.value

    def overload(self) -> None:
        """Put 100 jobs behind a running one, so that waits stay above the target for an interval."""
        self.policy.add(0, lane="urgent")
        self.begin()
        self.add(*range(100))
        self.clock.now += INTERVAL_SECONDS + 0.001
        self.policy.admit()  # whose wait says that this is an overload; itself it is still admitted


def test_the_expected_wait_is_the_rest_of_the_running_batch_and_the_full_ones_before() -> None:
    bench = Bench()
    assert bench.policy.batch_size == 20  # 40 ms of 2 ms each
    assert bench.policy.expected_wait(19) == 0.0
    assert bench.policy.expected_wait(45) == pytest.approx(0.08)
    bench.add(*range(10))
    bench.begin()
    bench.clock.now += 0.005
    assert bench.policy.expected_wait(0) == pytest.approx(0.015)
    assert bench.policy.expected_wait(20) == pytest.approx(0.055)


def test_a_late_batch_is_expected_to_be_late_by_as_much_again() -> None:
    bench = Bench()
    bench.add(*range(10))
    bench.begin()
    bench.clock.now += 0.02 + 0.3
    assert bench.policy.expected_wait(0) == pytest.approx(0.3)


def test_a_jobs_cost_is_the_first_batchs_and_then_a_running_mean_of_the_usual_ones() -> None:
    bench = Bench(job_seconds=0.0)
    bench.policy.add(0, lane="urgent")  # as the warm-up of the first model
    bench.begin()
    bench.clock.now += 9
    assert bench.policy.batch_size == 32
    assert bench.policy.expected_wait(100) == 0.0  # nothing is known
    bench.policy.finished()
    bench.batch(4, seconds=0.02)
    assert bench.policy.expected_wait(16) == pytest.approx(16 * 0.005)
    bench.batch(2, seconds=0.02)  # 10 ms each, of which a fifth counts: 6 ms
    assert bench.policy.expected_wait(16) == pytest.approx(16 * 0.006)
    bench.policy.add(0, lane="urgent")
    bench.begin()
    bench.clock.now += 9
    bench.policy.finished()
    assert bench.policy.expected_wait(16) == pytest.approx(16 * 0.006)


@pytest.mark.parametrize(("job_ms", "size"), [(1.0, 32), (1.6, 25), (2.5, 16), (50.0, 16)])
def test_a_batch_is_what_fits_its_time_within_the_smallest_and_the_largest(job_ms: float, size: int) -> None:
    assert Bench(job_seconds=job_ms / 1000).policy.batch_size == size
    assert Bench(limits=None, job_seconds=job_ms / 1000).policy.batch_size == 32
    assert Bench(max_batch=4, job_seconds=job_ms / 1000).policy.batch_size == 4


def test_lanes_run_in_their_order_and_the_background_in_small_batches_alone() -> None:
    bench = Bench(limits=None, max_batch=3, max_queue=4)
    for job in range(20, 32):
        bench.policy.add(job, lane="background")
    bench.add(1, 2, 3, 4)
    for job in (10, 11):  # in a full queue
        bench.policy.add(job, lane="urgent")
    assert len(bench.policy) == 6
    assert [bench.begin() for _ in range(4)] == [[10, 11, 1], [2, 3, 4], [*range(20, 28)], [*range(28, 32)]]
    assert bench.policy.empty


def test_a_full_queue_refuses_with_the_wait_to_come() -> None:
    bench = Bench(max_queue=40)
    bench.add(*range(40))
    refusal = bench.refused()
    assert refusal.reason == "queue_full"
    assert refusal.retry_seconds == pytest.approx(0.08)
    bench.begin()
    bench.policy.admit()  # there is room again


def test_no_job_is_admitted_that_would_wait_longer_than_allowed() -> None:
    bench = Bench()
    bench.add(*range(259))  # 12 full batches go before, 0.48 s
    bench.policy.admit()
    bench.add(259)  # a 13th: 0.52 s
    assert bench.refused().reason == "queue_wait"
    assert bench.refused().retry_seconds == pytest.approx(0.52)
    assert not Bench(limits=None, max_queue=10**6).add(*range(1000))[-1].deadline


def test_a_job_that_could_not_be_done_by_its_deadline_is_refused_unless_it_is_alone() -> None:
    bench = Bench()
    now = bench.clock.now
    bench.policy.admit(now + 0.001)  # nobody waits: worth a try
    bench.add(*range(20))
    assert bench.refused(now + 0.079).reason == "deadline"  # 40 ms until its batch, and 40 ms for it
    bench.policy.admit(now + 0.081)
    bench.policy.admit(now - 1)  # the load is not to blame


def test_announced_jobs_count_as_waiting_until_they_come_or_an_interval_has_passed() -> None:
    bench = Bench(max_queue=3)
    for _ in range(3):
        bench.policy.admit(announce=True)
    with pytest.raises(QueueFullError):
        bench.policy.admit(announce=True)
    bench.add(1)  # one of the three
    with pytest.raises(QueueFullError):
        bench.policy.admit(announce=True)
    bench.clock.now += INTERVAL_SECONDS + 0.001
    bench.policy.admit(announce=True)
    bench.policy.admit(announce=True)
    with pytest.raises(QueueFullError):
        bench.policy.admit(announce=True)


def test_a_burst_is_waited_out_in_order() -> None:
    bench = Bench()
    bench.add(*range(100))  # up to 160 ms, above the target
    bench.clock.now += INTERVAL_SECONDS - 0.001
    bench.add(100)
    assert bench.begin() == [*range(20)]


def test_waits_above_the_target_for_an_interval_are_an_overload() -> None:
    bench = Bench()
    bench.overload()
    refusal = bench.refused()
    assert refusal.reason == "queue_wait"
    assert refusal.retry_seconds == CALM_SECONDS
    batch, shed = bench.policy.next_batch()
    assert [queued.job for queued in batch] == [*range(80, 100)]  # the newest
    assert [queued.job for queued in shed] == [*range(80)]
    bench.add(*range(20))  # the next batch has room again
    assert bench.refused().reason == "queue_wait"


def test_one_short_wait_within_the_interval_makes_it_a_burst() -> None:
    bench = Bench()
    bench.add(*range(90))
    bench.begin()
    bench.clock.now += 0.04
    bench.policy.finished()
    bench.policy.admit()  # 70 jobs before it: 120 ms
    bench.add(*range(20))  # 160 ms again
    bench.clock.now += 0.08
    bench.policy.admit()
    bench.policy.admit()
    assert bench.begin() == [*range(20, 40)]


def test_an_overload_ends_when_no_job_was_refused_for_a_while() -> None:
    bench = Bench()
    bench.overload()
    bench.clock.now += CALM_SECONDS - 0.01
    bench.refused()
    bench.begin()
    bench.clock.now += CALM_SECONDS - 0.01
    bench.policy.next_batch()
    bench.policy.finished()
    bench.add(*range(20))
    assert bench.refused().reason == "queue_wait"  # which makes it last longer
    bench.clock.now += CALM_SECONDS + 0.001
    bench.policy.next_batch()
    bench.policy.finished()
    bench.add(*range(40))  # two batches
    assert bench.begin() == [*range(20)]


def test_as_many_callers_as_two_batches_are_never_refused_however_slow_the_jobs() -> None:
    bench = Bench(job_seconds=0.02)  # 320 ms a batch, twice the target
    for _ in range(20):
        bench.add(*range(SMALLEST_BATCH))
        assert bench.begin() == [*range(SMALLEST_BATCH)]
        bench.clock.now += SMALLEST_BATCH * 0.02
        bench.policy.finished()


def test_jobs_past_their_deadline_are_dropped_and_those_that_waited_too_long_are_shed() -> None:
    bench = Bench()
    bench.policy.add(1, bench.clock.now + 0.3)
    bench.policy.add(2)
    bench.clock.now += 0.4
    bench.policy.add(3, bench.clock.now + 0.3)
    bench.clock.now += 0.2  # job 2 has waited 0.6 s
    batch, shed = bench.policy.next_batch()
    assert [queued.job for queued in batch] == [3]
    assert [queued.job for queued in shed] == [2]


def test_a_removed_job_does_not_run_and_one_that_runs_cannot_be_removed() -> None:
    bench = Bench()
    first, second, third = bench.add(1, 2, 3)
    bench.policy.remove(second)
    assert bench.begin() == [1, 3]
    bench.policy.remove(first)
    bench.policy.remove(third)
    assert len(bench.policy) == 0


def test_callers_that_were_answered_together_are_gathered_again() -> None:
    bench = Bench()
    bench.add(1)
    assert not bench.gathers()  # after a batch of one
    bench.batch(2, 0.008)  # three jobs
    assert not bench.gathers()  # nobody waits
    bench.add(1, 2)
    assert bench.gathers()
    bench.policy.add(9, lane="urgent")
    assert not bench.gathers()
    bench.begin()
    bench.policy.finished()
    bench.add(1, 2)
    assert not bench.gathers()  # upkeep says nothing about callers
    bench.begin()
    bench.add(3, 4)  # while two are answered
    bench.policy.finished()
    bench.add(5)
    assert bench.gathers()
    bench.add(6)
    assert not bench.gathers()  # all four are there
