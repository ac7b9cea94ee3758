"""The processes of a fleet: servers with a fetch beside each, one Redis, and a proxy."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.fleet.load import Load
from shelfwise_client import Client

_START_SECONDS: Final = 900.0
_REDIS: Final = {"appendonly": "yes", "appendfsync": "always", "save": '""', "maxmemory-policy": "noeviction"}
"""As in deploy/redis: no acknowledged event is lost."""
_DEPLOY: Final = Path(__file__).parents[2] / "deploy" / "proxy"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(holds: Any, what: str, seconds: float = _START_SECONDS) -> None:  # noqa: ANN401 - a function
    """Wait until something holds.

    Raises:
        RuntimeError: it did not.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.1)


def end(process: subprocess.Popen[str] | None) -> None:
    """Stop a process, with force after some time."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


@dataclass
class RedisProcess:
    """A Redis that keeps its port and data over restarts."""

    program: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), **_REDIS}
        settings = self.folder / "redis.conf"
        settings.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen([self.program, str(settings)], stdout=log, stderr=log, text=True)
        until(self._answers, "the start of Redis", 60)

    def stop(self) -> None:
        """Stop it as an operator does."""
        end(self.process)

    def _answers(self) -> bool:
        with suppress(redis.RedisError), redis.Redis(port=self.port, socket_timeout=2) as client:
            return bool(client.ping())
        return False


@dataclass
class Member:
    """A server of the fleet, and the fetch that brings it versions."""

    number: int
    folder: Path
    remote: str
    state: str
    spread: float
    port: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)
    server: subprocess.Popen[str] | None = None
    fetch: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """Its artifact store."""
        return self.folder / f"server-{self.number}"

    def follow(self) -> None:
        """Start the fetch, and wait for the first version."""
        words = ["fetch", f"remote={self.remote}", f"artifacts={self.store}", "follow_seconds=1"]
        self.fetch = self._run(f"fetch-{self.number}", [*words, f"spread_seconds={self.spread}"])
        until((self.store / "CURRENT").is_file, "the first fetch")

    def start(self) -> float:
        """Start the server and wait until it answers; return the seconds."""
        began = time.monotonic()
        self.server = self._run(
            f"server-{self.number}",
            ["serve", f"artifacts={self.store}", f"state={self.state}", f"port={self.port}", "admin=true",
             f"metrics.port={self.metrics}", "reload_seconds=1"],
        )  # fmt: skip
        until(lambda: self.version() is not None, f"the start of server {self.number}")
        return time.monotonic() - began

    def kill(self) -> None:
        """End the server as a crash does."""
        assert self.server is not None
        self.server.kill()
        self.server.wait(20)

    def version(self) -> str | None:
        """Return the version that it serves; None while it does not answer."""
        with suppress(Exception), Client(self.address, timeout=2.0) as client:
            return client.status().model_version
        return None

    def _run(self, name: str, words: Sequence[str]) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.log").open("a") as log:
            command = [sys.executable, "-m", "shelfwise", *words]
            return subprocess.Popen(command, stdout=log, stderr=log, text=True)


@contextmanager
def fleet(members: Sequence[Member], store: RedisProcess) -> Iterator[None]:
    """End all processes of a fleet afterwards."""
    try:
        yield
    finally:
        for member in members:
            end(member.fetch)
            end(member.server)
        store.stop()


@contextmanager
def proxy(program: str, members: Sequence[Member], folder: Path) -> Iterator[tuple[str, int]]:
    """Run nginx with the file of deploy/ on ports of its own; yield its address and process."""
    port = free_port()
    text = (_DEPLOY / "nginx.conf").read_text().replace("127.0.0.1:50050", f"127.0.0.1:{port}")
    for number, member in enumerate(members):
        text = text.replace(f"127.0.0.1:{50051 + number}", member.address)
    settings = folder / "nginx.conf"
    settings.write_text(text.replace("/run/shelfwise-proxy.pid", str(folder / "nginx.pid")))
    with ExitStack() as stack:
        log = stack.enter_context((folder / "nginx.log").open("w"))
        command = [program, "-c", str(settings), "-g", "daemon off;"]
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        stack.callback(end, process)
        until(lambda: _listens(port), "the start of nginx", 60)
        yield f"127.0.0.1:{port}", process.pid


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class RunningLoad:
    """A load process that has been started."""

    def __init__(self, load: Load) -> None:
        """Start it."""
        command = [sys.executable, "-m", "benchmarks.fleet.load"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(load)))
        self._process.stdin.close()
        self._process.stdin = None

    def stop(self) -> dict[str, Any]:
        """End it early, and return its calls."""
        self._process.send_signal(signal.SIGTERM)
        return self.result()

    def result(self) -> dict[str, Any]:
        """Wait for its end and return its calls.

        Raises:
            RuntimeError: it failed.
        """
        output, errors = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the load process failed: {errors.strip().splitlines()[-1:]}")
        found: dict[str, Any] = json.loads(output)
        return found
