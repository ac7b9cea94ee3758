"""Translation between wire messages with string ids and the model's catalogue rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

import numpy as np

from features.data.dataset import IntArray
from ranking.types import History
from serving.api.validation import MAX_SESSION_EVENTS, event_kind, micros, optional_id
from serving.core.errors import invalid
from serving.core.event_kinds import DEFAULT_KIND, history_codes
from serving.model.host import ModelHost
from serving.model.interfaces import Model
from serving.model.served import Served
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
    """The events of a session whose items the model knows, oldest first."""

    items: list[str]
    kinds: list[str]
    times_us: list[int]
    unknown: list[str]
    """Item ids that the model does not know, each once."""


def union(*rows: IntArray) -> IntArray:
    """Return the union of excluded rows, each once; mostly empty."""
    nonempty = [part for part in rows if len(part)]
    return np.unique(np.concatenate(nonempty)) if nonempty else rows[0]


def alive_mask(host: ModelHost, served: Served, rows: Sequence[int]) -> list[bool]:
    """Return the mask of rows whose items have not been deleted since the list was made, [rows].

    The host's model may have been replaced since; then rows are matched by item id.
    """
    newest = host.served
    catalogue = newest.model.catalogue
    if catalogue.hidden is None:
        return [True for _ in rows]
    if newest.same_model(served):
        return [row >= len(catalogue) or not catalogue.is_hidden(row) for row in rows]
    ids = served.model.catalogue.ids
    found = [catalogue.row(ids[row]) for row in rows]
    return [row is None or not catalogue.is_hidden(row) for row in found]


def session_events(session: pb.SessionContext, model: Model, now_us: int) -> SessionEvents:
    """Return the validated events of a session.

    Raises:
        ApiError: too many events, or an invalid item id, kind or time.
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
    """Merge stored and session events into one history of the items that the model knows.

    Kinds without a code are left out, see `serving.core.event_kinds`.

    Args:
        model: resolves item ids to rows and kinds to codes.
        stored: oldest first.
        session: oldest first; an event that is stored too (same item, kind and second) counts once.
        now: Unix seconds; later event times are clipped to it (clock skew of the sender).
        limit: length of the history; the latest events stay.

    Returns:
        The history, and how many of its events came from the state.
    """
    codes = history_codes(model.kinds)
    rows = model.catalogue.find([event[0] for event in stored])
    events = [  # (second, row, kind code, 1 if stored)
        (second if (second := time_us // MICROS) < now else now, row, code, 1)
        for (_, kind, time_us), row in zip(stored, rows, strict=True)
        if row is not None and (code := codes.get(kind)) is not None
    ]
    known = {event[:3] for event in events} if session.items else set()
    for item_id, kind, time_us in zip(session.items, session.kinds, session.times_us, strict=True):
        row, second, code = model.catalogue.row(item_id), min(time_us // MICROS, now), codes.get(kind)
        if row is not None and code is not None and (second, row, code) not in known:
            events.append((second, row, code, 0))
    events.sort(key=itemgetter(0))  # ties keep their order, session last
    # Column by column: numpy takes twice as long for a list of tuples.
    seconds, items, kinds, from_state = zip(*events[-limit:], strict=True) if events else ((), (), (), ())
    history = History(
        items=np.array(items, np.int32), kinds=np.array(kinds, np.int8), times=np.array(seconds, np.int64)
    )
    return history, sum(from_state)


def degradation(model_level: str, stored: int, history: int, available: bool) -> pb.Degradation:
    """Return the degradation level of a list.

    Args:
        model_level: the recommender's level, which does not distinguish stored from session events.
        stored: events of the history that came from the state.
        history: events of the history.
        available: whether the state could be read.
    """
    if not available:
        return pb.DEGRADATION_HISTORY_UNAVAILABLE
    if model_level == "candidates_unavailable":
        return pb.DEGRADATION_CANDIDATES_UNAVAILABLE
    if model_level == "none" and not history:
        return pb.DEGRADATION_TEXT_ONLY
    if model_level == "none" and not stored:
        return pb.DEGRADATION_SESSION_ONLY
    return _DEGRADATIONS[model_level]
