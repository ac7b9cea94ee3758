"""The process that runs a model: it loads a bundle, makes lists, and keeps its items up to date.

Started by `starter` for `client`, which has the other ends of the connections given as file descriptors.
It ends when they are closed, by whatever end of the server.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
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
from ranking.live.recorded_events import Counted
from serving.core.call_context import Stage, Timeline
from serving.core.garbage import look_rarely, no_collection
from serving.core.threads import CHANGES, LISTS, leave_the_cpu_to_others, limit_threads, prepare_thread
from serving.model.execute_batch import run_jobs
from serving.model.interfaces import Answer, ListJob, LiveModel
from serving.model.process.array_codec import Receiver, Sender
from serving.model.process.heartbeat import beat
from serving.observability.logs import set_up

_LOG = logging.getLogger(__name__)
_SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep Python to itself: two make lists, and a third works out changes."""
_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Start:
    """What the process is told first."""

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
    """Whether to load with what others leave of the CPUs."""
    device: str
    """Where its arithmetic runs, as `encoders.device.resolve_device` takes it."""
    timeout_seconds: float
    """As of `ServeConfig.model_timeout_seconds`."""
    log_format: LogFormat
    log_requests: bool


@dataclass(frozen=True)
class Ready:
    """What it says once the model is loaded."""

    manifest: dict[str, Any]
    text_dim: int
    device: str
    """As of `serving.model.interfaces.Model`."""
    pid: int


@dataclass(frozen=True)
class Failed:
    """What it says where something could not be done."""

    error: Exception


@dataclass(frozen=True)
class Passed:
    """What a job went through."""

    began: float
    stages: list[Stage]


class _Lists:
    """Makes lists, and applies changes between them."""

    def __init__(self, live: LiveModel, start: Start) -> None:
        self._live = live
        self._threads = start.list_threads
        self._helpers: Executor | None = None
        if start.list_threads > 1:
            self._helpers = ThreadPoolExecutor(
                start.list_threads - 1, "lists", prepare_thread, (start.threads, LISTS)
            )

    def answer(self, jobs: list[ListJob]) -> tuple[list[Answer], list[Passed]]:
        timelines = [Timeline() for _ in jobs]
        model = self._live.current
        placed = [replace(job, model=model, timeline=t) for job, t in zip(jobs, timelines, strict=True)]
        answers = run_jobs(placed, self._helpers, self._threads)
        return answers, [Passed(t.began, t.stages) for t in timelines]

    def apply(self, plan: Any) -> None:  # noqa: ANN401
        self._live.apply(plan)

    def count(self, events: Any) -> Counted:  # noqa: ANN401
        return self._live.count_events(events)


def _obey(connection: Connection, calls: dict[str, Callable[[Any], Any]]) -> None:
    """Do what comes over a connection until it is closed.

    The process ends where a GPU has failed: CUDA takes no more work from it, but does from the next one, and
    the server has the model loaded anew.
    """
    receiver, sender = Receiver(), Sender()
    while True:
        try:
            packed = connection.recv_bytes()
        except (EOFError, OSError):
            return
        name, argument = receiver.unpack(packed)
        try:
            answer: Any = calls[name](argument)
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
    """Tell whether CUDA reported an error; a want of memory, which passes, is another class."""
    import torch

    return isinstance(error, torch.AcceleratorError)


def _loaded(start: Start, changes: Connection) -> LiveModel:
    """Load the model in a thread of its own; end the process if nobody waits for it any more."""
    with ThreadPoolExecutor(1, "loading") as loading:
        live = loading.submit(_load, start)
        while not live.done():
            if changes.poll(_LOOK_SECONDS):  # nothing is asked before: they are closed
                os._exit(1)
        return live.result()


def _load(start: Start) -> LiveModel:
    from encoders.device import resolve_device
    from ranking.bundle.bundle import load_bundle
    from ranking.bundle.device_memory import room_for
    from ranking.live.updates import LiveItems

    store, device = Path(start.store), resolve_device(start.device)
    with room_for(store / VERSIONS / start.version, device, start.background), no_collection():
        if start.background:
            # Begun before: threads that changed items need later on, and those that CUDA has begun by now.
            polars.thread_pool_size()
            leave_the_cpu_to_others()
        limit_threads(start.threads)
        bundle = load_bundle(store, start.version, start.room, start.manifest, device)
        return LiveItems(bundle, start.room)


def main(lists_descriptor: int, changes_descriptor: int, alive_descriptor: int) -> None:
    """Load what the other process says, and work for it until it closes the connections.

    Signals are ignored: the server decides when to end, and drains first.

    Args:
        lists_descriptor: asks for lists.
        changes_descriptor: says what to load, then asks for the changes of items.
        alive_descriptor: takes beats, and is closed by the end of this process, which tells the server.
    """
    lists, changes = Connection(lists_descriptor), Connection(changes_descriptor)
    alive = Connection(alive_descriptor)
    try:
        start: Start = changes.recv()
    except (EOFError, OSError):
        return
    if start.timeout_seconds:
        beats = (alive, start.timeout_seconds)
        threading.Thread(target=beat, args=beats, daemon=True, name="beat").start()
    set_up(start.log_format, start.log_requests)
    sys.setswitchinterval(_SWITCH_SECONDS)
    look_rarely()
    try:
        live = _loaded(start, changes)
    except Exception as error:
        _say(changes, Failed(error if isinstance(error, InputError) else RuntimeError(repr(error))))
        return
    gc.freeze()
    if not _say(changes, _ready(live)):
        return
    made = _Lists(live, start)

    def follow() -> None:
        prepare_thread(start.threads, CHANGES)
        _obey(changes, {"plan": live.plan})

    def work() -> None:
        prepare_thread(start.threads, LISTS)
        _obey(
            lists,
            {"answer": made.answer, "apply": made.apply, "count": made.count},
        )

    threads = [threading.Thread(target=follow, name="changes"), threading.Thread(target=work, name="model")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _ready(live: LiveModel) -> Ready:
    model = live.current
    return Ready(model.manifest, model.text_dim, model.device, os.getpid())


def _say(connection: Connection, what: object) -> bool:
    """Say something before there is anything to answer; return whether somebody listens."""
    try:
        connection.send_bytes(Sender().pack(what))
    except OSError:
        return False
    return True
