"""A server in a process of its own, to be killed, starved and looked into."""

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


class ServerProcess:
    """Starts at once; `ready` waits until it answers."""

    def __init__(self, store: Path, logs: Path, real: bool = False, before: tuple[str, ...] = (), **settings: Any):
        """Start a server.

        Args:
            store: the artifact store.
            logs: folder for what it prints; new files at every start.
            real: `shelfwise serve` on the store's bundle; otherwise a model that is known by heart.
            before: a command that runs the server's command.
            settings: of `ServeConfig`, nested ones as `{"tls.key": ...}`.
        """
        settings = {"artifacts": str(store), "port": 0, "admin": True, **settings}
        program = ["-m", "tests.faults.talkative_server", json.dumps(settings)]
        if real:
            program = ["shelfwise.py", "serve", *(f"{name}={value}" for name, value in settings.items())]
        logs.mkdir(exist_ok=True)
        number = len(list(logs.iterdir())) // 2
        self.out, self.err = logs / f"{number}.out", logs / f"{number}.err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen([*before, sys.executable, *program], cwd=ROOT, stdout=out, stderr=err)
        self.address = ""

    def ready(self, seconds: float = 60.0) -> ServerProcess:
        """Wait for the line that says where it listens; the model is warm then."""
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
        """Wait for a process that cannot start; return its exit status and standard error."""
        return self.process.wait(60), self.err.read_text()

    def resident_bytes(self) -> int:
        """Return the memory in use."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found.group(1)) * 1024

    def open_files(self) -> int:
        """Return how many files and sockets are open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
