"""ExportUser: a user's stored events as messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from serving.core.call_context import annotate_audit
from serving.state.contracts.user_state import StoredEvent, UserState, log_name
from serving.state.everything import everything_of
from shelfwise_client.v1 import recommendations_pb2 as pb

_CLIENT_ID: Final = "client:"
"""Prefix of the ids of events that were sent with one."""
_MESSAGE_BYTES: Final = 262_144
"""Largest sum of the sizes of a message's events."""


async def export_user(
    state: UserState, histories: Path, user_id: str, request_id: str, max_bytes: int
) -> AsyncIterator[pb.ExportUserResponse]:
    """Yield everything that is stored of a user; one message without events where nothing is.

    Args:
        state: the store.
        histories: file of training histories; it may be missing.
        user_id: as stored.
        request_id: of the call.
        max_bytes: the largest message that the server sends.
    """
    annotate_audit(user=log_name(user_id))
    limit = min(_MESSAGE_BYTES, max_bytes // 2)
    sent = size = 0
    response = pb.ExportUserResponse(request_id=request_id)
    async for events in everything_of(state, histories, user_id):
        for event in events:
            message = _message(event)
            if size + message.ByteSize() > limit and response.events:
                yield response
                response, size = pb.ExportUserResponse(request_id=request_id), 0
            response.events.append(message)
            size += message.ByteSize()
            sent += 1
            annotate_audit(exported_events=sent)
    yield response


def _message(event: StoredEvent) -> pb.StoredEvent:
    shown = event.exposure
    message = pb.StoredEvent(
        item_id=event.item_id,
        event=event.kind,
        event_id=event.event_id.removeprefix(_CLIENT_ID),
        imported=not event.recorded,
        request_id=shown.request_id or "",
        list_position=shown.list_position or 0,
        surface=shown.surface or "",
        model_version=shown.model_version or "",
        device=shown.device or "",
        hour=shown.hour,
        propensity=shown.propensity,
        experiments=shown.experiments or "",
    )
    message.event_time.FromMicroseconds(event.time_us)
    return message
