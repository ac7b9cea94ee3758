"""Models of arms, one process each beside that of the current model.

A version that cannot be loaded, or whose process has ended, leaves its arms without a model: their lists are
made by the current one, and loading is retried. Nothing of this changes the health of the server.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from conf.errors import InputError
from serving.core.turns import Turn
from serving.model.host import ModelHost
from serving.model.interfaces import LiveModel
from serving.model.reload import Load, load_in_thread
from serving.model.served import Served

_LOG = logging.getLogger(__name__)
RETRY_SECONDS: Final = 60.0
"""Delay before a version is loaded again that could not be loaded, or whose process keeps ending."""


@dataclass(eq=False)
class Slot:
    """A version, and the model that is served of it."""

    host: ModelHost | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether no call uses the host."""
    failure: str = ""
    """Why there is no host."""
    retry_at: float = 0.0
    """When it may be loaded again, seconds of the monotonic clock."""
    ended_at: float = float("-inf")
    """When its process has ended last."""
    _users: int = 0

    def __post_init__(self) -> None:
        """Begin without calls."""
        self.idle.set()

    @contextmanager
    def used(self) -> Iterator[ModelHost]:
        """Yield the host, which is not closed meanwhile."""
        assert self.host is not None
        self._users += 1
        self.idle.clear()
        try:
            yield self.host
        finally:
            self._users -= 1
            if not self._users:
                self.idle.set()


class ArmModels:
    """Loads, replaces and closes the models of arms; create and use it inside a running event loop."""

    def __init__(
        self,
        store: Path,
        current: ModelHost,
        load: Load | None,
        new_host: Callable[[str], ModelHost],
        check: Callable[[LiveModel], Awaitable[None]],
        turn: Turn,
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            store: the artifact store, for messages.
            current: host of the current model, whose loading thread is used.
            load: loads a version; None where models are never replaced.
            new_host: makes an empty host, given its name.
            check: raises InputError for a loaded model that must not be served.
            turn: held while a version is loaded in the background.
        """
        self._store = store
        self._current = current
        self._load = load
        self._new_host = new_host
        self._check = check
        self._turn = turn
        self._slots: dict[str, Slot] = {}
        self._lock = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def hosts(self) -> list[ModelHost]:
        """The hosts in use."""
        return [slot.host for slot in self._slots.values() if slot.host is not None]

    def slot(self, version: str) -> Slot | None:
        """Return the slot of a version whose model can be used."""
        slot = self._slots.get(version)
        return slot if slot is not None and slot.host is not None and slot.host.works else None

    def failure(self, version: str) -> str:
        """Return why a version cannot be used; empty where it can."""
        if self.slot(version) is not None:
            return ""
        slot = self._slots.get(version)
        return (slot and slot.failure) or "the model is being loaded"

    async def update(self, wanted: Collection[str], background: bool = True) -> None:
        """Load what is wanted and missing, and close what is not wanted any more.

        Args:
            wanted: versions.
            background: whether to load with idle CPU time only.
        """
        async with self._lock:
            for version in [version for version in self._slots if version not in wanted]:
                self._retire(self._slots.pop(version))
            for version in wanted:
                slot = self._slots.setdefault(version, Slot())
                if slot.host is not None and not slot.host.works:
                    slot = self._lost(version, slot)
                if slot.host is None and time.monotonic() >= slot.retry_at:
                    with self._turn.tried() if background else nullcontext(True) as mine:
                        if mine:  # else another worker loads; a later update tries again
                            await self._try(version, slot, background)

    def retry(self) -> None:
        """Let the next update try failed versions at once."""
        for slot in self._slots.values():
            slot.retry_at = 0.0

    async def recheck(self) -> None:
        """Check the loaded models again, after what they are checked against has changed."""
        async with self._lock:
            for version, slot in list(self._slots.items()):
                if slot.host is not None and slot.host.works:
                    try:
                        await self._check(slot.host.live)
                    except InputError as error:
                        self._slots[version] = Slot(
                            failure=self._reason(version, slot, error),
                            retry_at=time.monotonic() + RETRY_SECONDS,
                        )
                        self._retire(slot)

    async def close(self) -> None:
        """Close all models after the calls that use them."""
        async with self._lock:
            for slot in self._slots.values():
                self._retire(slot)
            self._slots.clear()
        await asyncio.gather(*self._retiring)

    def _lost(self, version: str, slot: Slot) -> Slot:
        """Return a new slot for a version whose process has ended.

        The version is loaded again at once, unless its process ended a moment ago, too.
        """
        _LOG.error("the process of model %s, which arms of experiments use, has ended", version)
        self._retire(slot)
        self._slots[version] = Slot(
            failure="the model's process has ended",
            retry_at=slot.ended_at + RETRY_SECONDS,
            ended_at=time.monotonic(),
        )
        return self._slots[version]

    async def _try(self, version: str, slot: Slot, background: bool) -> None:
        try:
            slot.host = await self._served(version, background)
            slot.failure = ""
        except Exception as error:
            slot.failure = self._reason(version, slot, error)
            slot.retry_at = time.monotonic() + RETRY_SECONDS

    async def _served(self, version: str, background: bool) -> ModelHost:
        """Return a host that serves a version."""
        if self._load is None:
            raise InputError("this server loads no other version than its own")
        thread = self._current.loading
        live = await load_in_thread(thread, partial(self._load, version, background))
        try:
            derived = await asyncio.get_running_loop().run_in_executor(thread, Served.of, live.current)
            await self._check(live)
            host = self._new_host(f"arm {version}")
        except BaseException:
            live.close()
            raise
        try:
            await host.load(live, derived)  # takes ownership
        except BaseException:
            host.forget_queue()
            await host.close()
            raise
        return host

    def _reason(self, version: str, slot: Slot, error: Exception) -> str:
        """Return why a version cannot be used; log it once."""
        known = isinstance(error, InputError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        reason = reason.replace(f"{self._store}/", "")
        if reason != slot.failure:
            _LOG.error(
                "model %s of an experiment cannot be used, the current one makes its lists: %s",
                version,
                reason,
                exc_info=None if known else error,
            )
        return reason

    def _retire(self, slot: Slot) -> None:
        """Close a slot's host in the background, once no call uses it."""
        if slot.host is not None:
            slot.host.forget_queue()
            task = asyncio.create_task(_close_when_idle(slot))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)


async def _close_when_idle(slot: Slot) -> None:
    await slot.idle.wait()
    assert slot.host is not None
    await slot.host.close()
