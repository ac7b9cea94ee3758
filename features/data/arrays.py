"""Large arrays: read without blocking other threads, computed in blocks, with spare capacity for new rows."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

Number = TypeVar("Number", bound=np.generic)
Floats = npt.NDArray[np.float32]
_BLOCK_BYTES: Final = 1 << 22
"""Bytes read at a time: a few milliseconds, during which the GIL is held."""
_ROWS: Final = 1 << 12
"""Rows computed at a time: intermediate results stay in the cache, which more than halves the time."""
_NO_RESERVE: Final = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE, which Python's `mmap` lacks before 3.13."""


def empty_rows(shape: tuple[int, ...], dtype: npt.DTypeLike, room: int = 0) -> npt.NDArray[Any]:
    """Return uninitialised rows, [rows, ...], with memory reserved behind them for `room` more.

    Reserved memory is virtual: the operating system provides it when a row is written.
    """
    return np.empty((shape[0] + room, *shape[1:]), dtype=dtype)[: shape[0]]


def with_capacity(rows: npt.NDArray[Number], room: int) -> npt.NDArray[Number]:
    """Return rows with capacity for `room` more, [rows + room, ...]: a copy, unless they have it already."""
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


def map_rows(work: Callable[[Floats], Floats], rows: Floats, width: int, room: int = 0) -> Floats:
    """Apply a function to rows, in blocks.

    Args:
        work: maps rows [any, ...] to rows [any, width], each independently.
        rows: the input, [rows, ...].
        width: of the output.
        room: as of `empty_rows`.

    """
    made = empty_rows((len(rows), width), np.float32, room)
    for start in range(0, len(rows), _ROWS):
        made[start : start + _ROWS] = work(rows[start : start + _ROWS])
    return made


def _read_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the header of a `.npy` file; return shape and type of the array behind it.

    Raises:
        ValueError: not such a file, or not rows of numbers in C order.

    """
    form = np.lib.format
    first = form.read_magic(file) == (1, 0)
    read = form.read_array_header_1_0 if first else form.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if not shape or by_columns or dtype.hasobject:
        raise ValueError(f"{path}: not rows of numbers in C order")
    return shape, dtype


def load_rows(path: Path, room: int = 0) -> npt.NDArray[Any]:
    """Read a `.npy` file of rows, with capacity for `room` more, as of `empty_rows`.

    `numpy.load` would leave no capacity, so that a server would copy what it has just read.

    Raises:
        ValueError: not such a file, not in C order, or cut off.

    """
    with path.open("rb") as file:
        shape, dtype = _read_header(file, path)
        rows = empty_rows(shape, dtype, room)
        filled, buffer = 0, memoryview(rows.data).cast("B") if rows.size else memoryview(b"")
        while filled < len(buffer):
            got = file.readinto(buffer[filled : filled + _BLOCK_BYTES])
            if not got:
                raise ValueError(f"{path}: cut off")
            filled += got
    return rows


def mapped_rows(path: Path) -> npt.NDArray[Any]:
    """Map a `.npy` file of rows into memory: pages are read when they are used, and may be dropped again.

    What is written into the array stays in memory, and the file as it is. `numpy.load` maps with a
    reservation for such writes, which Linux refuses for a file larger than the memory of the machine.

    Raises:
        ValueError: not such a file, not in C order, or cut off.

    """
    with path.open("rb") as file:
        shape, dtype = _read_header(file, path)
        offset = file.tell()
        pages = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
    try:
        return np.ndarray(shape, dtype, pages, offset)
    except TypeError as error:
        raise ValueError(f"{path}: cut off") from error


def load_arrays(path: Path, room: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Read a safetensors file, name -> array; each with capacity for `room` more rows, as of `empty_rows`.

    `safetensors.numpy.load_file` holds the GIL for the whole file, so a server could answer no call while it
    loads its next model.
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
