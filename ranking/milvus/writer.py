"""The thread that brings changed items to Milvus, in batches, in the order of the stream.

Every server writes every change. Writes are upserts and deletions by item id with the item's whole state, so
that it makes no difference how often one is repeated; a server that applies the stream later ends in the same
state. What Milvus does not take stays, and is tried again.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from ranking.milvus.collection import Collection, RefusedError
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
                if not len(self._pending) or self._failed or not self._collection.up:
                    self._pending.changed.wait(_POLL_SECONDS)
            if self._stop.is_set():
                return
            self._pending.settle()
            batch = self._pending.batch(BATCH)
            if not batch or not self._collection.up:
                continue
            try:
                self._write(batch)
            except Exception as error:  # whatever it is: without this thread no change would arrive
                known = isinstance(error, SearchUnavailableError)
                if not self._failed:
                    LOG.warning(
                        "%d changed items are not in Milvus yet: %s",
                        len(self._pending),
                        error,
                        exc_info=None if known else error,
                    )
                self._failed = True
                continue
            if self._failed:
                LOG.warning("changed items are written to Milvus again")
            self._failed = False

    def _write(self, batch: list[Write]) -> None:
        """Write a batch, deletions first; an item is in it once.

        If Milvus refuses one for what an item holds, it is divided until that item is found, so that no item
        keeps others waiting. An item that it does not even delete stays in memory, where its newest state is.

        Raises:
            SearchUnavailableError: Milvus did not take it; what it took before is confirmed.

        """
        gone = [write.item_id for write in batch if write.entity is None]
        entities = [{ITEM: write.item_id, **write.entity} for write in batch if write.entity is not None]
        try:
            if gone:
                self._collection.delete(gone)
            if entities:
                self._collection.upsert(entities)
        except RefusedError as error:
            if len(batch) > 1:
                half = len(batch) // 2
                self._write(batch[:half])
                self._write(batch[half:])
                return
            level = logging.DEBUG if self._pending.kept else logging.WARNING
            if entities:
                LOG.log(level, "Milvus does not take an item, which is searched in this process: %s", error)
                self._pending.refuse(batch[0])
            else:
                what = (
                    "an item, which this process leaves out"
                    if batch[0].storable
                    else "the former state of an item, whose newest one is searched in this process"
                )
                LOG.log(level, "Milvus does not delete %s: %s", what, error)
                self._pending.keep(batch[0])
            return
        self._pending.confirm(batch)
