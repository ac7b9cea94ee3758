"""A real server for the storefront: `shelfwise serve` as a child process, with a temporary state of its own.

The published store is only read. Events are kept in a folder that is removed with the explorer; they outlive
a restart of the server, as they would in a shop.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

_LISTENING: Final = re.compile(r"listening on (\S+:\d+)")
START_SECONDS: Final = 180.0
"""Time until a server that does not listen is given up."""
LOG_LINES: Final = 20
"""Last lines of the log that are shown after a crash."""
_PATIENT: Final = (
    "limits.max_queue_seconds=30", "limits.standing_queue_seconds=30", "limits.history_seconds=10",
)  # fmt: skip
"""Its only shopper waits for a list rather than being refused one, or being shown one without the history."""
STATE: Final = "state.sqlite"
LOG: Final = "server.log"


class Phase(Enum):
    """Where the server stands."""

    stopped = "stopped"
    starting = "starting"
    running = "running"
    failed = "failed"


@dataclass(frozen=True)
class ServerState:
    """The server at this moment."""

    phase: Phase
    address: str = ""
    """While it runs."""
    message: str = ""
    """Why it failed."""
    log: tuple[str, ...] = ()
    """The end of its log, after a failure."""


class ShopServer:
    """Starts, watches and restarts the server; any thread may call it."""

    def __init__(
        self, artifacts: Path, settings: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            artifacts: the artifact store, which is only read.
            settings: further settings of `serve`, for example `privacy.hash_users=true`.
            environment: further variables of the server's environment.

        """
        self._environment = environment or {}
        self._artifacts = artifacts
        self._settings = tuple(settings)
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._log_start = 0
        self._address = ""
        self.starts = 0
        """How often it was started."""

    def state(self) -> ServerState:
        """Return where the server stands now."""
        with self._lock:
            return self._state()

    def start(self) -> ServerState:
        """Start the server unless it is starting, running or failed; return where it stands."""
        with self._lock:
            if self._process is None:
                self._launch()
            return self._state()

    def restart(self) -> ServerState:
        """Start a server that has failed anew, with the events recorded so far; return where it stands."""
        with self._lock:
            if self._state().phase in (Phase.failed, Phase.stopped):
                self._end()
                self._launch()
            return self._state()

    def wait(self, seconds: float) -> ServerState:
        """Wait until the server runs or has failed, for so many seconds at most."""
        until = time.monotonic() + seconds
        while (state := self.state()).phase is Phase.starting and time.monotonic() < until:
            time.sleep(0.05)
        return state

    def wait_for_end(self, seconds: float) -> ServerState:
        """Wait until the server has failed, for so many seconds at most: its end is noticed with a delay."""
        until = time.monotonic() + seconds
        while (state := self.state()).phase is Phase.running and time.monotonic() < until:
            time.sleep(0.05)
        return state

    def close(self) -> None:
        """Stop the server and remove its folder."""
        with self._lock:
            self._end()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _launch(self) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="shelfwise-storefront-"))
        log = self._folder / LOG
        serve = [
            sys.executable, "-m", "shelfwise", "serve", f"artifacts={self._artifacts}", "host=127.0.0.1",
            "port=0", f"state={self._folder / STATE}", *_PATIENT, *self._settings,
        ]  # fmt: skip
        guard = [sys.executable, "-m", "explorer.storefront.guard", str(self._folder), *serve]
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                guard,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment, "PYTHONUNBUFFERED": "1"},
            )
        self._address = ""
        self._began = time.monotonic()
        self.starts += 1

    def _end(self) -> None:
        """Stop the process, if there is one: closing its standard input has the guard stop the server."""
        process, self._process = self._process, None
        self._address = ""
        if process is None:
            return
        assert process.stdin is not None
        kept = self._folder if process.poll() is not None else None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if kept is None:
            self._folder = None  # removed by the guard

    def _state(self) -> ServerState:
        if self._process is None:
            return ServerState(Phase.stopped)
        code = self._process.poll()
        if code is not None:
            return ServerState(Phase.failed, message=f"it ended with exit code {code}", log=self._log())
        if not self._address:
            found = _LISTENING.search(self._written())
            if found is not None:
                self._address = found.group(1)
            elif time.monotonic() - self._began > START_SECONDS:
                self._process.kill()
                self._process.wait()
                message = f"it did not listen within {START_SECONDS:.0f} s"
                return ServerState(Phase.failed, message=message, log=self._log())
            else:
                return ServerState(Phase.starting)
        return ServerState(Phase.running, self._address)

    def _written(self) -> str:
        """Return the log since the last start."""
        assert self._folder is not None
        try:
            with (self._folder / LOG).open("rb") as file:
                file.seek(self._log_start)
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _log(self) -> tuple[str, ...]:
        return tuple(self._written().splitlines()[-LOG_LINES:])
