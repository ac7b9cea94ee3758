"""Items of earlier pages: the hashes of their ids in page tokens, and their catalogue rows."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from features.data.dataset import IntArray
from ranking.catalogue.live_catalogue import LiveCatalogue

HashArray = npt.NDArray[np.uint32]
"""[items] hashes of item ids, four bytes each."""


def id_hash(item_id: str) -> int:
    """Return the four-byte hash of an item in page tokens."""
    return zlib.crc32(item_id.encode())


class ShownItems:
    """Index of catalogue rows by hashed id; built once per model, and extended with each later state."""

    def __init__(self, catalogue: LiveCatalogue) -> None:
        """Hash every id, [items]."""
        count = len(catalogue)
        hashes = np.fromiter((id_hash(i) for i in catalogue.ids[:count]), dtype=np.uint32, count=count)
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._sorted = hashes[self._order]
        self._count = count
        self._added: dict[int, list[int]] = {}

    def extend(self, catalogue: LiveCatalogue) -> None:
        """Add the items of a later state."""
        for row in range(self._count, len(catalogue)):
            self._added.setdefault(id_hash(catalogue.ids[row]), []).append(row)
        self._count = max(self._count, len(catalogue))

    def rows(self, hashes: HashArray) -> IntArray:
        """Return the rows of all items with one of the hashes."""
        first = np.searchsorted(self._sorted, hashes, side="left")
        last = np.searchsorted(self._sorted, hashes, side="right")
        found = [self._order[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True) if b > a]
        added = [row for value in hashes.tolist() for row in self._added.get(value, ())]
        return np.concatenate([*found, np.array(added, dtype=np.int32)])
