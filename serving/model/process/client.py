"""A model in a process of its own, as the server sees it.

Python runs one thread at a time, and making a list takes its lock a hundred times. In the process that
answers calls it would wait for the event loop each time, and the event loop for it. So the server keeps what
belongs to the items, and asks another process for the lists. A model that is replaced ends with its process,
and all its memory with it; what goes wrong in native code takes no server along.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from ranking.bundle.catalogue_file import read_catalogue
from ranking.bundle.manifest import ManifestView
from ranking.catalogue.live_catalogue import Change, LiveCatalogue, PreparedItemChanges
from ranking.live.recorded_events import Counted, RecordedEvent
from serving.core.errors import restarting
from serving.model.interfaces import Answer, ListJob
from serving.model.process.array_codec import Receiver, Sender
from serving.model.process.heartbeat import Pulse, listen, wait_for_end
from serving.model.process.starter import ModelStarter
from serving.model.process.worker import Failed, Ready, Start

_LOG = logging.getLogger(__name__)
_END_SECONDS: Final = 5.0
"""How long to wait for the end of a process that has closed its connections, or that was killed."""
_STARTER: Final = ModelStarter()


class _Line:
    """One connection to the process, for one question at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self._sender, self._receiver = Sender(), Receiver()
        self.turn = 0
        """Questions begun and ended; odd while one is not answered."""

    def ask(self, name: str, argument: object) -> Any:  # noqa: ANN401
        with self._lock:
            self.turn += 1
            try:
                self.connection.send_bytes(self._sender.pack((name, argument)))
                answer = self._hear()
            finally:
                self.turn += 1
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    def _hear(self) -> Any:  # noqa: ANN401
        return self._receiver.unpack(self.connection.recv_bytes())

    def hear(self) -> Any:  # noqa: ANN401
        with self._lock:
            return self._hear()

    def cut(self) -> None:
        """End the wait for an answer that never comes, which fails as at the end of the process."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


class ModelProcess:
    """Starts the process and talks to it; any thread."""

    def __init__(self, start: Start) -> None:
        """Start the process and wait until its model is loaded.

        Raises:
            InputError: a version that cannot be used.
        """
        lists, lists_there = Pipe()
        changes, changes_there = Pipe()
        alive, alive_there = Pipe(duplex=False)
        theirs = (lists_there, changes_there, alive_there)
        _STARTER.start(*(connection.fileno() for connection in theirs))
        _hang_up(*theirs)
        self.ended = threading.Event()
        """Set once the process has ended, or hangs and was killed."""
        self._lists, self._changes = _Line(lists), _Line(changes)
        self.pulse = Pulse()
        """What is known of it from its beats."""
        weakref.finalize(self, _hang_up, lists, changes)
        watched = (alive, start.timeout_seconds, self.pulse, self._lists, self.ended, weakref.ref(self))
        threading.Thread(target=_watch, args=watched, daemon=True, name="wait").start()
        try:
            changes.send(start)
            ready = self._changes.hear()
        except (EOFError, OSError) as error:
            self.ended.wait(_END_SECONDS)
            raise RuntimeError("the model's process has ended before its model was loaded") from error
        if isinstance(ready, Failed):
            raise ready.error
        assert isinstance(ready, Ready)
        self.pid = ready.pid
        self.manifest = ready.manifest
        """Content of the version's manifest.json, with which all of its files agree."""
        self.text_dim = ready.text_dim
        """Width of the model's text vectors."""
        self.device = ready.device
        """Where its arithmetic runs."""

    def lists(self, name: str, argument: object) -> Any:  # noqa: ANN401
        """Have something done by the thread that makes lists."""
        return self._ask(self._lists, name, argument)

    def changes(self, name: str, argument: object) -> Any:  # noqa: ANN401
        """Have something done by the thread that works out changes of items."""
        return self._ask(self._changes, name, argument)

    def _ask(self, line: _Line, name: str, argument: object) -> Any:  # noqa: ANN401
        try:
            return line.ask(name, argument)
        except (EOFError, OSError) as error:
            self.ended.wait(_END_SECONDS)  # so that whoever is told finds that it has
            raise restarting() from error

    def cut(self) -> None:
        """Have whoever waits for an answer wait no longer."""
        self._lists.cut()
        self._changes.cut()


