"""A discrete-event simulation of callers, a queue and its worker, with the real load policy."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from conf.serving import LimitsConfig
from serving.scheduling.batcher import LoadPolicy, QueuedJob, QueueFullError

GATHER_SECONDS = 0.002
TIMEOUT_SECONDS = 10.0
REFUSAL_SECONDS = 0.03
"""Delay of a refusal by the service."""


class Clock:
    """A clock that is set by the simulation."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Outcomes:
    """Outcomes of calls; latencies and times in seconds."""

    latencies: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    expired: int = 0
    late: int = 0
    """Answered after the deadline; the batcher gives none of these."""
    batches: list[int] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def rate(self, start: float, end: float) -> float:
        return sum(start <= at < end for at in self.answered_at) / (end - start)


@dataclass(eq=False)
class Call:
    """One call; `again` is what its caller does when it has ended, with the seconds until then."""

    since: float
    deadline: float
    again: Callable[[float], None] | None = None


class Simulation:
    """One worker; `cost` is the time of a batch that begins at some time with so many jobs."""

    def __init__(
        self, cost: Callable[[float, int], float], limits: LimitsConfig, max_batch: int = 32
    ) -> None:
        self.clock = Clock()
        self.policy = LoadPolicy[Call](max_batch, 512, limits, self.clock)
        self.outcomes = Outcomes()
        self._cost = cost
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._busy = False
        self._start_at = 0.0

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), action))

    def open(self, times: Iterable[float], timeout: float = TIMEOUT_SECONDS) -> None:
        """Open loop: calls arrive at given times."""
        for when in times:
            self.at(when, lambda: self._come(Call(self.clock.now, self.clock.now + timeout)))

    def closed(self, callers: int, think: float = 0.001) -> None:
        """Closed loop: callers send the next call after each response or refusal."""

        def ask() -> None:
            now = self.clock.now
            self._come(Call(now, now + TIMEOUT_SECONDS, lambda pause: self.at(self.clock.now + pause, ask)))

        self._think = think
        for number in range(callers):
            self.at(number * 1e-4, ask)

    def run(self, seconds: float) -> Outcomes:
        while self._events and self._events[0][0] <= seconds:
            self.clock.now, _, action = heapq.heappop(self._events)
            action()
        return self.outcomes

    def _come(self, call: Call) -> None:
        try:
            queued = self.policy.add(call, call.deadline)
        except QueueFullError as full:
            self._refused(call, full.reason)
            return
        self.at(call.deadline, lambda: self._expire(queued))
        self._start_soon()

    def _refused(self, call: Call, reason: str) -> None:
        self.outcomes.refused.append(reason)
        if call.again is not None:
            call.again(REFUSAL_SECONDS)

    def _expire(self, queued: QueuedJob[Call]) -> None:
        before = len(self.policy)
        self.policy.remove(queued)
        self.outcomes.expired += before - len(self.policy)

    def _start_soon(self) -> None:
        self._start_at = start = self.clock.now + (GATHER_SECONDS if self.policy.gathering else 0.0)
        self.at(start, lambda: self._start() if start == self._start_at else None)

    def _start(self) -> None:
        if self._busy or self.policy.empty:
            return
        batch, shed = self.policy.next_batch()
        for queued in shed:
            self._refused(queued.job, "queue_wait")
        self._busy = True
        self.outcomes.batches.append(len(batch))
        self.at(self.clock.now + self._cost(self.clock.now, len(batch)), lambda: self._finish(batch))

    def _finish(self, batch: list[QueuedJob[Call]]) -> None:
        full = self.policy.finished()
        self._busy = False
        now = self.clock.now
        for queued in batch:
            if now > queued.job.deadline:
                self.outcomes.late += 1
            else:
                self.outcomes.latencies.append(now - queued.job.since)
                self.outcomes.answered_at.append(now)
            if queued.job.again is not None:
                queued.job.again(self._think)
        if full:
            self._start()
        else:
            self._start_soon()
