"""A process that ends with its parent, however that ends.

A parent that was killed can end nobody. Its children would go on listening without supervision, and the next
start would find the port taken. The child holds the read end of a pipe whose other end only the parent has:
the kernel closes that with the parent, and a thread of the child notices. On Linux the kernel also sends the
child SIGKILL (PR_SET_PDEATHSIG), which works while the child is stopped or does not release the GIL.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Final

PIPE: Final = "SHELFWISE_PARENT_PIPE"
"""Environment variable of a child: the descriptor of its end of the pipe."""
_PR_SET_PDEATHSIG: Final = 1


def signal_at_end_of_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends; only Linux does.

    The parent's end is that of the thread that started this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def end_with_parent() -> None:
    """End this process, by SIGKILL, once its parent has ended, if it was started with `PIPE`.

    Without a drain: the parent was killed, so whoever starts it again needs the port now. A parent that was
    killed before this call has closed the pipe, too.
    """
    descriptor = os.environ.pop(PIPE, None)
    if descriptor is None:
        return
    signal_at_end_of_parent(signal.SIGKILL)
    threading.Thread(target=_wait, args=(int(descriptor),), daemon=True, name="parent").start()


def _wait(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
