"""Reload of a newly published or rolled-back model while serving.

CURRENT is polled every few seconds. Another version is verified and loaded beside the served one, brought up
to date with histories and item changes, warmed up, and swapped in by replacing one reference. If any step
fails, the former model stays in service, and status and health report the failure.

A version that does not fit into memory beside the served one is such a failure, or, if the settings say so,
the served one is ended first. Workers of a server load one after the other, so that memory for one more model
is enough.
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
from ranking.bundle.host_memory import NoRoomError
from ranking.bundle.store import current_version
from serving.core.poller import Poller
from serving.core.turns import Turn
from serving.model.host import ModelHost, end_of
from serving.model.interfaces import LiveModel
from serving.model.served import Served

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 60.0
"""Delay before a failed version is retried: it may have been incompletely copied."""
_END_SECONDS: Final = 60.0
"""Longest wait for the end of a replaced model, which the last list that began with it keeps running."""
Load = Callable[[str, bool], LiveModel]
"""Verifies and loads a version of the store; if the second argument is true, with idle CPU time only.
Blocks, and raises InputError for an invalid version."""
StopFirst = Callable[[str, LiveModel], Callable[[], LiveModel]]
"""Checks that a version is valid and will fit once a served model has ended; returns what then loads it.
Blocks, and raises InputError if not."""


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
        load: Load,
        stop_first: StopFirst | None,
        prepare: Callable[[LiveModel], Awaitable[None]],
        changed: Callable[[FailedReload | None], Awaitable[None]],
        down: Callable[[bool], Awaitable[None]],
        seconds: float,
        follow: bool,
        turn: Turn,
    ) -> None:
        """Prepare to watch.

        Args:
            store: the artifact store.
            host: serves the models.
            load: loads a version; its second argument is true while another model is served, which has
                priority.
            stop_first: for a version that does not fit beside the served one; None refuses it.
            prepare: called with a loaded model before it is served; if it raises, the former model stays.
            changed: called with the outcome of a reload: None after a success.
            down: called once when the served model's process has ended, before another is loaded; with
                true if it ended by itself.
            seconds: polling interval.
            follow: whether to load other versions, or only to reload one whose process has ended.
            turn: held while a version is loaded beside the served one.
        """
        self.failed: FailedReload | None = None
        """Why the version named by CURRENT is not served; None while it is."""
        self.loading = ""
        """The version that is being loaded, or whose histories are being imported; empty if none."""
        self._store = store
        self._host = host
        self._load = load
        self._stop_first = stop_first
        self._prepare = prepare
        self._changed = changed
        self._down = down
        self._follow = follow
        self._turn = turn
        self._given_up: tuple[str, str] | None = None
        """The version that could not be loaded after the served one had been ended for it, and why."""
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
            version = await self._current() if self._follow else served
            if not self._host.works:
                if self.failed is not None and self.failed.version == version:
                    version = served  # known to load
                await self._report_lost(served, version)
            elif version == served:
                await self._report(None)
                return
            if retry:
                self._given_up = None
            if self.failed is not None and self.failed.version == version and not (retry or self._due()):
                return
            self.loading = version
            if not self._host.works:
                self._tried = time.monotonic()
                await self._replace(version)
                await self._report(None)
                return
            with self._turn.tried() as mine:
                if not mine:  # another worker loads; a later poll tries again, and sees an ended process
                    self._retry = self._retry or retry
                    return
                former, self._tried = self._host.live, time.monotonic()
                await self._exchange(version)
                await self._report(None)
                if self._turn.shared:  # its memory counts until then
                    await end_of(former, _END_SECONDS)
        except Exception as error:
            await self._fail(version, error)

    async def _current(self) -> str:
        return await asyncio.to_thread(current_version, self._store)

    async def _exchange(self, version: str) -> None:
        """Load a version beside the served one, or after its end if that is how room is made."""
        try:
            await self._replace(version)
        except NoRoomError as error:
            if self._stop_first is None:
                raise
            if self._given_up is not None and self._given_up[0] == version:
                raise InputError(self._given_up[1]) from error
            await self._end_and_replace(version, error)

    async def _end_and_replace(self, version: str, no_room: NoRoomError) -> None:
        """End the served model's process and then load a version; load the former one again if that fails.

        A version that failed so is not tried again before SIGHUP or another version: each attempt would
        interrupt the service.
        """
        assert self._stop_first is not None
        served = self._host.live
        former = served.current.version
        stop_first = asyncio.get_running_loop().run_in_executor(
            self._host.loading, self._stop_first, version, served
        )
        load_alone = await stop_first
        _LOG.warning(
            "model %s is ended before model %s is loaded, lists fail as UNAVAILABLE meanwhile: %s",
            former,
            version,
            str(no_room).partition(";")[0],  # without the advice
        )
        self._reported_loss = self._host.generation  # no crash
        await self._down(False)
        began = time.monotonic()
        served.close()
        await end_of(served, _END_SECONDS)
        try:
            await self._serve(load_alone)
        except Exception as error:
            self._given_up = version, _reason(error)
            _LOG.warning("model %s could not be loaded, %s is loaded again", version, former)
            await self._replace(former)
            raise
        finally:
            if self._host.works:
                _LOG.warning("lists were not made for %.1f seconds", time.monotonic() - began)
        self._given_up = None

    async def _replace(self, version: str) -> None:
        """Load a version and serve it."""
        background = self._host.works
        await self._serve(lambda: self._load(version, background))

    async def _serve(self, load: Callable[[], LiveModel]) -> None:
        """Serve what a function loads; close it where that fails."""
        live = await load_in_thread(self._host.loading, load)
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
            await self._down(True)

    def _due(self) -> bool:
        return time.monotonic() - self._tried >= _RETRY_SECONDS

    async def _fail(self, version: str, error: Exception) -> None:
        reason = _reason(error).replace(f"{self._store}/", "")
        if self.failed is None or (self.failed.version, self.failed.reason) != (version, reason):
            served = self._host.served.model.version
            _LOG.error(
                "model %s cannot be served%s: %s",
                version or "(none)",
                f", {served} goes on" if self._host.works else "",
                reason,
                exc_info=_trace(error),
            )
        await self._report(FailedReload(version, reason, time.time_ns() // 1000))

    async def _report(self, failed: FailedReload | None) -> None:
        before, self.failed, self.loading = self.failed, failed, ""
        if failed is not None or before is not None or self._tried:
            self._tried = self._tried if failed is not None else 0.0
            await self._changed(failed)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _trace(error: Exception) -> Exception | None:
    """Return the error to log with its traceback; None for one whose message says everything."""
    return None if isinstance(error, InputError) else error


async def load_in_thread(thread: Executor, load: Callable[[], LiveModel]) -> LiveModel:
    """Load a model in a thread; after a cancellation, close it once it is loaded."""
    loading = thread.submit(load)
    try:
        return await asyncio.wrap_future(loading)
    except asyncio.CancelledError:
        loading.add_done_callback(_close_loaded)
        raise


def _close_loaded(loading: Future[LiveModel]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()
