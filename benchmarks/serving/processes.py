"""The processes of the benchmark: a server with its memory, and the load process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.process_tree import tree
from benchmarks.serving.load import Load


@dataclass(frozen=True)
class Server:
    """A running server process."""

    process: subprocess.Popen[str]
    address: str

    def memory_mib(self, field: str = "VmRSS") -> float:
        """Return the current resident memory, or with VmHWM its peak."""
        total = 0.0
        for pid in tree(self.process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):  # a replaced model that has just ended
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith(f"{field}:"):
                        total += float(line.split()[1]) / 1024
        return total


@contextmanager
def running(command: Sequence[str], log: Path, folder: Path | None = None) -> Iterator[Server]:
    """Start a server, wait until it listens, and stop it afterwards.

    Args:
        command: its command line.
        log: gets its standard error.
        folder: its working directory, for example another checkout of this repository.
    """
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder)
    rest: threading.Thread | None = None
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("listening on "):
                break
        else:
            raise RuntimeError(f"the server did not start; see {log}")
        rest = threading.Thread(target=lambda: [None for _ in process.stdout or ()], daemon=True)
        rest.start()
        yield Server(process, line.split()[2])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if rest is not None:
            rest.join()
        if process.stdout is not None:
            process.stdout.close()


def run_load(load: Load) -> dict[str, Any]:
    """Run the load process and return its measurements."""
    command = [sys.executable, "-m", "benchmarks.serving.load"]
    done = subprocess.run(command, input=json.dumps(asdict(load)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the load process failed: {done.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
