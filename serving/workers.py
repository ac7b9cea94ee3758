"""Several worker processes on one port: a parent that starts, monitors and restarts them.

The GIL limits a process to one running thread of Python; more processes use more CPUs. The kernel distributes
connections over the listening workers (SO_REUSEPORT). All share the state and apply the same item changes, so
any of them can serve any call. The parent serves no calls and has no model, so that little in it can fail.

On SIGHUP the workers are replaced one by one: another process starts, and once it is warm and accepts
connections the former one drains. It reads all files anew, those of the program included.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from rich.console import Console

from conf.errors import InputError
from conf.serving import ServeConfig
from ranking.bundle.host_memory import killed_since, memory_kills
from serving.core.parent import PIPE, end_with_parent
from serving.core.turns import LOCK, lock_file

_LOG = logging.getLogger(__name__)
NUMBER: Final = "SHELFWISE_WORKER"
"""Environment variable of a worker process: its number, from 0."""
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 30.0
"""Uptime after which a worker's restart backoff is reset."""
_POLL_SECONDS: Final = 0.05
_EXTRA_SECONDS: Final = 5.0
"""Time beyond the drain time after which a worker that has not ended is killed."""


def begin_worker() -> None:
    """Bind this process, if it is a worker, to its parent: see `serving.core.parent`."""
    if worker_number() is not None:
        end_with_parent()


def worker_number() -> int | None:
    """Return this worker process's number; None in a server without workers."""
    number = os.environ.get(NUMBER)
    return None if number is None else int(number)


@dataclass
class _Worker:
    """A worker slot, with its current process."""

    number: int
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    memory_kills: int = 0
    """See `ranking.bundle.host_memory.memory_kills`, at the start of the process."""
    failures: int = 0
    next_start: float = 0.0
    ready: threading.Event = field(default_factory=threading.Event)
    line: str = ""
    """The line that it printed when it was ready."""


@dataclass(frozen=True)
class _Leaving:
    """A replaced worker that drains."""

    process: subprocess.Popen[str]
    end: float
    """When it is killed."""


