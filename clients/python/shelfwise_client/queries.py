"""Requests of the clients as frozen dataclasses with keyword defaults."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from shelfwise_client.v1 import recommendations_pb2 as pb


@dataclass(frozen=True)
class SessionEvent:
    """One thing that the shopper did in the running session."""

    item_id: str
    event: str = ""
    """Event kind; empty is a view."""
    time: datetime | None = None

    def message(self) -> pb.SessionEvent:
        """Build the message."""
        return pb.SessionEvent(item_id=self.item_id, event=self.event, event_time=_timestamp(self.time))


@dataclass(frozen=True)
class Boost:
    """Items to move up or down."""

    filter: str
    strength: float
    """-1 (behind all others) to 1 (before all others)."""


@dataclass(frozen=True)
class ListRules:
    """The shop's own rules for a list; see ListRules in the proto file."""

    caps: Mapping[str, int] = field(default_factory=dict)
    """Attribute -> maximum of items with the same value."""
    pins: Mapping[str, int] = field(default_factory=dict)
    """Item id -> its place, from 1."""
    boosts: tuple[Boost, ...] = ()
    exploration: float = 0.0
    """Share of the places for items of which little is known."""
    exploration_seed: int | None = None

    def message(self) -> pb.ListRules:
        """Build the message."""
        rules = pb.ListRules(
            caps=[pb.AttributeCap(attribute=name, max_items=most) for name, most in self.caps.items()],
            pins=[pb.Pin(item_id=item, position=position) for item, position in self.pins.items()],
            boosts=[pb.Boost(filter=boost.filter, strength=boost.strength) for boost in self.boosts],
        )
        if self.exploration:
            rules.exploration.share = self.exploration
            if self.exploration_seed is not None:
                rules.exploration.seed = self.exploration_seed
        return rules


@dataclass(frozen=True)
class RecommendQuery:
    """Parameters of Recommend; see RecommendRequest in the proto file for every field."""

    user_id: str = ""
    session: tuple[SessionEvent, ...] = ()
    """Oldest first."""
    intent: str = ""
    device: str = ""
    """What the shopper uses, for example `phone`; for training, as is `hour`."""
    hour: int | None = None
    """The shopper's hour of the day, 0 to 23."""
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    exclude_item_ids: tuple[str, ...] = ()
    exclude_seen: bool | None = None
    diversity: float | None = None
    novelty: float | None = None
    explain: bool = False
    surface: str = ""
    fields: tuple[str, ...] = ()
    """Fields of the items to return; empty for all."""
    request_time: datetime | None = None
    rules: ListRules | None = None
    session_id: str = ""
    """The shop's name for the visit; decides on the arm in experiments with the unit `session`."""

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
            novelty=self.novelty,
            explain=self.explain,
            surface=self.surface,
            request_time=_timestamp(self.request_time),
            rules=None if self.rules is None else self.rules.message(),
        )
        request.read_mask.paths.extend(self.fields)
        if self.session or self.intent or self.device or self.hour is not None or self.session_id:
            session = _session(self.session, self.device, self.hour, self.session_id)
            session.intent = self.intent
            request.session.CopyFrom(session)
        return request


@dataclass(frozen=True)
class BatchQuery:
    """Parameters of BatchRecommend; see BatchRecommendRequest in the proto file for every field."""

    user_ids: tuple[str, ...] | None = None
    """None: every user with a stored event."""
    list_size: int = 0
    filter: str = ""
    exclude_item_ids: tuple[str, ...] = ()
    exclude_seen: bool | None = None
    diversity: float | None = None
    novelty: float | None = None
    explain: bool = False
    surface: str = ""
    fields: tuple[str, ...] = ()
    """Fields of the items to return; empty for all."""
    rules: ListRules | None = None
    request_time: datetime | None = None
    resume_token: str = ""
    max_users: int = 0

    def message(self) -> pb.BatchRecommendRequest:
        """Build the request."""
        request = pb.BatchRecommendRequest(
            list_size=self.list_size,
            filter=self.filter,
            exclude_item_ids=self.exclude_item_ids,
            exclude_seen=self.exclude_seen,
            diversity=self.diversity,
            novelty=self.novelty,
            explain=self.explain,
            surface=self.surface,
            rules=None if self.rules is None else self.rules.message(),
            request_time=_timestamp(self.request_time),
            resume_token=self.resume_token,
            max_users=self.max_users,
        )
        request.read_mask.paths.extend(self.fields)
        if self.user_ids is None:
            request.all_users = True
        else:
            request.user_list.SetInParent()
            request.user_list.user_ids.extend(self.user_ids)
        return request


