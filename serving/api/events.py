"""RecordEvents: validation of event rows, and the response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from features.data import schema
from serving.api.attribution_tokens import AttributionTokens, ListOrigin
from serving.api.validation import MAX_ID_CHARS, micros
from serving.core.errors import ApiError
from serving.core.event_kinds import kind_fault
from serving.model.interfaces import Model
from serving.state.contracts.user_state import NO_EXPOSURE, Exposure, NewEvent, Outcome, content_id
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_LIST_POSITION: Final = 100_000


@dataclass(frozen=True)
class CheckedEvents:
    """The rows of one call, split into events and rejects."""

    events: list[NewEvent]
    indexes: list[int]
    """Position in the call of each of `events`."""
    rejects: list[pb.RowReject]


def check_events(
    rows: Sequence[pb.Event],
    models: Sequence[Model],
    now_us: int,
    max_future_seconds: float,
    stored_id: Callable[[str], str],
    tokens: AttributionTokens,
) -> CheckedEvents:
    """Split a call's rows into events to store and rejects.

    Args:
        rows: of the request.
        models: define the items; the first one, which is the current one, also the event kinds.
        now_us: server time, microseconds since 1970; the default of `event_time`.
        max_future_seconds: how far in the future an event may be (clock skew of the sender).
        stored_id: maps a user id to the id in the state.
        tokens: decodes attribution tokens.
    """
    checked = CheckedEvents([], [], [])
    latest_us = now_us + int(max_future_seconds * 1_000_000)
    kinds = models[0].kinds
    origins: dict[str, ListOrigin | None] = {}  # a page of impressions has one token
    for index, row in enumerate(rows):
        token = row.attribution_token
        if token not in origins:
            origins[token] = tokens.read(token) if token else None
        origin = origins[token]
        fault = _fault(row, models, kinds, latest_us, origin)
        if fault is not None:
            reason, message = fault
            checked.rejects.append(pb.RowReject(index=index, reason=reason, message=message))
            continue
        timed = row.HasField("event_time")
        time_us = micros("event_time", row.event_time) if timed else now_us
        time_ns = (
            row.event_time.seconds * 1_000_000_000 + row.event_time.nanos if timed else now_us * 1000 + index
        )
        exposure = _exposure(row, origin)
        if row.event_id:
            name = f"client:{row.event_id}"
        elif row.event == schema.IMPRESSION and origin is not None and not timed:
            # An item is shown once at each position of a list, however often the impression is sent.
            name = content_id(row.item_id, row.event, f"{origin.request_id}/{row.list_position}")
        else:
            name = content_id(row.item_id, row.event, time_ns)
        checked.events.append(
            NewEvent(stored_id(row.user_id), row.item_id, row.event, time_us, name, exposure)
        )
        checked.indexes.append(index)
    return checked


def respond(
    checked: CheckedEvents, outcomes: Sequence[Outcome], kinds: Sequence[str], request_id: str
) -> pb.RecordEventsResponse:
    """Build the response to a call.

    Args:
        checked: the rows.
        outcomes: of `checked.events`, in order.
        kinds: event kinds that the model knows.
        request_id: of the call.
    """
    rejects: list[pb.RowReject] = list(checked.rejects)
    for index, outcome in zip(checked.indexes, outcomes, strict=True):
        if outcome is Outcome.user_deleted:
            message = "the user was deleted after this event happened"
            rejects.append(pb.RowReject(index=index, reason=pb.RowReject.USER_DELETED, message=message))
    rejects.sort(key=lambda reject: reject.index)
    return pb.RecordEventsResponse(
        new_count=sum(outcome is Outcome.new for outcome in outcomes),
        duplicate_count=sum(outcome is Outcome.duplicate for outcome in outcomes),
        rejects=rejects,
        unknown_event_kinds=dict.fromkeys(
            event.kind for event in checked.events if event.kind not in (*kinds, schema.IMPRESSION)
        ),
        request_id=request_id,
    )


def _exposure(row: pb.Event, origin: ListOrigin | None) -> Exposure:
    """Return the exposure that an event belongs to, as far as its fields and its token say."""
    position = row.list_position or None
    if origin is None:
        return NO_EXPOSURE if position is None else Exposure(list_position=position)
    return Exposure(
        request_id=origin.request_id,
        list_position=position,
        surface=origin.surface or None,
        model_version=origin.model_version,
        device=origin.device or None,
        hour=origin.hour,
        propensity=None if position is None else origin.propensity(position),
        experiments=origin.experiments or None,
    )


def _fault(
    row: pb.Event, models: Sequence[Model], kinds: Sequence[str], latest_us: int, origin: ListOrigin | None
) -> tuple[pb.RowReject.Reason, str] | None:
    """Return why a row cannot be stored, or None."""
    if not row.user_id:
        return pb.RowReject.USER_ID, "user_id is empty"
    if len(row.user_id) > MAX_ID_CHARS:
        return pb.RowReject.USER_ID, f"user_id is longer than {MAX_ID_CHARS} characters"
    if not row.item_id:
        return pb.RowReject.ITEM_ID, "item_id is empty"
    if all(model.catalogue.row(row.item_id) is None for model in models):
        return pb.RowReject.ITEM_ID, f"item_id '{row.item_id[:64]}' is not in the catalogue"
    if unusable := kind_fault(row.event, kinds):
        return pb.RowReject.EVENT_KIND, unusable
    if len(row.event_id) > MAX_ID_CHARS:
        return pb.RowReject.EVENT_ID, f"event_id is longer than {MAX_ID_CHARS} characters"
    if row.attribution_token and origin is None:
        message = "attribution_token is not one of this service; send it unchanged, or leave it out"
        return pb.RowReject.ATTRIBUTION_TOKEN, message
    if not 0 <= row.list_position <= MAX_LIST_POSITION:
        message = f"list_position {row.list_position} is not between 1 and {MAX_LIST_POSITION:,}"
        return pb.RowReject.LIST_POSITION, message
    if row.HasField("event_time"):
        try:
            time_us = micros("event_time", row.event_time)
        except ApiError as problem:
            return pb.RowReject.EVENT_TIME, problem.message
        if time_us > latest_us:
            return pb.RowReject.EVENT_TIME, "event_time is in the future; check the sender's clock"
    return None
