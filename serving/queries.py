"""What the Python clients send: frozen dataclasses instead of protocol buffer messages."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from serving.proto.shelfwise.v1 import recommendations_pb2 as pb


@dataclass(frozen=True)
class SessionEvent:
    """One thing that the shopper did in the running session."""

    item_id: str
    event: str = ""
    """Event kind; empty takes the model's usual one."""
    time: datetime | None = None

    def message(self) -> pb.SessionEvent:
        """Build the message."""
        return pb.SessionEvent(item_id=self.item_id, event=self.event, event_time=_timestamp(self.time))


@dataclass(frozen=True)
class RecommendQuery:
    """A question to Recommend; see RecommendRequest in the proto file for every field."""

    user_id: str = ""
    session: tuple[SessionEvent, ...] = ()
    """Oldest first."""
    intent: str = ""
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    exclude_item_ids: tuple[str, ...] = ()
    exclude_seen: bool | None = None
    diversity: float | None = None
    explain: bool = False
    surface: str = ""
    fields: tuple[str, ...] = ()
    """Fields of the items to return; empty for all."""
    request_time: datetime | None = None

    def message(self) -> pb.RecommendRequest:
        """Build the request."""
        request = pb.RecommendRequest(
            user_id=self.user_id,
            page_size=self.page_size,
            page_token=self.page_token,
            filter=self.filter,
            exclude_item_ids=self.exclude_item_ids,
            exclude_seen=self.exclude_seen,
            diversity=self.diversity,
            explain=self.explain,
            surface=self.surface,
            request_time=_timestamp(self.request_time),
        )
        request.read_mask.paths.extend(self.fields)
        if self.session or self.intent:
            request.session.intent = self.intent
            request.session.events.extend(event.message() for event in self.session)
        return request


@dataclass(frozen=True)
class SearchQuery:
    """A question to SearchItems; see SearchItemsRequest in the proto file for every field."""

    query: str
    user_id: str = ""
    session: tuple[SessionEvent, ...] = ()
    """Oldest first."""
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    exclude_item_ids: tuple[str, ...] = ()
    explain: bool = False
    fields: tuple[str, ...] = ()
    """Fields of the items to return; empty for all."""

    def message(self) -> pb.SearchItemsRequest:
        """Build the request."""
        request = pb.SearchItemsRequest(
            query=self.query,
            user_id=self.user_id,
            page_size=self.page_size,
            page_token=self.page_token,
            filter=self.filter,
            exclude_item_ids=self.exclude_item_ids,
            explain=self.explain,
        )
        request.read_mask.paths.extend(self.fields)
        if self.session:
            request.session.events.extend(event.message() for event in self.session)
        return request


@dataclass(frozen=True)
class SimilarQuery:
    """A question to SimilarItems: set `item_id` or `text`."""

    item_id: str = ""
    text: str = ""
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    exclude_item_ids: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def message(self) -> pb.SimilarItemsRequest:
        """Build the request."""
        request = pb.SimilarItemsRequest(
            item_id=self.item_id or None,
            page_size=self.page_size,
            page_token=self.page_token,
            filter=self.filter,
            exclude_item_ids=self.exclude_item_ids,
        )
        if self.text:
            request.text = self.text
        request.read_mask.paths.extend(self.fields)
        return request


@dataclass(frozen=True)
class Event:
    """One thing that a shopper did."""

    user_id: str
    item_id: str
    event: str
    time: datetime | None = None
    """Null: the server's clock."""
    event_id: str = ""
    """Empty: a random one, made before the first attempt, so that a retried call stores the event once."""

    def message(self) -> pb.Event:
        """Build the message."""
        return pb.Event(
            user_id=self.user_id,
            item_id=self.item_id,
            event=self.event,
            event_time=_timestamp(self.time),
            event_id=self.event_id or uuid.uuid4().hex,
        )


@dataclass(frozen=True)
class Item:
    """One item of the catalogue as it shall be."""

    item_id: str
    attributes: Mapping[str, Any]
    """Everything known about it: text, numbers, bools, None, and lists of text or numbers."""

    def message(self) -> pb.Item:
        """Build the message."""
        item = pb.Item(item_id=self.item_id)
        item.attributes.update(dict(self.attributes))
        return item


def _timestamp(moment: datetime | None) -> Timestamp | None:
    """Convert a time; one without zone is UTC."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
