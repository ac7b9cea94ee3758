"""Compilation of loops that would take many numpy calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from numba import njit

from features.kernels.code_cache import CodeCache, use_stored_target

Loop = TypeVar("Loop", bound=Callable[..., Any])

LOOPS: Final[dict[str, Any]] = {}
"""Every compiled function of the imported modules, as `module.name` -> numba's dispatcher."""

use_stored_target()


def compiled(*fast_math: str) -> Callable[[Loop], Loop]:
    """Compile a function of numpy arrays on its first call.

    It releases the GIL, so the event loop is not blocked. The machine code is kept, see `code_cache`; where
    it cannot be, every process compiles. A cache entry is invalidated when its own file changes, not when
    another one does, so functions that call each other belong in one file.

    Args:
        *fast_math: LLVM's fast-math flags.

    """

    def decorate(function: Loop) -> Loop:
        dispatcher: Any = njit(nogil=True, error_model="numpy", fastmath=set(fast_math))(function)
        dispatcher._cache = CodeCache(function)
        LOOPS[f"{function.__module__}.{function.__qualname__}"] = dispatcher
        return cast(Loop, dispatcher)

    return decorate
