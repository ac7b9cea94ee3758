"""How many CPU threads the arithmetic of a thread may use."""

from __future__ import annotations

import sys


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
