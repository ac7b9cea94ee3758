"""Between the wire and the model: string ids and messages on one side, catalogue rows on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

import numpy as np

from ranking.types import History
from serving.api.validation import MAX_SESSION_EVENTS, event_kind, micros, optional_id
from serving.core.errors import invalid
from serving.core.event_kinds import DEFAULT_KIND, history_codes
from serving.model.interfaces import Model
from serving.state.contracts.user_state import MICROS, PastEvent
from shelfwise_client.v1 import recommendations_pb2 as pb

_DEGRADATIONS: Final = {
    "none": pb.DEGRADATION_NONE,
    "session_only": pb.DEGRADATION_SESSION_ONLY,
    "text_only": pb.DEGRADATION_TEXT_ONLY,
    "popularity": pb.DEGRADATION_POPULARITY,
}


@dataclass(frozen=True)
class SessionEvents:
    """The events of a session context that the model knows, oldest first."""

    items: list[str]
    kinds: list[str]
    times_us: list[int]
    unknown: list[str]
    """Item ids that the model does not know, each once."""


def session_events(session: pb.SessionContext, model: Model, now_us: int) -> SessionEvents:
    """Check and resolve the events of a session.

    Raises:
        ApiError: too many events, an empty or too long item id, a kind that no event can have, or an
            impossible time.
    """
    if len(session.events) > MAX_SESSION_EVENTS:
        raise invalid("session.events", f"{len(session.events)} events; send the latest {MAX_SESSION_EVENTS}")
    found = SessionEvents([], [], [], [])
    known = model.kinds
    unknown: dict[str, None] = {}
    for index, event in enumerate(session.events):
        path = f"session.events[{index}]"
        if not optional_id(f"{path}.item_id", event.item_id):
            raise invalid(f"{path}.item_id", "is empty")
        kind = event_kind(f"{path}.event", event.event, known) if event.event else DEFAULT_KIND
        time_us = micros(f"{path}.event_time", event.event_time) if event.HasField("event_time") else now_us
        if model.catalogue.row(event.item_id) is None:
            unknown[event.item_id] = None
            continue
        found.items.append(event.item_id)
        found.kinds.append(kind)
        found.times_us.append(time_us)
    found.unknown.extend(unknown)
    return found


def merge_history(
    model: Model, stored: Sequence[PastEvent], session: SessionEvents, now: int, limit: int
) -> tuple[History, int]:
    """Join stored and session events into one history of the items that the model knows.

    Events whose kinds mean nothing to it are left out, see `serving.core.event_kinds`.

    Args:
        model: gives rows and kind codes.
        stored: oldest first.
        session: oldest first; an event that is stored too (same item, kind and second) counts once.
        now: Unix seconds; no event counts as later than this, whatever the sender's clock said.
        limit: most events kept, the latest.

    Returns:
        The history, and how many of its events were stored ones.
    """
    codes = history_codes(model.kinds)
    rows = model.catalogue.find([event[0] for event in stored])
    events = [  # (second, row, kind code, 1 if stored)
        (second if (second := time_us // MICROS) < now else now, row, code, 1)
        for (_, kind, time_us), row in zip(stored, rows, strict=True)
        if row is not None and (code := codes.get(kind)) is not None
    ]
    told = {event[:3] for event in events} if session.items else set()
    for item_id, kind, time_us in zip(session.items, session.kinds, session.times_us, strict=True):
        row, second, code = model.catalogue.row(item_id), min(time_us // MICROS, now), codes.get(kind)
        if row is not None and code is not None and (second, row, code) not in told:
            events.append((second, row, code, 0))
    events.sort(key=itemgetter(0))  # ties keep their order, session last
    # Column by column: numpy takes twice as long to find out what a list of tuples is.
    seconds, items, kinds, used = zip(*events[-limit:], strict=True) if events else ((), (), (), ())
    history = History(
        items=np.array(items, np.int32), kinds=np.array(kinds, np.int8), times=np.array(seconds, np.int64)
    )
    return history, sum(used)


def degradation(answered: str, stored: int, history: int, available: bool) -> pb.Degradation:
    """Name the rung of the fallback ladder.

    Args:
        answered: what the recommender said; it sees one history and cannot tell stored from session events.
        stored: events of the history that came from the store.
        history: events of the history.
        available: whether the store could be read.
    """
    if not available:
        return pb.DEGRADATION_HISTORY_UNAVAILABLE
    if answered == "none" and not history:
        return pb.DEGRADATION_TEXT_ONLY
    if answered == "none" and not stored:
        return pb.DEGRADATION_SESSION_ONLY
    return _DEGRADATIONS[answered]
