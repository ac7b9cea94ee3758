"""A part of the map: which items lie in it, and which of them are drawn."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from explorer.problems import PageError
from features.data.dataset import BoolArray, FloatArray, IntArray

MOST: Final = 100_000
"""Points drawn at a time; of more items in a window, an even sample is."""
NARROWEST: Final = 0.005
"""Least width: the 16 bits of a coordinate are fine enough for it."""


@dataclass(frozen=True)
class Window:
    """A square part of the map."""

    x: float = 0.5
    """Of its centre, 0 to 1."""
    y: float = 0.5
    width: float = 1.0
    """Of its sides; 1 is the whole map."""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Window:
        """Read the query parameters `x`, `y` and `w`.

        Raises:
            PageError: a value that is no number of the map.

        """
        found = []
        for name, usual, low in (("x", 0.5, 0.0), ("y", 0.5, 0.0), ("w", 1.0, NARROWEST)):
            text = values.get(name, "").strip()
            try:
                value = float(text) if text else usual
            except ValueError:
                value = -1.0
            if not low <= value <= 1.0:
                raise PageError(
                    400, "This address has a wrong value", f"{name}: “{text[:80]}” is not from {low:g} to 1."
                )
            found.append(value)
        return cls(*found)

    def moved(self, right: float = 0.0, down: float = 0.0, zoom: float = 1.0) -> Window:
        """Return another window, within the map.

        Args:
            right: by how many widths to move.
            down: likewise.
            zoom: factor of the width; below 1 shows less.

        """
        width = min(max(self.width * zoom, NARROWEST), 1.0)
        half = width / 2
        x = min(max(self.x + right * self.width, half), 1 - half)
        y = min(max(self.y + down * self.width, half), 1 - half)
        return Window(round(x, 5), round(y, 5), round(width, 5))

    def inside(self, positions: FloatArray) -> BoolArray:
        """Return which positions [items, 2] lie in it, [items]."""
        half = self.width / 2
        found: BoolArray = (np.abs(positions[:, 0] - self.x) <= half) & (
            np.abs(positions[:, 1] - self.y) <= half
        )
        return found


def sample(rows: IntArray, most: int = MOST) -> IntArray:
    """Return at most so many rows, in order: always the same ones, and those of a part are among them.

    Rows are drawn by a hash, so that an item that is drawn stays when the window gets smaller.
    """
    if len(rows) <= most:
        return rows
    hashed = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    chosen = np.argpartition(hashed, most)[:most]
    return np.sort(rows[chosen])


def packed(rows: IntArray, positions: FloatArray, codes: np.ndarray, total: int) -> bytes:
    """Return points in bytes: their number and the number of items in the window, then the columns.

    Little-endian: two uint32; rows uint32; x and y uint16, 65,535 for 1; codes uint8.
    """
    scaled = np.round(positions[rows] * 65_535).astype("<u2")
    return b"".join(
        [
            struct.pack("<II", len(rows), total), rows.astype("<u4").tobytes(), scaled[:, 0].tobytes(),
            scaled[:, 1].tobytes(), codes[rows].astype(np.uint8).tobytes(),
        ]
    )  # fmt: skip
