"""Compilation of loops that would take many numpy calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(*fast_math: str) -> Callable[[Loop], Loop]:
    """Compile a function of numpy arrays on its first call.

    It releases the GIL, so the event loop is not blocked. The machine code is cached beside the source file,
    or else in the user's cache folder; where neither is writable, every process compiles. A cache entry is
    invalidated when its own file changes, not when another one does, so functions that call each other belong
    in one file.

    Args:
        *fast_math: LLVM's fast-math flags.

    """

    def decorate(function: Loop) -> Loop:
        def compile_it(cache: bool) -> Loop:
            options = njit(nogil=True, error_model="numpy", fastmath=set(fast_math), cache=cache)
            return cast(Loop, options(function))

        try:
            return compile_it(cache=True)
        except RuntimeError:  # numba has no folder to cache it in
            return compile_it(cache=False)

    return decorate
