"""Events recorded since a bundle's training, as input of its statistics, without user ids."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_PRECEDING: Final = 10
"""Preceding events sent with each event: the default co-occurrence window of training."""


class Interaction(NamedTuple):
    """An item and an event kind."""

    item_id: str
    kind: str


class RecordedEvent(NamedTuple):
    """One recorded event."""

    item_id: str
    kind: str
    time_us: int
    """Microseconds since 1970."""
    before: tuple[Interaction, ...]
    """The user's preceding events without impressions, newest first, at most `MAX_PRECEDING`."""


class CountResult(NamedTuple):
    """The result of counting a batch of recorded events."""

    counted: int
    unknown: int
    """Events of unknown items; deferred, and counted once the item is added."""
    behind: int
    """Items whose demand is still as of a previous day; counting any batch refreshes some of them."""
