"""Health and metrics of the program that searches vectors, as the served model's process reports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ranking.milvus.status import EngineStatus
from serving.core.poller import Poller
from serving.observability.health import CANDIDATES_HEALTH, Health

_POLL_SECONDS: Final = 1.0
_OWN: Final = EngineStatus(works=True)
"""Of a model whose own process searches."""
Read = Callable[[], EngineStatus | None]
"""Returns the state; None where the model's process searches itself."""


class EngineHealth:
    """Reports whether lists are made with vector searches; create and use it inside a running event loop."""

    def __init__(self, read: Read, health: Health) -> None:
        """Prepare; nothing is read before the poller is started.

        Args:
            read: the state of the served model.
            health: to report to; it is SERVING at first.
        """
        self._read = read
        self._health = health
        self._works = True
        self.poller = Poller(self._poll, _POLL_SECONDS, "the health of vector searches cannot be reported")
        """Reads the state, from `start` on."""

    async def _poll(self) -> None:
        state = self._read() or _OWN
        if state.works != self._works:
            self._works = state.works
            await self._health.set(state.works, CANDIDATES_HEALTH)


def engine_values(read: Read) -> dict[str, tuple[str, Callable[[], float]]]:
    """Return gauges for `Metrics.watch_values`."""

    def now() -> EngineStatus:
        return read() or _OWN

    return {
        "candidates_work": (
            "1 while lists are made with vector searches, 0 while Milvus does not answer",
            lambda: float(now().works),
        ),
        "candidate_searches_failed": (
            "Searches that Milvus failed since the model was loaded",
            lambda: float(now().failed_searches),
        ),
        "candidate_searches_timed_out": (
            "Those of them that were not answered in time",
            lambda: float(now().timeouts),
        ),
        "candidate_writes_pending": (
            "Changed items that Milvus has not confirmed",
            lambda: float(now().pending),
        ),
        "candidate_writes_pending_seconds": (
            "Age of the oldest change that Milvus has not confirmed",
            lambda: now().pending_seconds,
        ),
        "candidate_writes_refused": (
            "Changed items that Milvus cannot hold and the server searches",
            lambda: float(now().refused),
        ),
        "candidate_conditions_untested": (
            "Kinds of conditions in filters that Milvus does not test and the server does",
            lambda: float(len(now().untested)),
        ),
    }