class Workers:
    """The parent of the workers."""

    def __init__(self, config: ServeConfig, command: Sequence[str], console: Console) -> None:
        """Prepare; `run` starts them.

        Args:
            config: the settings.
            command: starts a worker, which reads its number from the environment; it must set the port.
            console: for the workers' output.
        """
        self._config = config
        self._command = list(command)
        self._console = console
        self._workers = [_Worker(number) for number in range(config.workers)]
        self._stopping = threading.Event()
        self._to_replace: list[int] = []
        """Numbers of the workers that SIGHUP has asked to replace and that have not been yet."""
        self._successor: _Worker | None = None
        """Starts to replace the worker of its number."""
        self._leaving: list[_Leaving] = []
        self._pipe, self._held = os.pipe()
        """The workers' end of a pipe, and this process's: closed with it, however it ends."""
        self._lock = lock_file()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, then drain the workers; return the exit code.

        The first worker starts alone: its failure ends the server, and its import of histories saves the
        others theirs.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._replace_all)
        first = self._workers[0]
        self._start(first)
        while not first.ready.is_set() and not self._stopping.is_set():
            assert first.process is not None
            code = first.process.poll()
            if code is not None:
                return code if code > 0 else 1
            first.ready.wait(_POLL_SECONDS)
        if first.ready.is_set():
            self._console.print(first.line, soft_wrap=True, markup=False, highlight=False)
        while not self._stopping.is_set():
            for worker in self._workers:
                self._restart_if_ended(worker)
            self._replace_next()
            self._kill_late()
            self._stopping.wait(_POLL_SECONDS)
        return self._drain()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping.is_set():  # a second signal ends everything at once
            for worker in self._running():
                worker.kill()
        self._stopping.set()

    def _running(self) -> list[subprocess.Popen[str]]:
        workers = [*self._workers, *([] if self._successor is None else [self._successor])]
        processes = [worker.process for worker in workers if worker.process is not None]
        processes += [leaving.process for leaving in self._leaving]
        return [process for process in processes if process.poll() is None]

    def _replace_all(self, number: int, frame: FrameType | None) -> None:
        self._to_replace = list(range(len(self._workers)))

    def _replace_next(self) -> None:
        """Go on with the replacement of workers, one at a time; never waits."""
        successor = self._successor
        if successor is None:
            if self._to_replace:
                self._successor = _Worker(self._to_replace.pop(0))
                self._start(self._successor)
            return
        assert successor.process is not None
        code = successor.process.poll()
        if code is not None:
            _LOG.error(
                "worker %d is not replaced, as its successor ended (%s); the former workers go on",
                successor.number,
                _how_it_ended(code),
            )
            self._successor, self._to_replace = None, []
        elif successor.ready.is_set():
            former = self._workers[successor.number].process
            self._workers[successor.number], self._successor = successor, None
            if former is not None and former.poll() is None:
                former.terminate()
                end = time.monotonic() + self._config.drain_seconds + _EXTRA_SECONDS
                self._leaving.append(_Leaving(former, end))
            _LOG.warning("worker %d has been replaced; %d to go", successor.number, len(self._to_replace))

    def _kill_late(self) -> None:
        """Kill replaced workers that have not drained in time."""
        for leaving in self._leaving:
            if leaving.process.poll() is None and time.monotonic() > leaving.end:
                _LOG.error("a replaced worker did not drain in time and was killed")
                leaving.process.kill()
                leaving.process.wait()
        self._leaving = [leaving for leaving in self._leaving if leaving.process.poll() is None]

    def _start(self, worker: _Worker) -> None:
        worker.ready.clear()
        worker.started = time.monotonic()
        worker.memory_kills = memory_kills()
        worker.process = subprocess.Popen(
            self._command,
            env={
                **os.environ,
                NUMBER: str(worker.number),
                PIPE: str(self._pipe),
                LOCK: str(self._lock),
            },
            pass_fds=(self._pipe, self._lock),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent only, which passes it on once
        )
        threading.Thread(target=self._read, args=(worker, worker.process), daemon=True).start()

    def _read(self, worker: _Worker, process: subprocess.Popen[str]) -> None:
        """Forward a worker's output, except the line that it listens, which the parent prints once."""
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("listening on "):
                worker.line = line.strip()
                worker.ready.set()
            else:
                self._console.print(line.rstrip("\n"), soft_wrap=True, markup=False, highlight=False)

    def _restart_if_ended(self, worker: _Worker) -> None:
        """Restart a worker that has ended, with exponential backoff."""
        now = time.monotonic()
        if worker.process is None:
            if now >= worker.next_start:
                self._start(worker)
            return
        code = worker.process.poll()
        successor = self._successor
        if code is None or (successor is not None and successor.number == worker.number):
            return
        worker.failures = 1 if now - worker.started > _STEADY_SECONDS else worker.failures + 1
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (worker.failures - 1))
        killed = killed_since(worker.memory_kills) if code == -signal.SIGKILL else ""
        _LOG.error(
            "worker %d ended (%s%s), another starts in %.1f s",
            worker.number,
            _how_it_ended(code),
            killed and f": {killed}",
            pause,
        )
        worker.process, worker.next_start = None, now + pause

    def _drain(self) -> int:
        draining = {leaving.process for leaving in self._leaving}
        for process in self._running():
            if process not in draining:  # a second signal would end it at once
                process.terminate()
        end = time.monotonic() + self._config.drain_seconds + _EXTRA_SECONDS
        while self._running() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        late = self._running()
        for process in late:
            _LOG.error("a worker did not drain in time and was killed")
            process.kill()
            process.wait()
        return 1 if late else 0


def _how_it_ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def reserve_port(config: ServeConfig) -> socket.socket:
    """Bind the port that the workers share; no other program can bind it while the socket is open.

    The socket never listens, so it never gets connections.

    Raises:
        InputError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        with socket.socket(family) as exclusive:  # fails if another program has the port, even shared
            exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            exclusive.bind((config.host, config.port))
            port = exclusive.getsockname()[1]
        shared = socket.socket(family)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((config.host, port))
    except OSError as error:
        raise InputError(
            f"cannot listen on {config.host}:{config.port}: the port is taken or the host is not one of this "
            "machine; set port=0 for a free one, or host"
        ) from error
    return shared


def run_workers(config: ServeConfig, arguments: Sequence[str], console: Console) -> int:
    """Run the workers of a configuration and return the exit code.

    Args:
        config: the settings.
        arguments: the program and its arguments that start a worker; the port is added.
        console: for the workers' output.
    """
    with reserve_port(config) as shared:
        port = shared.getsockname()[1]
        return Workers(config, [sys.executable, *arguments, f"port={port}"], console).run()
