"""Load and overload by simulation, to the digit: callers, the policy's queue, and a worker of known speed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from conf.serving import LimitsConfig
from tests.serving.scheduling.simulation import GATHER_SECONDS, Simulation

SECONDS = 10.0
LIMITS = LimitsConfig()
Cost = Callable[[float, int], float]


def quiet(_: float, jobs: int) -> float:
    """A batch costs 4 ms and 2 ms a list: about 17 lists in 40 ms, 447 lists a second."""
    return 0.004 + 0.002 * jobs


def beside_a_neighbour(_: float, jobs: int) -> float:
    """A busy machine: 20 ms and 2.5 ms a list, 16 lists in 60 ms, 267 lists a second."""
    return 0.02 + 0.0025 * jobs


def slower_from_the_middle(now: float, jobs: int) -> float:
    """A machine that becomes two and a half times slower."""
    return quiet(now, jobs) * (1.0 if now < SECONDS / 2 else 2.5)


def capacity(cost: Cost, jobs: int = 16) -> float:
    """Lists a second in batches of so many."""
    return jobs / cost(0.0, jobs)


def poisson(rate: float, seed: int = 0) -> Iterator[float]:
    """Arrivals at random."""
    draw, now = random.Random(seed), 0.0
    while (now := now + draw.expovariate(rate)) < SECONDS:
        yield now


@pytest.mark.parametrize("cost", [quiet, beside_a_neighbour])
@pytest.mark.parametrize("times", [3, 10])
def test_an_overload_is_answered_at_full_speed_and_soon(cost: Cost, times: int) -> None:
    simulation = Simulation(cost, LIMITS)
    simulation.open(poisson(times * capacity(cost)))
    outcomes = simulation.run(SECONDS + 5)
    assert outcomes.rate(0.0, SECONDS) >= 0.9 * capacity(cost)
    # A call waits for one batch and is answered with the next; only before the overload is known for longer.
    assert outcomes.percentile(0.95) <= 2 * cost(0.0, 17)
    assert outcomes.percentile(0.99) <= 3 * cost(0.0, 17)
    assert max(outcomes.latencies) <= LIMITS.max_queue_seconds
    assert outcomes.expired == outcomes.late == 0


def test_three_times_the_load_with_short_deadlines_is_answered_in_time_or_refused() -> None:
    simulation = Simulation(quiet, LIMITS)
    simulation.open(poisson(3 * capacity(quiet)), timeout=0.1)
    outcomes = simulation.run(SECONDS + 5)
    assert max(outcomes.latencies) <= 0.1
    assert outcomes.rate(0.0, SECONDS) >= 0.9 * capacity(quiet)
    assert outcomes.late <= 0.01 * len(outcomes.latencies)  # work for nothing; the caller has gone


def test_a_burst_is_answered_whole_and_in_order() -> None:
    simulation = Simulation(quiet, LIMITS)
    simulation.open([1.0 + number * 1e-5 for number in range(100)])
    outcomes = simulation.run(SECONDS)
    assert len(outcomes.latencies) == 100
    assert not outcomes.refused
    came = [at - took for at, took in zip(outcomes.answered_at, outcomes.latencies, strict=True)]
    assert all(after - before > 9e-6 for before, after in pairwise(came))


@pytest.mark.parametrize("cost", [quiet, beside_a_neighbour, slower_from_the_middle])
@pytest.mark.parametrize("callers", [1, 8, 32])
def test_callers_that_wait_for_their_answers_are_never_refused(cost: Cost, callers: int) -> None:
    simulation = Simulation(cost, LIMITS)
    simulation.closed(callers)
    outcomes = simulation.run(SECONDS)
    assert not outcomes.refused
    if callers == 32:
        assert outcomes.rate(1.0, 5.0) >= 0.95 * capacity(cost)


def test_the_usual_service_is_back_a_second_after_an_overload() -> None:
    simulation = Simulation(quiet, LIMITS)
    simulation.open(poisson(3 * capacity(quiet)))
    simulation.open([SECONDS + 1.0 + number / 100 for number in range(200)])
    outcomes = simulation.run(SECONDS + 5)
    after = outcomes.latencies[-200:]
    assert outcomes.answered_at[-200] > SECONDS + 1.0
    assert after[0] == pytest.approx(quiet(0.0, 1) + GATHER_SECONDS)  # the others do not come again
    assert after[1:] == pytest.approx([quiet(0.0, 1)] * 199)


def test_callers_who_ask_again_when_refused_take_nothing_from_the_answered() -> None:
    simulation = Simulation(quiet, LIMITS)
    simulation.closed(128)
    outcomes = simulation.run(SECONDS)
    assert outcomes.rate(1.0, SECONDS) >= 0.95 * capacity(quiet)
    assert outcomes.percentile(0.95) <= 2 * quiet(0.0, 17)
