"""Client of a model's process: the server's side.

Making a list acquires the GIL a hundred times; in the server's process it would compete with the event loop
each time. So the server holds the catalogue, and another process makes the lists. That process runs until its
model is closed: its memory is freed with it, and a crash in native code does not end the server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from conf.errors import InputError
from ranking.bundle.catalogue_file import read_catalogue
from ranking.bundle.host_memory import killed_since, memory_kills
from ranking.bundle.manifest import ManifestView
from ranking.catalogue.live_catalogue import Change, LiveCatalogue, PreparedItemChanges
from ranking.live.recorded_events import CountResult, RecordedEvent
from ranking.milvus.status import EngineStatus
from serving.core.errors import restarting
from serving.model.interfaces import Answer, ListJob
from serving.model.process.array_codec import Receiver, Sender
from serving.model.process.heartbeat import Beat, HangDetector, wait_for_end, watch_heartbeats
from serving.model.process.starter import STARTER
from serving.model.process.worker import Failed, Loaded, LoadRequest

_LOG = logging.getLogger(__name__)
_END_SECONDS: Final = 5.0
"""Timeout for the end of a process that has closed its connections, or was killed."""
_STARTER: Final = STARTER


class _Channel:
    """One connection to the process, for one request at a time; thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._in_use = threading.Lock()
        self.closing = False
        """Whether it is closed, or will be after the request in progress."""
        self._descriptor = threading.Lock()
        """Held while the connection is closed or shut down: a closed one must not be shut down."""
        self._sender, self._receiver = Sender(), Receiver()
        self.turn = 0
        """Number of requests begun plus ended; odd during a request."""

    def call(self, name: str, argument: object) -> Any:  # noqa: ANN401
        """Return the answer to a request.

        Raises:
            OSError, EOFError: the channel is closed, or the process has ended.
        """
        with self._request():
            self.turn += 1
            try:
                self._connection.send_bytes(self._sender.pack((name, argument)))
                answer = self._receiver.unpack(self._connection.recv_bytes())
            finally:
                self.turn += 1
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    def send(self, message: object) -> None:
        """Send a message without the array codec."""
        with self._request():
            self._connection.send(message)

    def receive(self) -> Any:  # noqa: ANN401
        """Return the next message."""
        with self._request():
            return self._receiver.unpack(self._connection.recv_bytes())

    def close(self) -> None:
        """Close the connection after the request in progress; returns at once."""
        self.closing = True
        if self._in_use.acquire(blocking=False):  # else the lock's holder closes it, see `_request`
            try:
                with self._descriptor:
                    self._connection.close()
            finally:
                self._in_use.release()

    def shut_down(self) -> None:
        """Make a blocked request fail, as at the end of the process."""
        with (
            self._descriptor,
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _request(self) -> Iterator[None]:
        try:
            with self._in_use:
                if self.closing:  # closed while this request was queued behind another
                    raise OSError("the channel is closed")
                yield
        finally:
            if self.closing:
                self.close()


class ModelProcess:
    """Starts the process, sends it requests, and ends it; thread-safe."""

    def __init__(self, request: LoadRequest) -> None:
        """Start the process and wait until its model is loaded.

        Raises:
            InputError: an invalid version.
        """
        lists, lists_remote = Pipe()
        changes, changes_remote = Pipe()
        alive, alive_remote = Pipe(duplex=False)
        self._memory_kills = memory_kills()
        remote = (lists_remote, changes_remote, alive_remote)
        _STARTER.start(*(connection.fileno() for connection in remote))
        for connection in remote:
            connection.close()
        self.ended = threading.Event()
        """Set once the process has ended, or was killed because it hung."""
        self._lists, self._changes = _Channel(lists), _Channel(changes)
        self.hang_detector = HangDetector()
        """Monitors its heartbeats."""
        self.engine: EngineStatus | None = None
        """See `serving.model.interfaces.LiveModel.engine`; as of the last heartbeat."""
        watched = (alive, request.timeout_seconds)
        threading.Thread(target=self._watch, args=watched, daemon=True, name="heartbeat").start()
        try:
            loaded = self._load(request)
        except BaseException:
            self.close()
            raise
        self.pid = loaded.pid
        self.manifest = loaded.manifest
        """Content of the version's verified manifest.json."""
        self.text_dim = loaded.text_dim
        """Width of the model's text vectors."""
        self.device = loaded.device
        """See `serving.model.interfaces.Model.device`."""

    def _load(self, request: LoadRequest) -> Loaded:
        try:
            self._changes.send(request)
            answer = self._changes.receive()
        except (EOFError, OSError) as error:
            self.ended.wait(_END_SECONDS)
            what = "the model's process has ended before its model was loaded"
            if killed := killed_since(self._memory_kills):
                raise InputError(
                    f"{what}: {killed}; give more memory, or serve fewer workers or a smaller model"
                ) from error
            raise RuntimeError(what) from error
        if isinstance(answer, Failed):
            raise answer.error
        assert isinstance(answer, Loaded)
        return answer

    def lists(self, name: str, argument: object) -> Any:  # noqa: ANN401
        """Return the answer of the thread that makes lists.

        Raises:
            ApiError: UNAVAILABLE, the process has ended.
        """
        return self._call(self._lists, name, argument)

    def changes(self, name: str, argument: object) -> Any:  # noqa: ANN401
        """Return the answer of the thread that prepares item changes; raises as `lists`."""
        return self._call(self._changes, name, argument)

    def _call(self, channel: _Channel, name: str, argument: object) -> Any:  # noqa: ANN401
        try:
            return channel.call(name, argument)
        except (EOFError, OSError) as error:
            self.ended.wait(_END_SECONDS)  # so that `works` is false when the caller gets the error
            raise restarting() from error

    def close(self) -> None:
        """End the process after the requests in progress; returns at once."""
        self._lists.close()
        self._changes.close()

    def _received(self, beat: Beat) -> None:
        self.engine = beat.engine

    def _watch(self, alive: Connection, timeout_seconds: float) -> None:
        """Wait for the end of the process, or kill it if it hangs; in a thread of its own."""
        with alive:
            detector = self.hang_detector
            fault, pid = watch_heartbeats(
                alive, timeout_seconds, detector, lambda: self._lists.turn, self._received
            )
            if fault:
                seconds = timeout_seconds * detector.timeout_factor
                _LOG.error("the model's process (%s) %s for %g seconds and is killed", pid, fault, seconds)
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                wait_for_end(alive, _END_SECONDS)
        if not fault and not self._lists.closing and (killed := killed_since(self._memory_kills)):
            _LOG.error("the model's process (%s) has ended, and %s", pid, killed)
        self.ended.set()
        if fault:  # a process that waits for a device in the kernel cannot be killed until the wait ends
            self._lists.shut_down()
            self._changes.shut_down()


class RemoteRecommenderClient:
    """Has lists made by the process, for all states of the catalogue."""

    def __init__(self, process: ModelProcess) -> None:
        """Use a process."""
        self.process = process

    def answer(self, jobs: Sequence[ListJob]) -> list[Answer]:
        """Return the answers to a batch, in order; blocks."""
        bare = [replace(job, model=None, timeline=None) for job in jobs]  # type: ignore[arg-type]
        answers: list[Answer]
        answers, timings = self.process.lists("answer", bare)
        self.process.hang_detector.warm = True
        for job, timing in zip(jobs, timings, strict=True):
            if job.timeline is not None:
                job.timeline.began, job.timeline.stages = timing.began, timing.stages
        return answers


@dataclass(frozen=True)
class RemoteVersion(ManifestView):
    """One state of the items; see `serving.model.interfaces.Model`."""

    version: str
    """Name of this version."""
    manifest: dict[str, Any]
    """Content of manifest.json."""
    catalogue: LiveCatalogue
    recommender: RemoteRecommenderClient

    @property
    def text_dim(self) -> int:
        """Width of the text vectors."""
        return self.recommender.process.text_dim

    @property
    def device(self) -> str:
        """See `serving.model.interfaces.Model.device`."""
        return self.recommender.process.device


class RemoteModel:
    """A model that runs in another process; see `serving.model.interfaces.LiveModel`."""

    def __init__(self, request: LoadRequest) -> None:
        """Start a process with a version, which it verifies unless the request has its manifest.

        Raises:
            InputError: an invalid version.
        """
        self.process = ModelProcess(request)
        """The model's process."""
        try:
            catalogue = LiveCatalogue(read_catalogue(Path(request.store), request.version))
        except BaseException:
            self.close()
            raise
        recommender = RemoteRecommenderClient(self.process)
        self.current = RemoteVersion(request.version, self.process.manifest, catalogue, recommender)
        """The newest state."""

    @property
    def works(self) -> bool:
        """Whether the process still runs."""
        return not self.process.ended.is_set()

    @property
    def engine(self) -> EngineStatus | None:
        """See `serving.model.interfaces.LiveModel.engine`."""
        return self.process.engine

    def close(self) -> None:
        """End the process after the requests in progress; returns at once."""
        self.process.close()

    def plan(self, changes: Sequence[Change]) -> PreparedItemChanges:
        """Prepare changes against the current state; any thread, one call at a time."""
        plan: PreparedItemChanges = self.process.changes("plan", changes)
        return plan

    def apply(self, plan: PreparedItemChanges) -> RemoteVersion:
        """Apply prepared changes; only in the model's thread, or before it is served."""
        self.process.lists("apply", plan)
        self.current = replace(self.current, catalogue=self.current.catalogue.after(plan))
        return self.current

    def count_events(self, events: Sequence[RecordedEvent]) -> CountResult:
        """Count recorded events; only in the model's thread, or before it is served."""
        counted: CountResult = self.process.lists("count", events)
        return counted
