"""How long a new job would wait, and how long it may: what load shedding decides by.

A queue that fills and empties again is a burst, and waiting it out is right. A queue that has not been empty
for a while is standing: everybody waits and nobody is answered sooner, so the wait that is allowed shrinks
until arrivals fit what can be done (after the adaptive CoDel of Maurer, "Fail at Scale", ACM Queue 2015).

Some callers that each wait for their answer make a standing queue, too, and it is no longer than they are
many. One that has grown to its limit is an overload: as many have to be refused however long the rest waits,
so from then on the rest waits for little more than the running batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STANDING_AFTER_SECONDS: Final = 0.1
"""A queue that has not been empty for so long is a standing one."""
CALM_SECONDS: Final = 1.0
"""An overload is over once nobody has had to be refused for so long."""
OVERLOAD_SECONDS: Final = 30.0
"""After so long the longer wait is tried again: those who are refused and ask again at once look like an
overload, and might all have been answered."""
_SMOOTHING: Final = 0.2
"""Weight of the newest batch in the running mean of a job's time."""
_SMALLEST: Final = 4
"""Jobs that a batch may always have: what a batch costs by itself is shared by them."""
_SHARED: Final = 16
"""Jobs among which that hardly counts any more: a batch may have as many where they take no more than
`_LONGER` times its time. Smaller ones need more time for every job, which makes the next smaller yet."""
_LONGER: Final = 2
_FEW_BATCHES: Final = 2
"""Full batches that a standing queue may always hold, within the wait allowed in a burst: some callers of
slow lists, or of lists that a new version slows down for a moment, are no overload."""
_MANY: Final = 16
"""Jobs refused within a second from which on a standing queue is an overload. Fewer are callers who wait for
their answers and are nearly too many, on a machine that had something else to do for a moment."""
_FLOOD: Final = 1.0
"""Jobs refused for every one done beyond which an overload is a flood: most of what is asked is refused."""
_HURRIED: Final = 4
"""In a flood batches take no more than a quarter of their time, and may have half of the fewest jobs. Short
of it they stay as they are: they do more jobs in the same time, and then fewer have to be refused."""
_FEWEST: Final = 2
"""Jobs that a batch may always have in a flood: one by one they take nearly twice the time."""


@dataclass(frozen=True)
class WaitLimits:
    """How long a job may wait before its work begins, and how long a batch should take."""

    burst_seconds: float
    """As long as the queue empties now and then."""
    standing_seconds: float
    """While it does not."""
    batch_seconds: float
    """Whoever comes during a batch waits for its end: batches stay as small as this needs."""


class LoadShedder:
    """Follows one queue: when batches begin and end, and what they leave waiting; times in seconds."""

    def __init__(self, max_batch: int, limits: WaitLimits | None) -> None:
        """Begin idle.

        Args:
            max_batch: most jobs done at a time.
            limits: how long jobs may wait; None for as long as it takes.
        """
        self._max_batch = max_batch
        self._limits = limits
        self._hurried = False
        self._turned_away = 0
        """Jobs refused since the last batch ended."""
        self._refused_for_one = 0.0
        """Running mean of how many are refused while one is done."""
        self._learn(0.01 / max_batch)
        self._began: float | None = None
        self._size = 0
        self._empty = float("inf")
        """When nobody waited last; nobody ever has at the beginning."""
        self._overload_since = self._refused = self._few_since = -float("inf")
        self._few = 0
        """Jobs refused since then, as long as it is no overload."""

    def began(self, now: float, size: int, left: int) -> None:
        """Note that a batch begins, how many jobs it has and how many it leaves waiting."""
        self._began, self._size = now, size
        if left == 0:
            self._empty = now

    def ended(self, now: float, usual: bool) -> None:
        """Note that the batch is done; one of unusual work tells nothing about the next."""
        if self._began is not None and usual:
            refused, self._turned_away = self._turned_away / self._size, 0
            self._refused_for_one += _SMOOTHING * (refused - self._refused_for_one)
            self._hurried = self.overloaded(now) and self._refused_for_one > _FLOOD
            newest = (now - self._began) / self._size
            self._learn(self.job_seconds + _SMOOTHING * (newest - self.job_seconds))
        self._began = None

    def wait_seconds(self, now: float, waiting: int) -> float:
        """Estimate how long a job that joins `waiting` others waits before its own batch begins."""
        if self._began is None:
            rest = 0.0
        else:
            elapsed, usual = now - self._began, self._size * self.job_seconds
            # What has taken longer than usual is not known to end soon.
            rest = max(usual - elapsed, min(elapsed, usual) / 2)
        return rest + waiting // self.batch_size * self.batch_seconds

    def too_many(self, now: float, waiting: int) -> bool:
        """Tell whether a job that joins `waiting` others would wait longer than allowed.

        In an overload there is room for the next batch, and for nobody behind it. A queue begins to stand
        with the first job that is asked about while nobody waits.
        """
        if waiting == 0:
            self._empty = now
        if self._limits is None:
            return False
        if self.overloaded(now):
            return waiting >= self.batch_size
        too_long = self._standing(now) and waiting >= _FEW_BATCHES * self.batch_size
        longest = self._limits.standing_seconds if too_long else self._limits.burst_seconds
        return self.wait_seconds(now, waiting) > longest

    def refused(self, now: float, waiting: int) -> bool:
        """Note that a job would have waited longer than allowed; tell whether an overload begins by that.

        One begins with many of them.

        Where it does, those who wait already may say that it is a flood.
        """
        self._turned_away += 1
        before = self.overloaded(now)
        if not before and not (self._standing(now) and self._many(now)):
            return False
        self._refused = now
        if before:
            return False
        self._few = 0
        self._overload_since = now
        self._refused_for_one = max(self._refused_for_one, waiting / self.batch_size)
        self._hurried = self._refused_for_one > _FLOOD
        self._learn(self.job_seconds)
        return True

    def overloaded(self, now: float) -> bool:
        """Tell whether more is asked for than can be answered."""
        return now < min(self._refused + CALM_SECONDS, self._overload_since + OVERLOAD_SECONDS)

    def _many(self, now: float) -> bool:
        """Count a refusal outside of an overload; tell whether there have been many within a second."""
        if now - self._few_since > CALM_SECONDS:
            self._few_since, self._few = now, 0
        self._few += 1
        return self._few >= _MANY

    def _standing(self, now: float) -> bool:
        return now - self._empty > STANDING_AFTER_SECONDS

    def _learn(self, job_seconds: float) -> None:
        """Work out what follows from the time of a job; it is asked for more often than it changes."""
        self.job_seconds = job_seconds
        """Running mean of what a job takes in its batch."""
        size = self._max_batch
        if self._limits is not None:
            most = self._limits.batch_seconds / job_seconds
            if self._hurried:
                size = min(max(int(most / _HURRIED), _FEWEST), size)
            else:
                shared = min(_SHARED, int(_LONGER * most))
                size = min(max(int(most), shared, _SMALLEST), size)
        self.batch_size = size
        """Most jobs that the next batch should have."""
        self.batch_seconds = size * job_seconds
        """What a full batch takes."""
