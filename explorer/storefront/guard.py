"""Runs a program that must end when the explorer ends, however that ends: `python -m ... FOLDER COMMAND...`.

The explorer holds the other end of this process's standard input. When it ends, by SIGKILL too, that pipe is
closed: the program is stopped and its folder removed. Should this process be killed, the kernel stops the
program (PR_SET_PDEATHSIG, Linux). It is a process of its own, because the death signal belongs to the thread
that started a child, and the explorer's threads come and go.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from serving.core.parent import signal_at_end_of_parent

STOP_SECONDS: Final = 15.0
"""Time that the program gets after SIGTERM."""


def _end_with_parent() -> None:
    signal_at_end_of_parent(signal.SIGTERM)


def run(folder: Path, command: list[str]) -> int:
    """Run a program until it ends, or until standard input is closed; return its exit code.

    Args:
        folder: removed when standard input is closed; kept when the program ends by itself, with its log.
        command: program and arguments.

    """
    # This process has one thread so far, so that code may run between fork and exec.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)
    closed = threading.Event()

    def watch() -> None:
        # Unbuffered: a thread that waits inside a buffered reader makes the interpreter abort at its end.
        while os.read(sys.stdin.fileno(), 1):
            pass
        closed.set()
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    if closed.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the explorer as well, which ends
        signal.signal(number, signal.SIG_IGN)
    sys.exit(abs(run(Path(sys.argv[1]), sys.argv[2:])))
