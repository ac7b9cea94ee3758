"""The thread that brings changed items to Milvus, in batches, in the order of the stream.

Every server writes every change. Writes are upserts and deletions by item id with the item's whole state, so
that it makes no difference how often one is repeated; a server that applies the stream later ends in the same
state. What Milvus does not take stays, and is tried again.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from ranking.milvus.collection import Collection
from ranking.milvus.fields import ITEM
from ranking.milvus.pending import Pending, Write
from ranking.retrieval.unavailable import SearchUnavailableError

LOG = logging.getLogger(__name__)
BATCH: Final = 500
"""Most items per write: about a megabyte."""
_POLL_SECONDS: Final = 0.5


class Writer:
    """Writes pending changes in the background."""

    def __init__(self, collection: Collection, pending: Pending) -> None:
        """Start the thread."""
        self._collection = collection
        self._pending = pending
        self._stop = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="milvus-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread after the write in progress."""
        with self._pending.changed:
            self._stop.set()
            self._pending.changed.notify_all()
        self._thread.join(self._collection.config.write_seconds + 1)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._pending.changed:
                if not len(self._pending) or self._failed:
                    self._pending.changed.wait(_POLL_SECONDS)
            if self._stop.is_set():
                return
            self._pending.settle()
            batch = self._pending.batch(BATCH)
            if batch and self._collection.up:
                self._write(batch)

    def _write(self, batch: list[Write]) -> None:
        """Write a batch, deletions first; an item is in it once."""
        gone = [write.item_id for write in batch if write.entity is None]
        entities = [{ITEM: write.item_id, **write.entity} for write in batch if write.entity is not None]
        try:
            if gone:
                self._collection.delete(gone)
            if entities:
                self._collection.upsert(entities)
        except SearchUnavailableError as error:
            if not self._failed:
                LOG.warning("%d changed items are not in Milvus yet: %s", len(self._pending), error)
            self._failed = True
            return
        if self._failed:
            LOG.warning("changed items are written to Milvus again")
        self._failed = False
        self._pending.confirm(batch)
