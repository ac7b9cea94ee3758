"""The items of a catalogue in the order of their ids, for listings with a cursor."""

from __future__ import annotations

import threading
from bisect import bisect_right
from heapq import merge
from itertools import islice

import numpy as np

from features.data import schema
from features.data.dataset import BoolArray, IntArray
from ranking.catalogue.live_catalogue import LiveCatalogue


class ItemOrder:
    """One model's items by the UTF-8 bytes of their ids; thread-safe.

    The bundle's items are sorted at the first request, added ones whenever there are more.
    """

    def __init__(self) -> None:
        """Start unsorted."""
        self._base: IntArray | None = None
        self._added: list[tuple[bytes, int]] = []
        self._size = 0
        self._lock = threading.Lock()

    def after(
        self, catalogue: LiveCatalogue, item_id: str, count: int, allowed: BoolArray | None
    ) -> list[int]:
        """Return the rows of the next items after an id, in order.

        Args:
            catalogue: a state of the model's items; deleted ones are left out.
            item_id: the cursor, an item id or any other text; empty starts at the first item.
            count: most rows.
            allowed: [items] mask of rows that may be returned; None allows all.

        """
        base, added = self._sorted(catalogue)
        ids, cursor = catalogue.ids, item_id.encode()
        shown = np.ones(catalogue.size, dtype=np.bool_) if allowed is None else allowed
        if catalogue.hidden is not None:
            shown = shown & ~catalogue.hidden
        begin = bisect_right(base, cursor, key=lambda row: ids[row].encode()) if cursor else 0
        first = base[begin:][shown[base[begin:]]][:count].tolist()
        begin = bisect_right(added, cursor, key=lambda entry: entry[0])
        later = (entry for entry in added[begin:] if entry[1] < catalogue.size and shown[entry[1]])
        return [row for _, row in islice(merge(((ids[row].encode(), row) for row in first), later), count)]

    def _sorted(self, catalogue: LiveCatalogue) -> tuple[IntArray, list[tuple[bytes, int]]]:
        """Return the bundle's rows in order, and ids and rows of all added items in order."""
        with self._lock:
            if self._base is None:
                ids = catalogue.base.frame[schema.ITEM_ID].cast(str)
                self._base = ids.arg_sort().to_numpy().astype(np.int32)
                self._size = len(catalogue.base)
            if self._size < catalogue.size:
                new = range(self._size, catalogue.size)
                self._added = sorted([*self._added, *((catalogue.ids[row].encode(), row) for row in new)])
                self._size = catalogue.size
            return self._base, self._added
