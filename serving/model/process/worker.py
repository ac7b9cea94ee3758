"""The process that runs a model: it loads a bundle, makes lists, and applies item changes.

Started by `starter` for `client`, which holds the other ends of the connections passed as file descriptors.
It ends when they are closed, however the server ends.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import polars

from conf.engines.milvus import RetrievalConfig
from conf.errors import InputError
from conf.serving import LogFormat
from ranking.bundle.store import VERSIONS
from ranking.live.recorded_events import CountResult
from ranking.milvus.collection import Collection
from ranking.milvus.connection import UnreachableError
from ranking.retrieval.unavailable import SearchUnavailableError
from serving.core.call_context import Stage, Timeline
from serving.core.interpreter import tune_interpreter
from serving.core.threads import (
    CHANGE_NICENESS,
    LIST_NICENESS,
    limit_threads,
    prepare_thread,
    use_idle_cpus_only,
)
from serving.model.execute_batch import execute_batch
from serving.model.interfaces import CLOSE_SECONDS, Answer, ListJob, LiveModel
from serving.model.process.array_codec import Receiver, Sender
from serving.model.process.heartbeat import send_heartbeats
from serving.model.process.page_merging import merge_equal_pages
from serving.observability.logs import configure_logging

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.1
"""Interval of checks during loading whether the server has closed its connections."""


@dataclass(frozen=True)
class LoadRequest:
    """The first message to the process: the version to load, and settings."""

    store: str
    version: str
    manifest: dict[str, Any] | None
    """Of a verified version; None has the process verify it."""
    capacity: int
    """How many items may be added."""
    threads: int
    """CPU threads of each thread's arithmetic."""
    list_threads: int
    """Threads that share a batch of lists."""
    background: bool
    """Whether to load with idle CPU time only."""
    device: str
    """See `encoders.device.resolve_device`."""
    timeout_seconds: float
    """See `ServeConfig.model_timeout_seconds`."""
    log_format: LogFormat
    log_requests: bool
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """The engine that searches vectors."""


@dataclass(frozen=True)
class Loaded:
    """The answer once the model is loaded."""

    manifest: dict[str, Any]
    text_dim: int
    device: str
    """See `serving.model.interfaces.Model.device`."""
    pid: int


@dataclass(frozen=True)
class Failed:
    """The answer to a request that failed."""

    error: Exception


@dataclass(frozen=True)
class JobTiming:
    """When a job's batch began, and its stages."""

    began: float
    stages: list[Stage]


class _ListMaker:
    """Makes lists, and applies changes between them."""

    def __init__(self, live: LiveModel, request: LoadRequest) -> None:
        self._live = live
        self._threads = request.list_threads
        self._helpers: Executor | None = None
        if request.list_threads > 1:
            self._helpers = ThreadPoolExecutor(
                request.list_threads - 1, "lists", prepare_thread, (request.threads, LIST_NICENESS)
            )

    def answer(self, jobs: list[ListJob]) -> tuple[list[Answer], list[JobTiming]]:
        timelines = [Timeline() for _ in jobs]
        model = self._live.current
        local = [replace(job, model=model, timeline=t) for job, t in zip(jobs, timelines, strict=True)]
        answers = execute_batch(local, self._helpers, self._threads)
        return answers, [JobTiming(t.began, t.stages) for t in timelines]

    def apply(self, plan: Any) -> None:  # noqa: ANN401
        self._live.apply(plan)

    def count(self, events: Any) -> CountResult:  # noqa: ANN401
        return self._live.count_events(events)


def _answer_requests(connection: Connection, handlers: dict[str, Callable[[Any], Any]]) -> None:
    """Answer the requests of a connection, by name, until it is closed.

    The process exits if the GPU has failed: CUDA accepts no more work from it, but does from a new process,
    in which the server reloads the model.
    """
    receiver, sender = Receiver(), Sender()
    while True:
        try:
            packed = connection.recv_bytes()
        except (EOFError, OSError):
            return
        name, argument = receiver.unpack(packed)
        try:
            answer: Any = handlers[name](argument)
        except Exception as error:
            _LOG.exception("%s failed", name)
            if _gpu_failed(error):
                os._exit(1)
            answer = Failed(RuntimeError(f"{type(error).__name__}: {error}"))
        del argument
        try:
            connection.send_bytes(sender.pack(answer))
        except OSError:
            return
        del answer


def _gpu_failed(error: Exception) -> bool:
    """Return whether CUDA reported an error; running out of memory, which is transient, is another class."""
    import torch

    return isinstance(error, torch.AcceleratorError)


def _loaded(request: LoadRequest, changes: Connection) -> LiveModel:
    """Load the model in a thread; exit if the server closes its connections meanwhile.

    A model that is not served ends what it holds in Milvus.
    """
    opened: list[Collection] = []
    with ThreadPoolExecutor(1, "loading") as loading:
        live = loading.submit(_load, request, opened)
        while not live.done():
            if changes.poll(_POLL_SECONDS):  # there is no request before the answer: it is closed
                _close_all(opened)
                os._exit(1)
    if live.exception() is not None:
        _close_all(opened)
    return live.result()


