"""Arrays with one row per item that grow without being copied."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from features.data.arrays import with_capacity
from features.data.dataset import IntArray, LongArray

Number = TypeVar("Number", bound=np.generic)


class GrowableArray(Generic[Number]):
    """Rows in one block of memory that later rows are appended to.

    Memory for the later rows is reserved, not used: the operating system provides it when a row is written. A
    view taken earlier stays valid, and sees rows that are overwritten.
    """

    def __init__(self, rows: npt.NDArray[Number], room: int) -> None:
        """Take over rows [count, ...] with reserved memory behind them; copy others."""
        self._block = with_capacity(rows, room)

    def view(self, size: int) -> npt.NDArray[Number]:
        """Return the first rows, [size, ...], without copying."""
        return self._block[:size]

    def put(self, rows: LongArray | IntArray, values: npt.ArrayLike) -> None:
        """Write rows; the caller keeps them within the reserved memory."""
        self._block[rows] = values
