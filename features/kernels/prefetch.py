"""Prefetching for compiled loops that know which memory they will read next.

Rows of tables much larger than any cache are read in an order that the processor cannot predict, and the
latency of each would exceed the arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 16
"""Numbers of four bytes per cache line."""
_READ, _KEEP, _DATA = 0, 3, 1


def _fetch(typing: Any, table: Any, row: Any, column: Any) -> Any:  # noqa: ANN401
    """Prefetch the cache line of a matrix element.

    Callers are cached with their own files: a change here does not invalidate them.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        matrix = context.make_array(table)(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, table, matrix, arguments[1:])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        hint = [number(_READ), number(_KEEP), number(_DATA)]
        builder.call(prefetch, [builder.bitcast(pointer, byte), *hint])
        return context.get_dummy_value()

    return types.void(table, types.intp, types.intp), generate


fetch = cast(Callable[[npt.NDArray[Any], int, int], None], intrinsic(_fetch))
"""Called by compiled functions with a matrix, row and column; see `_fetch`."""
