"""Shoppers and their histories, as the last training had them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from conf.errors import InputError
from features.data import schema
from features.data.dataset import Catalogue, LongArray
from ranking.types import History
from serving.core.event_kinds import history_codes

MAX_HISTORY: Final = 500
"""Most recent events of a history that lists are made from, as a server's default `max_history`."""
_COLUMNS: Final = {
    schema.USER_ID: pl.String, schema.ITEM_ID: pl.String, schema.EVENT: pl.String,
    schema.TIMESTAMP: pl.Int64, schema.ORDER: pl.Int64,
}  # fmt: skip


class Like(Enum):
    """A sort of shopper to draw one from."""

    random = "random"
    """Anybody with an event."""
    new = "new"
    """Of the tenth with the fewest events."""
    loyal = "loyal"
    """Of the tenth with the most events."""
    cold = "cold"
    """A visitor without any event."""


@dataclass(frozen=True)
class PastEvent:
    """One event of a history."""

    row: int
    """Of the catalogue; -1 for an item that it no longer has."""
    item_id: str
    kind: str
    time: int
    """Unix seconds."""


class Shoppers:
    """The stored histories; users are in order of their ids."""

    def __init__(self, frame: pl.DataFrame, catalogue: Catalogue, kinds: Sequence[str]) -> None:
        """Sort a table of events by user and time.

        Args:
            frame: as `histories.parquet`.
            catalogue: resolves item ids.
            kinds: event kinds of the model, strongest first.

        """
        self._frame = frame.sort(schema.USER_ID, schema.TIMESTAMP, schema.ORDER, maintain_order=True)
        users = self._frame[schema.USER_ID]
        counts = users.rle().struct.unnest()
        self.ids: list[str] = counts["value"].to_list()
        """Ids of all shoppers with an event, in order."""
        self.counts: LongArray = counts["len"].to_numpy().astype(np.int64)
        """[users] events of each."""
        self._offsets = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        self._catalogue = catalogue
        self._codes = history_codes(kinds)
        last = self._frame[schema.TIMESTAMP].max()
        self.last_time: int = 0 if last is None else int(str(last))
        """Unix seconds of the last event; 0 without one."""

    def __len__(self) -> int:
        return len(self.ids)

    def position(self, user: str) -> int | None:
        """Return the place of a shopper in `ids`; None for an unknown one."""
        place = bisect_left(self.ids, user)
        return place if place < len(self.ids) and self.ids[place] == user else None

    def beginning_with(self, prefix: str, limit: int = 20) -> list[str]:
        """Return ids that begin with a text, in order."""
        place = bisect_left(self.ids, prefix)
        found = self.ids[place : place + limit]
        return [user for user in found if user.startswith(prefix)]

    def events(self, user: str) -> list[PastEvent]:
        """Return a shopper's events, oldest first; none for an unknown one."""
        place = self.position(user)
        if place is None:
            return []
        part = self._frame[int(self._offsets[place]) : int(self._offsets[place + 1])]
        columns = (part[schema.ITEM_ID], part[schema.EVENT], part[schema.TIMESTAMP])
        rows = self._catalogue.find(columns[0].to_list())
        return [
            PastEvent(-1 if row is None else row, item, kind, time)
            for row, item, kind, time in zip(rows, *(c.to_list() for c in columns), strict=True)
        ]

    def history(self, user: str, limit: int = MAX_HISTORY) -> History:
        """Return the history that a list is made from: the latest events of items and kinds of the model."""
        known = [e for e in self.events(user) if e.row >= 0 and e.kind in self._codes][-limit:]
        return History(
            np.array([e.row for e in known], dtype=np.int32),
            np.array([self._codes[e.kind] for e in known], dtype=np.int8),
            np.array([e.time for e in known], dtype=np.int64),
        )

    def draw(self, like: Like, seed: int) -> str | None:
        """Return a shopper of a sort; None for a visitor without events, and where there are no shoppers.

        Args:
            like: the sort.
            seed: the same one draws the same shopper from the same store.

        """
        if like is Like.cold or not self.ids:
            return None
        pool = np.arange(len(self.ids))
        if like is Like.new:
            pool = np.flatnonzero(self.counts <= np.quantile(self.counts, 0.1))
        elif like is Like.loyal:
            pool = np.flatnonzero(self.counts >= np.quantile(self.counts, 0.9))
        return self.ids[int(np.random.default_rng(seed).choice(pool))]


def read_shoppers(file: Path, catalogue: Catalogue, kinds: Sequence[str]) -> Shoppers:
    """Read a store's histories; a store without them has no shoppers.

    Raises:
        InputError: the file is damaged.

    """
    if not file.is_file():
        return Shoppers(pl.DataFrame(schema=_COLUMNS), catalogue, kinds)
    try:
        frame = pl.read_parquet(file)
        return Shoppers(frame.select(list(_COLUMNS)), catalogue, kinds)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{file}: cannot be read ({error}); publish again") from error
