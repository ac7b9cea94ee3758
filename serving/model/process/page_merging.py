"""Kernel same-page merging for model processes: equal pages of two models take memory once, where that is on.

Two versions of a model differ in part of their arrays only, and workers hold the same one. The kernel
compares the pages of processes that ask for it, keeps equal ones once, and copies a page again when it is
written to (https://docs.kernel.org/admin-guide/mm/ksm.html). It does so only where an administrator has
switched it on; then it costs a thread of the kernel some CPU time.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_SET: Final = 67
"""PR_SET_MEMORY_MERGE of Linux 6.4 and later; earlier kernels refuse it, which changes nothing."""


def merge_equal_pages() -> bool:
    """Let the kernel merge this process's pages with equal ones of others; return whether it can."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_SET, 1, 0, 0, 0) == 0)
