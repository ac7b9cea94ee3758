"""Priorities of a model process's threads, and the number of CPU threads that their arithmetic uses.

On a busy machine the kernel schedules by priority: first the server process, which does little per call but
is on every call's path, then lists, then background work. The server's own threads share one priority: they
share the GIL, and its holder must not be preempted by another.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Final

LIST_NICENESS: Final = 5
"""Niceness of threads that make lists, relative to the server's."""
CHANGE_NICENESS: Final = 10
"""Niceness of the thread that prepares item changes, relative to the server's."""
_MAX_NICENESS: Final = 19


def prepare_thread(threads: int, niceness: int) -> None:
    """Set CPU threads and priority of the calling thread; call it once, before the thread's first work.

    Args:
        threads: CPU threads of its arithmetic; 0 takes all.
        niceness: relative to the process's; Linux only, as threads have none elsewhere.
    """
    limit_threads(threads)
    if sys.platform == "linux":
        thread = threading.get_native_id()
        current = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(current + niceness, _MAX_NICENESS))


def use_idle_cpus_only() -> None:
    """Run the calling thread, and those that it starts, only on otherwise idle CPUs (SCHED_IDLE).

    Such a thread is preempted as soon as another becomes runnable, so it must hold no lock that others need.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _MAX_NICENESS)
        with contextlib.suppress(OSError):  # where a sandbox forbids it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def list_threads(configured: int, workers: int) -> int:
    """Return how many threads share the lists of a batch; see `ServeConfig.list_threads`."""
    if configured:
        return configured
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return 2 if workers == 1 and cpus > 1 else 1


def limit_threads(threads: int) -> None:
    """Limit the threads of torch, FAISS and BLAS, where loaded; 0 sets no limit.

    OpenMP's limit applies per calling thread, so the working thread has to call this.
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