def _close_all(opened: list[Collection]) -> None:
    for collection in opened:
        _close(collection, CLOSE_SECONDS)


def _load(request: LoadRequest, opened: list[Collection]) -> LiveModel:
    """Load the model; its collection, where it has one, is added to those to close if that fails."""
    from encoders.device import resolve_device
    from ranking.bundle.bundle import load_bundle
    from ranking.bundle.device_memory import device_memory_guard
    from ranking.live.updates import LiveItems

    store, device = Path(request.store), resolve_device(request.device)
    with device_memory_guard(store / VERSIONS / request.version, device, request.background):
        if request.background:
            # Threads started before, by Polars and CUDA, keep their priority.
            polars.thread_pool_size()
            use_idle_cpus_only()
        limit_threads(request.threads)
        bundle = load_bundle(
            store, request.version, request.capacity, request.manifest, device, request.retrieval
        )
        if bundle.collection is not None:
            opened.append(bundle.collection)
            _connect(bundle.collection, must=request.background)
        live = LiveItems(bundle, request.capacity)
        live.warm_up()
        return live


def _connect(collection: Collection, must: bool) -> None:
    """Connect to the collection of a version, and again after every outage.

    A first model serves without vector searches while Milvus is away. Another takes its place only if it can
    search: the served one still can, or will.

    Raises:
        InputError: the collection is missing or of another shape, or Milvus is away and it must answer.
    """
    try:
        collection.connect()
    except (UnreachableError, SearchUnavailableError) as error:
        if must:
            raise InputError(str(error)) from error
        _LOG.warning("%s; lists are made without vector searches until then", error)
    collection.keep_connected()


def load_error(error: Exception) -> Exception:
    """Return what the server raises for an error of loading: InputError for what an operator can mend."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # the system, torch
        return InputError(
            f"memory ran out while the model was loaded ({error}); "
            "give more memory, or serve fewer workers or a smaller model"
        )
    return RuntimeError(repr(error))


def main(lists_descriptor: int, changes_descriptor: int, alive_descriptor: int) -> None:
    """Load a model for the server, and answer its requests until it closes the connections.

    Signals are ignored: the server decides when to end, and drains first.

    Args:
        lists_descriptor: connection for requests for lists.
        changes_descriptor: connection for the load request, then for requests about item changes.
        alive_descriptor: connection for heartbeats; its closing shows the server the end of this process.
    """
    lists, changes = Connection(lists_descriptor), Connection(changes_descriptor)
    alive = Connection(alive_descriptor)
    try:
        request: LoadRequest = changes.recv()
    except (EOFError, OSError):
        return
    loaded: list[LiveModel] = []
    arguments = (alive, request.timeout_seconds, lambda: loaded[0].engine if loaded else None)
    if request.timeout_seconds or request.retrieval.uses_milvus:
        threading.Thread(target=send_heartbeats, args=arguments, daemon=True, name="heartbeat").start()
    configure_logging(request.log_format, request.log_requests)
    merge_equal_pages()
    tune_interpreter()
    gc.disable()  # loading allocates many objects, none of which become garbage
    try:
        live = _loaded(request, changes)
    except Exception as error:
        _send(changes, Failed(load_error(error)))
        return
    loaded.append(live)
    gc.freeze()
    gc.enable()
    if not _send(changes, _describe(live)):
        _close(live, CLOSE_SECONDS)
        return
    maker = _ListMaker(live, request)

    def plan_changes() -> None:
        prepare_thread(request.threads, CHANGE_NICENESS)
        _answer_requests(changes, {"plan": live.plan})

    def make_lists() -> None:
        prepare_thread(request.threads, LIST_NICENESS)
        handlers = {"answer": maker.answer, "apply": maker.apply, "count": maker.count}
        _answer_requests(lists, handlers)

    threads = [
        threading.Thread(target=plan_changes, name="changes"),
        threading.Thread(target=make_lists, name="model"),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _close(live, CLOSE_SECONDS)


def _close(live: LiveModel | Collection, seconds: float) -> None:
    """Close the model, or its collection, so that no collection that it searches stays marked as in use.

    A Milvus that is away does not hold up the end of the process, whose memory others may wait for: what
    is not done in time is left, and expires.
    """

    def close() -> None:
        try:
            live.close()
        except Exception:
            _LOG.debug("the model could not be closed", exc_info=True)

    closing = threading.Thread(target=close, daemon=True, name="closing")
    closing.start()
    closing.join(seconds)


def _describe(live: LiveModel) -> Loaded:
    model = live.current
    return Loaded(model.manifest, model.text_dim, model.device, os.getpid())


def _send(connection: Connection, message: object) -> bool:
    """Send a message; return whether the other end is still open."""
    try:
        connection.send_bytes(Sender().pack(message))
    except OSError:
        return False
    return True
