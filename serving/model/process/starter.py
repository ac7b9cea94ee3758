"""Processes for models, forked from one that has imported what they need and does nothing else.

Importing torch, FAISS and transformers takes longer than loading a model, and every version would do it anew,
on CPUs that answer calls. A fork has it all at once, and shares its memory.

It never touches a GPU: CUDA does not survive a fork, so each model's process initialises it for itself.

Where forking a process is not safe once libraries of the system have been used (macOS), the process takes the
first model itself, and the next one begins with another.
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
"""Whether one process starts all models."""
_MOST: Final = 8
"""File descriptors that a model's process is given at most."""
_NVML: Final = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Has torch look for a GPU without initialising CUDA, should a library ask for one while it is imported."""


class ModelStarter:
    """Has model processes started; any thread."""

    def __init__(self, forks: bool = FORKS) -> None:
        """Start nothing yet.

        Args:
            forks: whether one process starts all models.
        """
        self._forks = forks
        self._lock = threading.Lock()
        self._line: socket.socket | None = None

    def start(self, *descriptors: int) -> None:
        """Have a model's process started that is given these file descriptors; see `model_worker.main`.

        Whoever has the other ends of them finds them closed if it could not be started.
        """
        with self._lock:
            if self._line is None or not self._sent(descriptors):
                self._begin()
                self._sent(descriptors)

    def close(self) -> None:
        """Let the process end; models that it has started go on."""
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
        """Return whether there is a process that has been sent them."""
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
    """Import what models need, then start a process for each as long as the other end is open."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server decides when to end, and drains first
        signal.signal(number, signal.SIG_IGN)
    os.environ[_NVML] = "1"
    import ranking.bundle.bundle
    import ranking.bundle.device_memory
    import ranking.live.updates  # noqa: F401
    from serving.model.process import worker

    gc.freeze()  # a look at them would copy the memory that is shared
    descriptors = _asked(descriptor, forks)
    if descriptors:
        worker.main(*descriptors)


def _asked(descriptor: int, forks: bool) -> list[int]:
    """Return in the process of a model what it is given; in this one nothing, in the end."""
    with socket.socket(fileno=descriptor) as line:
        if forks:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: their ends of pipes tell
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
