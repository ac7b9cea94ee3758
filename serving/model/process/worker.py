"""The process that runs a model: it loads a bundle, makes lists, and keeps its items up to date.

Started by `starter` for `client`, which has the other ends of the connections given as file descriptors.
It ends when they are closed, however the server ends.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import polars

from conf.errors import InputError
from conf.serving import LogFormat
from ranking.bundle.store import VERSIONS
from ranking.live.recorded_events import CountResult
from serving.core.call_context import Stage, Timeline
from serving.core.interpreter import tune_interpreter
from serving.core.threads import (
    CHANGE_NICENESS,
    LIST_NICENESS,
    limit_threads,
    prepare_thread,
    use_idle_cpus_only,
)
from serving.model.execute_batch import run_jobs
from serving.model.interfaces import Answer, ListJob, LiveModel
from serving.model.process.array_codec import Receiver, Sender
from serving.model.process.heartbeat import send_heartbeats
from serving.observability.logs import configure_logging

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.1
"""How often a process that loads a model checks whether the server still wants it."""


@dataclass(frozen=True)
class LoadRequest:
    """The first message to the process: what to load, and how to run it."""

    store: str
    version: str
    manifest: dict[str, Any] | None
    """Of a version that has been verified already; None verifies it."""
    room: int
    """How many items may be added."""
    threads: int
    """CPU threads of the arithmetic of each of its threads."""
    list_threads: int
    """Threads that share a batch of lists."""
    background: bool
    """Whether to load with idle CPU time only."""
    device: str
    """Where its arithmetic runs, as `encoders.device.resolve_device` takes it."""
    timeout_seconds: float
    """As of `ServeConfig.model_timeout_seconds`."""
    log_format: LogFormat
    log_requests: bool


@dataclass(frozen=True)
class Loaded:
    """The answer once the model is loaded."""

    manifest: dict[str, Any]
    text_dim: int
    device: str
    """As of `serving.model.interfaces.Model`."""
    pid: int


@dataclass(frozen=True)
class Failed:
    """The answer to a request that failed."""

    error: Exception


@dataclass(frozen=True)
class JobTiming:
    """When a job's batch began, and the stages that it passed."""

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
        placed = [replace(job, model=model, timeline=t) for job, t in zip(jobs, timelines, strict=True)]
        answers = run_jobs(placed, self._helpers, self._threads)
        return answers, [JobTiming(t.began, t.stages) for t in timelines]

    def apply(self, plan: Any) -> None:  # noqa: ANN401
        self._live.apply(plan)

    def count(self, events: Any) -> CountResult:  # noqa: ANN401
        return self._live.count_events(events)


def _answer_requests(connection: Connection, handlers: dict[str, Callable[[Any], Any]]) -> None:
    """Answer the requests of a connection, by name, until it is closed.

    The process ends where a GPU has failed: CUDA accepts no more work from it, but does from the next
    process, in which the server loads the model anew.
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
    """Tell whether CUDA reported an error; running out of memory, which passes, is another class."""
    import torch

    return isinstance(error, torch.AcceleratorError)


def _loaded(request: LoadRequest, changes: Connection) -> LiveModel:
    """Load the model in a thread of its own; end the process if the server has closed its connections."""
    with ThreadPoolExecutor(1, "loading") as loading:
        live = loading.submit(_load, request)
        while not live.done():
            if changes.poll(_POLL_SECONDS):  # no request comes before the answer: it is closed
                os._exit(1)
        return live.result()


def _load(request: LoadRequest) -> LiveModel:
    from encoders.device import resolve_device
    from ranking.bundle.bundle import load_bundle
    from ranking.bundle.device_memory import device_memory_guard
    from ranking.live.updates import LiveItems

    store, device = Path(request.store), resolve_device(request.device)
    with device_memory_guard(store / VERSIONS / request.version, device, request.background):
        if request.background:
            # Threads that item changes need later, and those that CUDA has started, keep their priority.
            polars.thread_pool_size()
            use_idle_cpus_only()
        limit_threads(request.threads)
        bundle = load_bundle(store, request.version, request.room, request.manifest, device)
        return LiveItems(bundle, request.room)


def main(lists_descriptor: int, changes_descriptor: int, alive_descriptor: int) -> None:
    """Load the model that the server names, and answer its requests until it closes the connections.

    Signals are ignored: the server decides when to end, and drains first.

    Args:
        lists_descriptor: brings requests for lists.
        changes_descriptor: brings what to load, then requests about changes of items.
        alive_descriptor: takes heartbeats; that this process has ended the server sees from its other end.
    """
    lists, changes = Connection(lists_descriptor), Connection(changes_descriptor)
    alive = Connection(alive_descriptor)
    try:
        request: LoadRequest = changes.recv()
    except (EOFError, OSError):
        return
    if request.timeout_seconds:
        arguments = (alive, request.timeout_seconds)
        threading.Thread(target=send_heartbeats, args=arguments, daemon=True, name="heartbeat").start()
    configure_logging(request.log_format, request.log_requests)
    tune_interpreter()
    gc.disable()  # loading makes many objects, all of which stay
    try:
        live = _loaded(request, changes)
    except Exception as error:
        _send(changes, Failed(error if isinstance(error, InputError) else RuntimeError(repr(error))))
        return
    gc.freeze()
    gc.enable()
    if not _send(changes, _describe(live)):
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
