"""How long a new job would wait, and how long it may: what load shedding decides by.

A queue that fills and empties again is a burst, and waiting it out is right. A queue that has not been empty
for a while is standing: everybody waits and nobody is answered sooner, so the wait that is allowed shrinks
until arrivals fit what can be done (after the adaptive CoDel of Maurer, "Fail at Scale", ACM Queue 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STANDING_AFTER_SECONDS: Final = 0.1
"""A queue that has not been empty for so long is a standing one."""
_SMOOTHING: Final = 0.2
"""Weight of the newest batch in the running mean of batch times."""


@dataclass(frozen=True)
class WaitLimits:
    """How long a job may wait before its work begins."""

    burst_seconds: float
    """As long as the queue empties now and then."""
    standing_seconds: float
    """While it does not."""


class Pressure:
    """Follows one queue: when batches begin and end, and what they leave waiting; times in seconds."""

    def __init__(self, max_batch: int, limits: WaitLimits | None) -> None:
        """Begin idle.

        Args:
            max_batch: jobs done at a time.
            limits: how long jobs may wait; None for as long as it takes.
        """
        self.batch_seconds = 0.01
        """Running mean of what a batch takes."""
        self._max_batch = max_batch
        self._limits = limits
        self._began: float | None = None
        self._standing_since: float | None = None

    def began(self, now: float, left: int) -> None:
        """Note that a batch begins and how many jobs it leaves waiting."""
        self._began = now
        if left == 0:
            self._standing_since = None
        elif self._standing_since is None:
            self._standing_since = now

    def ended(self, now: float, usual: bool) -> None:
        """Note that the batch is done; one of unusual work tells nothing about the next."""
        if self._began is not None and usual:
            self.batch_seconds += _SMOOTHING * (now - self._began - self.batch_seconds)
        self._began = None

    def wait_seconds(self, now: float, waiting: int) -> float:
        """Estimate how long a job that joins `waiting` others waits before its own batch begins."""
        if self._began is None:
            rest = 0.0
        else:
            elapsed = now - self._began
            # What has taken longer than usual is not known to end soon.
            rest = max(self.batch_seconds - elapsed, min(elapsed, self.batch_seconds) / 2)
        return rest + waiting // self._max_batch * self.batch_seconds

    def allowed_seconds(self, now: float) -> float:
        """Return how long a job that comes now may wait."""
        if self._limits is None:
            return float("inf")
        since = self._standing_since
        standing = since is not None and now - since > STANDING_AFTER_SECONDS
        return self._limits.standing_seconds if standing else self._limits.burst_seconds
