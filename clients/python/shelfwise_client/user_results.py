"""What ExportUser returns, as a dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from shelfwise_client.v1 import recommendations_pb2 as pb


@dataclass(frozen=True)
class StoredEvent:
    """One event of a user, as it is stored."""

    item_id: str
    event: str
    event_time: datetime
    event_id: str
    imported: bool
    """Whether it came from the histories of training, not from RecordEvents."""
    request_id: str
    """The list in which the user saw the item; empty where unknown, as in the fields below."""
    list_position: int
    surface: str
    model_version: str
    device: str
    hour: int | None
    propensity: float | None
    experiments: str
    """The arms of experiments that made the list, `name=arm` joined by `;`."""

    @classmethod
    def of(cls, message: pb.StoredEvent) -> StoredEvent:
        """Read a message."""
        return cls(
            message.item_id,
            message.event,
            message.event_time.ToDatetime(tzinfo=UTC),
            message.event_id,
            message.imported,
            message.request_id,
            message.list_position,
            message.surface,
            message.model_version,
            message.device,
            message.hour if message.HasField("hour") else None,
            message.propensity if message.HasField("propensity") else None,
            message.experiments,
        )
