"""Health of a server: statuses by name, reported by the gRPC health service and by the HTTP probes."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import Final

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from serving.core.poller import Poller
from shelfwise_client.v1 import recommendations_pb2 as pb

RELOAD_HEALTH: Final = "shelfwise.v1.ModelReload"
"""Health service name: NOT_SERVING while CURRENT names a version that could not be loaded."""
STATE_HEALTH: Final = "shelfwise.v1.State"
"""Health service name: NOT_SERVING while the state cannot be read, or fails calls."""
CANDIDATES_HEALTH: Final = "shelfwise.v1.Candidates"
"""Health service name: NOT_SERVING while lists are made without vector searches."""
LIST_HEALTH_NAMES: Final = ("", pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name)
"""Health service names of the server as a whole: NOT_SERVING while no model answers."""
HEALTH_NAMES: Final = (*LIST_HEALTH_NAMES, RELOAD_HEALTH, STATE_HEALTH, CANDIDATES_HEALTH)
"""Every health service name."""
CHECKS: Final = MappingProxyType(
    {"model": "", "state": STATE_HEALTH, "reload": RELOAD_HEALTH, "candidates": CANDIDATES_HEALTH}
)
"""Name of a check in the HTTP probes -> its health service name."""
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_BEAT_SECONDS: Final = 1.0
_STUCK_SECONDS: Final = 30.0
"""Time without a turn of the event loop after which the process counts as hung."""


class Health:
    """The statuses; create and use it inside a running event loop, except where a method says otherwise."""

    def __init__(self) -> None:
        """Begin with every name NOT_SERVING, as a starting server."""
        self.servicer = health_aio.HealthServicer()
        """The gRPC health service."""
        self.poller = Poller(self._beat, _BEAT_SECONDS, "the event loop's heartbeat failed")
        """Shows that the event loop runs, from `start` on."""
        self._serving = dict.fromkeys(HEALTH_NAMES, False)
        self._draining = False
        self._beaten = time.monotonic()
        """Monotonic time of the last heartbeat, in seconds."""

    async def set(self, serving: bool, *names: str) -> None:
        """Set the status of some names; a draining server stays NOT_SERVING."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else _NOT_SERVING
        for name in names:
            self._serving[name] = serving
            await self.servicer.set(name, status)

    async def drain(self) -> None:
        """Make every name NOT_SERVING, for good."""
        self._draining = True
        await self.servicer.enter_graceful_shutdown()

    def checks(self) -> dict[str, bool]:
        """Return whether each of `CHECKS` is fine; callable from any thread."""
        serving = dict(self._serving)
        found = {check: serving[name] for check, name in CHECKS.items()}
        return {**found, "model": found["model"] and not self._draining}

    def alive(self) -> bool:
        """Return whether the event loop has run within the last half minute; callable from any thread."""
        return time.monotonic() - self._beaten < _STUCK_SECONDS

    async def _beat(self) -> None:
        self._beaten = time.monotonic()