def _watch(
    alive: Connection,
    timeout_seconds: float,
    pulse: Pulse,
    lists: _Line,
    ended: threading.Event,
    whose: weakref.ref[ModelProcess],
) -> None:
    """Wait until the other end is closed with the process, or kill one that hangs."""
    with alive:
        wrong, pid = listen(alive, timeout_seconds, pulse, lambda: lists.turn)
        if wrong:
            seconds = timeout_seconds * pulse.patience
            _LOG.error("the model's process (%s) %s for %g seconds and is killed", pid, wrong, seconds)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_for_end(alive, _END_SECONDS)
    ended.set()
    process = whose()
    if wrong and process is not None:  # one that waits for a device ends only when the device lets it
        process.cut()


def _hang_up(*connections: Connection) -> None:
    for connection in connections:
        connection.close()


class ElsewhereRecommender:
    """Has lists made by the process, whichever state of the items a request began with."""

    def __init__(self, process: ModelProcess) -> None:
        """Use a process; who holds this object keeps it running."""
        self.process = process

    def answer(self, jobs: Sequence[ListJob]) -> list[Answer]:
        """Make the lists of a batch; blocks."""
        bare = [replace(job, model=None, timeline=None) for job in jobs]  # type: ignore[arg-type]
        answers: list[Answer]
        answers, passed = self.process.lists("answer", bare)
        self.process.pulse.warm = True
        for job, went in zip(jobs, passed, strict=True):
            if job.timeline is not None:
                job.timeline.began, job.timeline.stages = went.began, went.stages
        return answers


@dataclass(frozen=True)
class RemoteVersion(ManifestView):
    """One state of the items; see `serving.model.interfaces.Model`."""

    version: str
    """Name of this version."""
    manifest: dict[str, Any]
    """Content of manifest.json."""
    catalogue: LiveCatalogue
    recommender: ElsewhereRecommender

    @property
    def text_dim(self) -> int:
        """Width of the text vectors."""
        return self.recommender.process.text_dim

    @property
    def device(self) -> str:
        """Where the arithmetic runs."""
        return self.recommender.process.device


class ElsewhereItems:
    """A model that runs in another process; see `serving.model.interfaces.LiveModel`."""

    def __init__(self, start: Start) -> None:
        """Start a process with a version, which it verifies if that has not been done.

        Raises:
            InputError: a version that cannot be used.
        """
        self.process = ModelProcess(start)
        """Where the model runs."""
        catalogue = LiveCatalogue(read_catalogue(Path(start.store), start.version))
        recommender = ElsewhereRecommender(self.process)
        self.current = RemoteVersion(start.version, self.process.manifest, catalogue, recommender)
        """The newest state."""

    @property
    def works(self) -> bool:
        """Whether the process still runs."""
        return not self.process.ended.is_set()

    def plan(self, changes: Sequence[Change]) -> PreparedItemChanges:
        """Work out what changes come to against the current state; any thread, one at a time."""
        plan: PreparedItemChanges = self.process.changes("plan", changes)
        return plan

    def apply(self, plan: PreparedItemChanges) -> RemoteVersion:
        """Make planned changes; only in the model's thread, or before it is served."""
        self.process.lists("apply", plan)
        self.current = replace(self.current, catalogue=self.current.catalogue.after(plan))
        return self.current

    def count_events(self, events: Sequence[RecordedEvent]) -> Counted:
        """Count recorded events; only in the model's thread, or before it is served."""
        counted: Counted = self.process.lists("count", events)
        return counted
