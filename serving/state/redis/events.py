"""Format of events in Redis: JSON that sorts by arrival, which the scripts in `lua/` parse, too.

`["<rank>", item, kind, event id, time, request id, list position, ...]`: the rank has a fixed length and is
first, because the sorted set of a user's events orders members with equal times as text. Imported events have
the running number of their id instead of the id; its other parts are in the event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Final

from ranking.live.recorded_events import Interaction, RecordedEvent
from serving.state.contracts.user_state import (
    IMPORTED,
    MICROS,
    NO_EXPOSURE,
    Exposure,
    FeedPage,
    NewEvent,
    PastEvent,
    StoredEvent,
)

_SEPARATOR: Final = "\x1f"
"""Between the parts of an imported event's id; see `serving.state.histories_reader.Histories.events`."""
_LOWEST: Final = -(2**63)
_PLAIN: Final = 5
"""Elements of an event without exposure."""


def pack_new(event: NewEvent) -> str:
    """Return a recorded event without its rank, which the script prepends."""
    parts: list[object] = [event.item_id, event.kind, event.event_id, event.time_us]
    if event.exposure != NO_EXPOSURE:
        parts += astuple(event.exposure)
    return _json(parts)[1:]


def pack_imported(item_id: str, kind: str, event_id: str, time_us: int, position: int) -> str:
    """Return an imported event; its rank is before those of recorded ones."""
    number = int(event_id.rpartition(_SEPARATOR)[2])
    return _json([f"0{position - _LOWEST:022d}", item_id, kind, number, time_us])


def merge(interactions: bytes, impressions: bytes, limit: int) -> list[PastEvent]:
    """Return the latest events of two packed lists, oldest first."""
    events = json.loads(interactions)
    shown = json.loads(impressions)
    if shown:
        events = sorted(events + shown, key=_by_time, reverse=True)[:limit]
    return [PastEvent(item, kind, time_us) for _, item, kind, _, time_us, *_ in reversed(events)]


def unpack(user_id: str, packed: Sequence[bytes]) -> list[StoredEvent]:
    """Return a user's packed events in order of time."""
    events = sorted((json.loads(event) for event in packed), key=_by_time)
    return [
        StoredEvent(
            user_id,
            event[1],
            event[2],
            event[4],
            _event_id(event),
            Exposure(*event[_PLAIN:]) if event[_PLAIN:] else NO_EXPOSURE,
        )
        for event in events
    ]


def unpack_feed(packed: Sequence[bytes], position: int, after_us: int) -> FeedPage:
    """Return the events of a page of the feed that happened after a time.

    Args:
        packed: `[arrival, [item, kind], time, [item, kind, ...]]` each; last are the preceding interactions.
        position: cursor of the page before.
        after_us: the time, microseconds since 1970.
    """
    events = []
    for arrival, (item, kind), time_us, before in map(json.loads, packed):
        position = arrival
        if time_us > after_us:
            earlier = tuple(map(Interaction, before[::2], before[1::2]))
            events.append(RecordedEvent(item, kind, time_us, earlier))
    return FeedPage(events, position)


def _by_time(event: list[Any]) -> tuple[int, str]:
    return event[4], event[0]


def _event_id(event: list[Any]) -> str:
    _, item, kind, name, time_us, *_ = event
    if isinstance(name, str):
        return name
    return f"{IMPORTED}{_SEPARATOR.join((item, kind, str(time_us // MICROS), str(name)))}"


def _json(parts: list[object]) -> str:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
