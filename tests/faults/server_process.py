"""A server process that tests kill, starve and inspect."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_LISTENING = re.compile(r"^listening on 127\.0\.0\.1:(\d+) model \S+$", re.MULTILINE)


def command(store: Path, real: bool = False, **settings: Any) -> list[str]:
    """Return the command of a server.

    Args:
        store: the artifact store.
        real: `shelfwise serve` on the store's bundle; otherwise a model that is known by heart, which
            starts in a moment.
        settings: of `ServeConfig`; names of nested ones have dots.
    """
    settings = {"artifacts": str(store), "port": 0, "admin": True, **settings}
    if real:
        return [
            sys.executable,
            "shelfwise.py",
            "serve",
            *(f"{name}={value}" for name, value in settings.items()),
        ]
    return [sys.executable, "-m", "tests.faults.talkative_server", json.dumps(settings)]


def complaint(errors: str) -> str:
    """Return the error line in the standard error of a process that did not start.

    The talkative server's own lines begin with the time, and are left out.
    """
    assert "Traceback" not in errors, errors
    said = [line for line in errors.splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line)]
    assert len(said) == 1, errors
    assert said[0].startswith("shelfwise: "), errors
    return said[0]


class ServerProcess:
    """A starting process; `ready` waits until it serves."""

    def __init__(self, words: list[str], logs: Path) -> None:
        """Run a command whose output goes to new files of a folder."""
        logs.mkdir(exist_ok=True)
        number = len(list(logs.iterdir())) // 2
        self.out, self.err = logs / f"{number}.out", logs / f"{number}.err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=err)
        self.address = ""

    def ready(self, seconds: float = 60.0) -> ServerProcess:
        """Wait for the line with its address; the model is warm then."""
        deadline = time.monotonic() + seconds
        while (found := _LISTENING.search(self.out.read_text())) is None:
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        self.address = f"127.0.0.1:{found.group(1)}"
        return self

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def failed(self) -> tuple[int, str]:
        """Wait for a process that cannot start; return its exit status and error message."""
        return self.process.wait(60), complaint(self.err.read_text())

    def resident_bytes(self) -> int:
        """Return the memory in use."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found.group(1)) * 1024

    def open_files(self) -> int:
        """Return how many files and sockets are open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
