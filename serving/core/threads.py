"""Threads of a model's process: their priorities, and how many CPU threads their arithmetic may use.

Where there are fewer CPUs than work, the kernel shares them out by priority. The server's process has little
to do for a call, and every call depends on it; lists come next, background work last. The server's own
threads all have one priority: they share the GIL, and one that holds it must not be preempted by another.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Final

LISTS: Final = 5
"""Steps of niceness of the threads that make lists, beyond the server's."""
CHANGES: Final = 10
"""Of the one that works out changes of items."""
_NICEST: Final = 19


def prepare_thread(threads: int, niceness: int) -> None:
    """Limit what the calling thread takes; to be called once by it, before its first work.

    Args:
        threads: CPU threads of its arithmetic; 0 takes all.
        niceness: steps by which its priority is below the process's; not on other systems than Linux, where
            threads have none of their own.
    """
    limit_threads(threads)
    if sys.platform == "linux":
        thread = threading.get_native_id()
        usual = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(usual + niceness, _NICEST))


def leave_the_cpu_to_others() -> None:
    """Run the calling thread, and those that it starts, only on otherwise idle CPUs.

    Unlike a nice one, such a thread is interrupted as soon as another wakes up. It must hold nothing that
    others wait for.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICEST)
        with contextlib.suppress(OSError):  # where a sandbox forbids it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def list_threads(wanted: int, workers: int) -> int:
    """Return how many threads share the lists of a batch; see `ServeConfig.list_threads`."""
    if wanted:
        return wanted
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return 2 if workers == 1 and cpus > 1 else 1


def limit_threads(threads: int) -> None:
    """Limit torch, FAISS and BLAS, as far as they are loaded; 0 leaves them all.

    OpenMP keeps the number per calling thread, so the thread that does the work has to call this.
    """
    if threads == 0:
        return
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
    if "faiss" in sys.modules:
        import faiss
        from threadpoolctl import threadpool_limits

        faiss.omp_set_num_threads(threads)
        threadpool_limits(threads, "blas")
