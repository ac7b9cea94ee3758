"""Reload of a newly published or rolled-back model while serving.

CURRENT is polled every few seconds. Another version is verified and loaded beside the served one, brought up
to date with histories and item changes, warmed up, and swapped in by replacing one reference. If any step
fails, the former model stays in service, and status and health report the failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conf.errors import InputError
from ranking.bundle.store import current_version
from serving.core.poller import Poller
from serving.model.host import ModelHost
from serving.model.interfaces import LiveModel
from serving.model.served import Served

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 60.0
"""Delay before a failed version is retried: it may have been incompletely copied."""


@dataclass(frozen=True)
class FailedReload:
    """A version that CURRENT names and that cannot be served."""

    version: str
    """Empty where CURRENT names nothing."""
    reason: str
    time_us: int
    """Time of the last attempt, microseconds since 1970."""


class BundleWatcher:
    """Follows CURRENT of an artifact store; create and use it inside a running event loop."""

    def __init__(
        self,
        store: Path,
        host: ModelHost,
        load: Callable[[str, bool], LiveModel],
        prepare: Callable[[LiveModel], Awaitable[None]],
        changed: Callable[[FailedReload | None], Awaitable[None]],
        lost: Callable[[], Awaitable[None]],
        seconds: float,
        follow: bool = True,
    ) -> None:
        """Prepare to watch.

        Args:
            store: the artifact store.
            host: serves the models.
            load: verifies and loads a version; blocks, and raises InputError for an invalid version. The
                second argument is true while another model is served, which has priority.
            prepare: called with a loaded model before it is served; if it raises, the former model stays.
            changed: called with the outcome of a reload: None after a success.
            lost: called once when the served model's process has ended, before it is reloaded.
            seconds: polling interval.
            follow: whether to load other versions, or only to reload one whose process has ended.
        """
        self.failed: FailedReload | None = None
        """Why the version named by CURRENT is not served; None while it is."""
        self._store = store
        self._host = host
        self._load = load
        self._prepare = prepare
        self._changed = changed
        self._lost = lost
        self._follow = follow
        self._tried = 0.0
        self._retry = False
        self._reported_loss = 0
        """`ModelHost.generation` of the last model whose process was reported to have ended."""
        self.poller = Poller(self.poll, seconds, "a change of model could not be reported")
        """Polls CURRENT once started; a load in progress when it stops is discarded."""

    def retry_now(self) -> None:
        """Have the next poll load a version though it has failed recently."""
        self._retry = True

    async def poll(self) -> None:
        """Load the version named by CURRENT, unless it is served or has failed recently."""
        version, retry, self._retry = "", self._retry, False
        try:
            served = self._host.served.model.version
            version = await asyncio.to_thread(current_version, self._store) if self._follow else served
            if not self._host.works:
                if self.failed is not None and self.failed.version == version:
                    version = served  # known to load
                await self._report_lost(served, version)
            elif version == served:
                await self._report(None)
                return
            if self.failed is not None and self.failed.version == version and not (retry or self._due()):
                return
            self._tried = time.monotonic()
            await self._replace(version)
        except Exception as error:
            await self._fail(version, error)
        else:
            await self._report(None)

    async def _replace(self, version: str) -> None:
        """Load a version and serve it; close it where that fails."""
        live = await load_in_thread(self._host.loading, self._load, version, self._host.works)
        try:
            loop = asyncio.get_running_loop()
            derived = await loop.run_in_executor(self._host.loading, Served.of, live.current)
            await self._prepare(live)
        except BaseException:
            live.close()
            raise
        await self._host.load(live, derived)  # takes ownership

    async def _report_lost(self, served: str, version: str) -> None:
        if self._reported_loss != self._host.generation:
            self._reported_loss = self._host.generation
            _LOG.error("the process of model %s has ended; model %s is loaded", served, version)
            await self._lost()

    def _due(self) -> bool:
        return time.monotonic() - self._tried >= _RETRY_SECONDS

    async def _fail(self, version: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        reason = reason.replace(f"{self._store}/", "")
        if self.failed is None or (self.failed.version, self.failed.reason) != (version, reason):
            served = self._host.served.model.version
            _LOG.error(
                "model %s cannot be served%s: %s",
                version or "(none)",
                f", {served} goes on" if self._host.works else "",
                reason,
                exc_info=None if isinstance(error, InputError) else error,
            )
        await self._report(FailedReload(version, reason, time.time_ns() // 1000))

    async def _report(self, failed: FailedReload | None) -> None:
        before, self.failed = self.failed, failed
        if failed is not None or before is not None or self._tried:
            self._tried = self._tried if failed is not None else 0.0
            await self._changed(failed)


async def load_in_thread(
    thread: Executor, load: Callable[[str, bool], LiveModel], version: str, background: bool
) -> LiveModel:
    """Load a version in a thread; after a cancellation, close it once it is loaded.

    Args:
        thread: runs `load`.
        load: see `BundleWatcher`.
        version: to load.
        background: whether to use idle CPU time only.
    """
    loading = thread.submit(load, version, background)
    try:
        return await asyncio.wrap_future(loading)
    except asyncio.CancelledError:
        loading.add_done_callback(_close_loaded)
        raise


def _close_loaded(loading: Future[LiveModel]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()
