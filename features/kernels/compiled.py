"""How loops are compiled that numpy would need many calls for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(*liberties: str) -> Callable[[Loop], Loop]:
    """Compile a function that numpy arrays are given to, when it is first called.

    It lets go of the interpreter's lock, so the event loop goes on. The machine code is kept beside the
    source file, or else in the user's cache folder; where neither can be written to, every process compiles.
    What is kept is thrown away when the file changes, not when another one does: functions that call each
    other stand in one file.

    Args:
        *liberties: that may be taken with floating point, by LLVM's names. They are the same for all rows.

    """

    def decorate(function: Loop) -> Loop:
        def compile_it(keep: bool) -> Loop:
            options = njit(nogil=True, error_model="numpy", fastmath=set(liberties), cache=keep)
            return cast(Loop, options(function))

        try:
            return compile_it(keep=True)
        except RuntimeError:  # numba's word for no folder to keep it in
            return compile_it(keep=False)

    return decorate