@dataclass(frozen=True)
class SearchQuery:
    """Parameters of SearchItems; see SearchItemsRequest in the proto file for every field."""

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
    surface: str = ""
    device: str = ""
    hour: int | None = None
    session_id: str = ""
    """As of RecommendQuery."""

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
            surface=self.surface,
        )
        request.read_mask.paths.extend(self.fields)
        if self.session or self.device or self.hour is not None or self.session_id:
            request.session.CopyFrom(_session(self.session, self.device, self.hour, self.session_id))
        return request


@dataclass(frozen=True)
class SimilarQuery:
    """Parameters of SimilarItems: set `item_id` or `text`."""

    item_id: str = ""
    text: str = ""
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    exclude_item_ids: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    surface: str = ""

    def message(self) -> pb.SimilarItemsRequest:
        """Build the request."""
        request = pb.SimilarItemsRequest(
            item_id=self.item_id or None,
            page_size=self.page_size,
            page_token=self.page_token,
            filter=self.filter,
            exclude_item_ids=self.exclude_item_ids,
            surface=self.surface,
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
    """None: the server's clock."""
    event_id: str = ""
    """Empty: a random one, made before the first attempt, so that a retried call stores the event once."""
    attribution_token: str = ""
    """Of the list in which the shopper saw the item."""
    list_position: int = 0
    """The item's `list_position` in that list; 0 where it is not known."""

    def message(self) -> pb.Event:
        """Build the message."""
        return pb.Event(
            user_id=self.user_id,
            item_id=self.item_id,
            event=self.event,
            event_time=_timestamp(self.time),
            event_id=self.event_id or uuid.uuid4().hex,
            attribution_token=self.attribution_token,
            list_position=self.list_position,
        )


@dataclass(frozen=True)
class Item:
    """An item of the catalogue to store, with all its attributes."""

    item_id: str
    attributes: Mapping[str, Any]
    """Everything known about it: text, numbers, bools, None, and lists of text or numbers."""

    def message(self) -> pb.Item:
        """Build the message.

        Raises:
            ValueError: `attributes` is not a mapping, or a name or a value has another type than these.
        """
        item = pb.Item(item_id=self.item_id)
        if not isinstance(self.attributes, Mapping):
            raise ValueError(
                f"attributes of item {self.item_id!r} must be a mapping such as {{'title': 'Tea cup'}}, "
                f"not {type(self.attributes).__name__}"
            )
        for name, value in self.attributes.items():
            if not isinstance(name, str):
                raise ValueError(f"attribute name {name!r} of item {self.item_id!r} must be text")
            if not _can_be_sent(value):
                raise ValueError(
                    f"attribute {name!r} of item {self.item_id!r} is {_type_name(value)}; "
                    "send text, a number, a bool, None, or a list of text or numbers"
                )
            item.attributes[name] = value
        return item


@dataclass(frozen=True)
class ItemUpdate:
    """Changes of some attributes of an item."""

    item_id: str
    attributes: Mapping[str, Any]
    """New values by name; None removes a value. Other attributes keep theirs."""
    replace: bool = False
    """Whether these attributes replace all others."""
    allow_missing: bool = False
    """Whether to add the item where it is not in the catalogue."""

    def message(self) -> pb.UpdateItemRequest:
        """Build the request."""
        item = Item(self.item_id, self.attributes).message()
        request = pb.UpdateItemRequest(item=item, allow_missing=self.allow_missing)
        if self.replace:
            request.update_mask.paths.append("*")
        return request


def declare_request(attributes: Mapping[str, str], validate_only: bool) -> pb.DeclareAttributesRequest:
    """Build a request of DeclareAttributes.

    Args:
        attributes: name -> type, as in `Status.attributes`.
        validate_only: as in the request.

    Raises:
        ValueError: an unknown type.
    """
    request = pb.DeclareAttributesRequest(validate_only=validate_only)
    for name, kind in attributes.items():
        request.attributes.add(name=name, type=pb.Attribute.Type.Value(kind.upper()))
    return request


def _session(
    events: Sequence[SessionEvent], device: str, hour: int | None, session_id: str
) -> pb.SessionContext:
    return pb.SessionContext(
        events=[event.message() for event in events], device=device, hour=hour, session_id=session_id
    )


def _can_be_sent(value: object) -> bool:
    """Return whether a value has a type that attributes have; messages could also hold mappings."""
    if isinstance(value, (list, tuple)):
        return all(isinstance(element, (str, int, float)) for element in value)
    return value is None or isinstance(value, (str, int, float))


def _type_name(value: object) -> str:
    """Return the type of a value, of a list also those of its elements."""
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {', '.join(sorted({_type_name(element) for element in value}))}"
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _timestamp(moment: datetime | None) -> Timestamp | None:
    """Convert a time; one without zone is UTC."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
