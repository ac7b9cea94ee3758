"""Large arrays: read while other threads go on, made piece by piece, with room for rows that come later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

Number = TypeVar("Number", bound=np.generic)
Floats = npt.NDArray[np.float32]
_BLOCK_BYTES: Final = 1 << 22
"""Read at a time: a few milliseconds, during which no other thread of Python runs."""
_ROWS: Final = 1 << 12
"""Made at a time: what is needed on the way stays in the cache, which takes less than half the time."""


def empty_rows(shape: tuple[int, ...], dtype: npt.DTypeLike, room: int = 0) -> npt.NDArray[Any]:
    """Return rows to be filled, [rows, ...], behind which memory for `room` more of them is reserved.

    Reserved memory is not used: the operating system provides it when a row is written.
    """
    return np.empty((shape[0] + room, *shape[1:]), dtype=dtype)[: shape[0]]


def whole_block(rows: npt.NDArray[Number], room: int) -> npt.NDArray[Number]:
    """Return rows and room behind them, [rows + room, ...]: a copy, unless they were made with it."""
    block = rows.base
    shape = (len(rows) + room, *rows.shape[1:])
    if (
        isinstance(block, np.ndarray)
        and (block.shape, block.dtype) == (shape, rows.dtype)
        and block.ctypes.data == rows.ctypes.data
    ):
        return block
    copy: npt.NDArray[Number] = np.empty(shape, dtype=rows.dtype)
    copy[: len(rows)] = rows
    return copy


def row_by_row(work: Callable[[Floats], Floats], rows: Floats, width: int, room: int = 0) -> Floats:
    """Make new rows of others, some at a time.

    Args:
        work: makes rows [any, width] of rows [any, ...], each by itself.
        rows: all of them.
        width: of what it makes.
        room: as of `empty_rows`.

    """
    made = empty_rows((len(rows), width), np.float32, room)
    for start in range(0, len(rows), _ROWS):
        made[start : start + _ROWS] = work(rows[start : start + _ROWS])
    return made


def load_arrays(path: Path, room: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Read a safetensors file, name -> array; each with room for more rows, as of `empty_rows`.

    `safetensors.numpy.load_file` holds the GIL for the whole file; a server that loads its next model would
    answer no call meanwhile.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            lazily = file.get_slice(name)
            shape = lazily.get_shape()
            if not shape or 0 in shape:
                arrays[name] = file.get_tensor(name)
                continue
            first = lazily[:1]
            whole = empty_rows(tuple(shape), first.dtype, room)
            step = max(_BLOCK_BYTES // first.nbytes, 1)
            for start in range(0, shape[0], step):
                stop = min(start + step, shape[0])
                whole[start:stop] = lazily[start:stop]
            arrays[name] = whole
    return arrays
