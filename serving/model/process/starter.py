"""A fork server: a process with preloaded libraries, from which each model's process is forked.

Importing torch, FAISS and transformers takes longer than loading a model. A fork has them at once, and shares
their memory. The fork server of `multiprocessing` would also import the server's main module in every fork.

The fork server never touches a GPU: CUDA does not survive a fork, so each model's process initialises it.

On macOS, where forking is unsafe once system libraries have been used, each model's process is started anew.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from typing import Final

FORKS: Final = sys.platform == "linux"
"""Whether model processes are forked from a fork server."""
_MAX_DESCRIPTORS: Final = 8
"""Most file descriptors passed to a model's process."""
_NVML: Final = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Environment variable: torch checks for a GPU without initialising CUDA, should an import ask for one."""


class ModelStarter:
    """Starts model processes through its own fork server; thread-safe."""

    def __init__(self, forks: bool = FORKS) -> None:
        """Prepare; the fork server is started with the first model, or by `prepare`.

        Args:
            forks: see `FORKS`.
        """
        self._forks = forks
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def prepare(self) -> None:
        """Start the fork server, which imports the libraries while this process does something else."""
        with self._lock:
            if self._socket is None:
                self._begin()

    def start(self, *descriptors: int) -> None:
        """Start a model's process with file descriptors for `serving.model.process.worker.main`.

        If it cannot be started, the other ends of the descriptors are closed.
        """
        with self._lock:
            if self._socket is None or not self._send(descriptors):
                self._begin()
                self._send(descriptors)

    def close(self) -> None:
        """End the fork server; model processes that it has forked keep running."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _begin(self) -> None:
        self._socket, remote = socket.socketpair()
        with remote:
            process = _popen(remote.fileno(), self._forks)
        threading.Thread(target=process.wait, daemon=True, name="wait").start()

    def _send(self, descriptors: tuple[int, ...]) -> bool:
        """Send the descriptors to the fork server; return whether it is running."""
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [b"."], descriptors)
        except OSError:  # it has ended
            self._socket.close()
            return False
        return True


STARTER: Final = ModelStarter()
"""Of this process."""


def _popen(descriptor: int, forks: bool) -> subprocess.Popen[bytes]:
    # With this process's module path, independent of the working directory.
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from serving.model.process.starter import main; main({descriptor}, {forks})"
    )
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, pass_fds=(descriptor,), stdin=subprocess.DEVNULL, stdout=2)


def main(descriptor: int, forks: bool) -> None:
    """Import the libraries of models, then fork a process per request until the other end is closed."""
    # The server decides when to end, and drains first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ[_NVML] = "1"
    imported = threading.Event()
    watching = threading.Thread(target=end_with_server, args=(descriptor, imported), daemon=True)
    watching.start()
    import ranking.bundle.bundle
    import ranking.bundle.device_memory
    import ranking.live.updates  # noqa: F401
    from features.kernels.ahead import prepare_loops
    from serving.model.process import worker

    prepare_loops()  # once for all models, also where their code cannot be kept
    imported.set()
    watching.join()  # a fork copies no threads
    gc.freeze()  # a collection would write to shared pages and so copy them
    descriptors = _next_request(descriptor, forks)
    if descriptors:
        worker.main(*descriptors)


def end_with_server(descriptor: int, imported: threading.Event) -> None:
    """End this process if the other end is closed before the libraries are imported.

    A server that refuses its settings is gone after a second; imports would go on for several, and keep its
    standard error open, whose end a caller may wait for.
    """
    poll = select.poll()
    poll.register(descriptor, 0)  # a hang-up is always reported
    while not imported.wait(0.1):
        if poll.poll(0):
            os._exit(0)


def _next_request(descriptor: int, forks: bool) -> list[int]:
    """Return the descriptors in each forked process; in the fork server, at its end, an empty list."""
    with socket.socket(fileno=descriptor) as line:
        if forks:
            signal.signal(
                signal.SIGCHLD, signal.SIG_IGN
            )  # no zombies: the server detects ends by closed pipes
        while True:
            message, descriptors, _, _ = socket.recv_fds(line, 1, _MAX_DESCRIPTORS)
            if not message:
                return []
            if not forks or os.fork() == 0:
                break
            for number in descriptors:
                os.close(number)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    del os.environ[_NVML]
    return descriptors
