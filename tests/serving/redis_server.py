"""A real Redis process in a temporary folder."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

from tests.programs import redis_server

DURABLE = {"appendonly": "yes", "appendfsync": "always", "save": ""}
"""Settings of a Redis that loses no acknowledged writes."""
EMPTY = '""'
"""An empty value in a settings file."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RedisServer:
    """A Redis process that keeps its port and folder over restarts."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._program = redis_server()
        self.folder = folder
        self.port = free_port()
        # Uncompressed, so that a search for bytes finds them.
        self._settings = {**DURABLE, "rdbcompression": "no", **settings}
        folder.mkdir(exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self._settings.get("requirepass"), socket_timeout=20)

    def start(self) -> None:
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), **self._settings}
        settings = self.folder / "redis.conf"
        settings.write_text("".join(f"{name} {value or EMPTY}\n" for name, value in options.items()))
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen([self._program, str(settings)], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                with self.client as client:
                    client.ping()
                return
            except (redis.ConnectionError, redis.BusyLoadingError):
                said = (self.folder / "log").read_text()
                assert self._process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.01)

    def kill(self) -> None:
        """Kill it, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut it down, as an operator does."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Suspend it: it accepts connections and commands but does not respond."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process.poll() is None:
            self.thaw()
            self.kill()

    def _end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(20)
