"""Threads beside the event loop's: how many CPU threads their arithmetic may use, and who goes first.

Where there are fewer CPUs than work, the kernel shares them out by priority. The event loop has little to do
for a call, and nothing goes on while it waits; lists come next; what nobody waits for comes last.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

LISTS: Final = 5
"""Steps of niceness of the threads that make lists, beyond the event loop's."""
CHANGES: Final = 10
"""Of the one that works out changes of items."""
LOADING: Final = 19
"""Of the one that loads the next model: the lowest priority there is."""


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
        os.setpriority(os.PRIO_PROCESS, thread, min(usual + niceness, LOADING))


class OneThread(ThreadPoolExecutor):
    """An executor of one prepared thread that tells whether it has anything to do."""

    def __init__(self, name: str, threads: int, niceness: int) -> None:
        """Prepare the thread; see `prepare_thread`."""
        super().__init__(1, name, prepare_thread, (threads, niceness))
        self._unfinished: set[Future[Any]] = set()

    @property
    def busy(self) -> bool:
        """Whether something is being done, or waits for that."""
        return bool(self._unfinished)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
        """Have something done; see `Executor.submit`."""
        future: Future[Any] = super().submit(fn, *args, **kwargs)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future


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
