"""What shoppers have done since a bundle learnt, as a model is given it to count: without who did it."""

from __future__ import annotations

from typing import Final, NamedTuple

BEFORE: Final = 10
"""Preceding events that come with each event: as many as training takes for near each other by default."""


class Interaction(NamedTuple):
    """An item and what was done with it."""

    item_id: str
    kind: str


class RecordedEvent(NamedTuple):
    """One event that the service has stored."""

    item_id: str
    kind: str
    time_us: int
    """When it happened, microseconds since 1970."""
    before: tuple[Interaction, ...]
    """What the same shopper had done just before, newest first, at most `BEFORE`; impressions left out."""


class Counted(NamedTuple):
    """What became of a batch of recorded events."""

    counted: int
    unknown: int
    """Events of items that the model does not know yet; they are kept, and counted once it does."""
    behind: int
    """Items whose demand is still that of a former day; counting a batch, even an empty one, brings some of
    them up to date."""
