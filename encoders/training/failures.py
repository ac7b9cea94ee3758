"""Failures of the processes that train together: a traceback of each in a file, one line of all.

A process whose parent is gone ends, too: nothing else would end it, and it would train on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from pathlib import Path

from conf.errors import InputError

REPORTED = "failure-reported"
CLOSED = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited", "ended by SIGTERM")
"""What errors say where another process is gone, or the launcher ends this one because it is."""
GONE = "it left no traceback, as one that is killed where memory or its time runs out"

_TRACEBACK = "\nTraceback (most recent call last):\n"
"""What separates a message from the traceback below it."""
PARENT_SECONDS = 1.0
"""Seconds between two looks at the parent."""


def end_with_parent(parent: int) -> None:
    """End this process by SIGKILL once its parent has ended, however that ended.

    A reduction blocks for half an hour where the others are gone, so no handler of a gentler signal could
    run. torch lets the kernel send SIGINT to processes that it spawns, which has no effect there, and nothing
    to those of torchrun.

    Args:
        parent: process id of the parent, which may have ended already.

    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def clear_failures(folder: Path) -> None:
    """Remove what an earlier attempt has written."""
    for path in folder.glob("failure-*"):
        path.unlink(missing_ok=True)


def record_failure(error: BaseException, folder: Path, rank: int) -> None:
    """Write why a process failed: the message, then the traceback."""
    folder.mkdir(parents=True, exist_ok=True)
    message = "".join(traceback.format_exception_only(error)).strip()
    lines = "".join(traceback.format_exception(error))
    unfinished = folder / f"failure-{rank}.unfinished"
    unfinished.write_text(f"{message}\n\n{lines}")
    unfinished.replace(folder / f"failure-{rank}.txt")  # whole, as another process may be reading


def first_to_report(folder: Path) -> bool:
    """Return whether this process is the first that asks, which then reports for all."""
    try:
        (folder / REPORTED).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def joint_failure(folder: Path, killed: str = "") -> InputError:
    """Return the one error of processes that have failed, named by the cause.

    Args:
        folder: where they have written their tracebacks. The cause is the earliest that does not merely say
            that another process is gone: the others lose their connection to the one that fails first.
        killed: how a process was killed, where that is known and no traceback names a cause.

    """
    paths = sorted(folder.glob("failure-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    messages = {path: path.read_text().partition(_TRACEBACK)[0].strip() for path in paths}
    causes = [
        (path, message.splitlines()[0])
        for path, message in messages.items()
        if message and not any(words in message for words in CLOSED)
    ]
    again = "the same command resumes after the last finished epoch"
    reason = f"{causes[0][1]} (the traceback is in {causes[0][0]})" if causes else killed or GONE
    return InputError(f"a process of the training failed: {reason}; {again}")
