"""A forkserver: a process that has imported what models need, from which each model's process is forked.

Importing torch, FAISS and transformers takes longer than loading a model. A fork has them at once, and shares
their memory. That of `multiprocessing` would import the main module of the server in every fork, too.

The forkserver never touches a GPU: CUDA does not survive a fork, so each model's process initialises it.

On macOS, where a fork is not safe once system libraries have been used, each model gets a process of its own,
which imports everything itself.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Final

FORKS: Final = sys.platform == "linux"
"""Whether models' processes are forked from a forkserver."""
_MOST: Final = 8
"""File descriptors that a model's process is given at most."""
_NVML: Final = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Environment variable: torch checks for a GPU without initialising CUDA, should an import ask for one."""


class ModelStarter:
    """Starts model processes by a forkserver of its own; any thread."""

    def __init__(self, forks: bool = FORKS) -> None:
        """Start nothing yet.

        Args:
            forks: whether models' processes are forked, as of `FORKS`.
        """
        self._forks = forks
        self._lock = threading.Lock()
        self._line: socket.socket | None = None

    def start(self, *descriptors: int) -> None:
        """Start a model's process with these file descriptors; see `serving.model.process.worker.main`.

        Their other ends are closed if it could not be started.
        """
        with self._lock:
            if self._line is None or not self._sent(descriptors):
                self._begin()
                self._sent(descriptors)

    def close(self) -> None:
        """End the forkserver; model processes that it has forked keep running."""
        with self._lock:
            if self._line is not None:
                self._line.close()
                self._line = None

    def _begin(self) -> None:
        self._line, there = socket.socketpair()
        with there:
            process = _popen(there.fileno(), self._forks)
        threading.Thread(target=process.wait, daemon=True, name="wait").start()

    def _sent(self, descriptors: tuple[int, ...]) -> bool:
        """Send the descriptors to the forkserver; return whether it is running."""
        assert self._line is not None
        try:
            socket.send_fds(self._line, [b"."], descriptors)
        except OSError:  # it has ended
            self._line.close()
            return False
        return True


def _popen(descriptor: int, forks: bool) -> subprocess.Popen[bytes]:
    # With the modules of this process, whatever folder it was started in.
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from serving.model.process.starter import main; main({descriptor}, {forks})"
    )
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, pass_fds=(descriptor,), stdin=subprocess.DEVNULL, stdout=2)


def main(descriptor: int, forks: bool) -> None:
    """Import what models need, then fork a process for each request until the other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server decides when to end, and drains first
        signal.signal(number, signal.SIG_IGN)
    os.environ[_NVML] = "1"
    import ranking.bundle.bundle
    import ranking.bundle.device_memory
    import ranking.live.updates  # noqa: F401
    from serving.model.process import worker

    gc.freeze()  # a collection would write to the shared memory, which copies it
    descriptors = _asked(descriptor, forks)
    if descriptors:
        worker.main(*descriptors)


def _asked(descriptor: int, forks: bool) -> list[int]:
    """Return the descriptors of a model's process, in it; in the forkserver an empty list, at its end."""
    with socket.socket(fileno=descriptor) as line:
        if forks:
            signal.signal(
                signal.SIGCHLD, signal.SIG_IGN
            )  # no zombies: the server sees their ends by closed pipes
        while True:
            message, descriptors, _, _ = socket.recv_fds(line, 1, _MOST)
            if not message:
                return []
            if not forks or os.fork() == 0:
                break
            for given in descriptors:
                os.close(given)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    del os.environ[_NVML]
    return descriptors
