"""Rows whose newest state Milvus has not confirmed yet, and the changes that bring it there.

Such rows are searched in the server's memory, and what Milvus returns for them is ignored: a change counts
in the next list, whether Milvus is fast, slow or away. Once Milvus has confirmed it, it answers for the row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from features.data.dataset import IntArray


@dataclass(frozen=True)
class Write:
    """The newest state of an item that Milvus has not confirmed."""

    item_id: str
    row: int
    entity: Mapping[str, Any] | None
    """Its fields; None deletes it."""
    storable: bool = True
    """Whether Milvus can hold it; otherwise it is deleted there and stays in memory."""


class Pending:
    """Changes by item, the last one of each; thread-safe."""

    def __init__(self, settle_seconds: float = 0.0) -> None:
        """Begin without changes.

        Args:
            settle_seconds: how long after its confirmation a write may be missing from searches.

        """
        self._settle = settle_seconds
        self._lock = threading.Lock()
        self._writes: dict[str, Write] = {}
        self._since: dict[str, float] = {}
        """Since when each item has such a change, in seconds of `time.monotonic`."""
        self._settling: list[tuple[float, list[Write]]] = []
        self._kept: dict[str, Write] = {}
        """Items that Milvus cannot hold, or does not delete."""
        self._rows: IntArray = np.zeros(0, dtype=np.int32)
        self.changed = threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._writes)

    def oldest_seconds(self) -> float:
        """Return the age of the oldest change; 0 without any."""
        with self._lock:
            return time.monotonic() - min(self._since.values()) if self._since else 0.0

    @property
    def kept(self) -> int:
        """Items that Milvus cannot hold or does not delete, whose newest state stays in memory."""
        return len(self._kept)

    @property
    def rows(self) -> IntArray:
        """Rows to search in memory, ascending; the array is never written to."""
        return self._rows

    def put(self, writes: Sequence[Write]) -> None:
        """Add changes; a later one of an item replaces an earlier one."""
        now = time.monotonic()
        with self.changed:
            for write in writes:
                self._since.setdefault(write.item_id, now)
                self._kept.pop(write.item_id, None)
                self._writes.pop(write.item_id, None)  # to the end, in the order of the stream
                self._writes[write.item_id] = write
            self._refresh()
            self.changed.notify_all()

    def batch(self, most: int) -> list[Write]:
        """Return the oldest changes, at most so many; they stay until `confirm`."""
        with self._lock:
            return [write for _, write in zip(range(most), self._writes.values(), strict=False)]

    def confirm(self, done: Sequence[Write], stored: bool = True) -> None:
        """Remove changes that Milvus has confirmed, unless a later one of the item has arrived.

        Args:
            done: the changes.
            stored: whether Milvus has them; else they stay in memory.

        """
        with self._lock:
            settled: list[Write] = []
            for write in done:
                if self._writes.get(write.item_id) is write:
                    del self._writes[write.item_id], self._since[write.item_id]
                    if stored and write.storable:
                        settled.append(write)
                    else:
                        self._kept[write.item_id] = write
            if self._settle and settled:
                self._settling.append((time.monotonic() + self._settle, settled))
            self._refresh()

    def refuse(self, write: Write) -> None:
        """Keep a change in memory that Milvus does not take, and have its former state deleted there."""
        with self._lock:
            if self._writes.get(write.item_id) is write:
                self._writes[write.item_id] = replace(write, entity=None, storable=False)

    def keep(self, write: Write) -> None:
        """Keep a change in memory that Milvus takes in no form, until the item changes again."""
        self.confirm([write], stored=False)

    def settle(self) -> None:
        """Let go of the confirmed changes that every search sees by now."""
        with self._lock:
            if self._settling and self._settling[0][0] <= time.monotonic():
                now = time.monotonic()
                self._settling = [entry for entry in self._settling if entry[0] > now]
                self._refresh()

    def _refresh(self) -> None:
        settling = (write for _, writes in self._settling for write in writes)
        rows = {write.row for write in (*self._writes.values(), *self._kept.values(), *settling)}
        self._rows = np.array(sorted(rows), dtype=np.int32)
