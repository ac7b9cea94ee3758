"""What the clients return of items: attributes as Python values, reasons of rejects by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import Value

from shelfwise_client.results import Reject, read_rejects
from shelfwise_client.v1 import recommendations_pb2 as pb


@dataclass(frozen=True)
class CatalogueItem:
    """One item as it is served."""

    item_id: str
    attributes: dict[str, Any]
    """Text, floats, bools, and lists of these, by name; times are ISO text. What has no value is left out."""

    @classmethod
    def of(cls, item: pb.Item) -> CatalogueItem:
        """Read a message."""
        return cls(item.item_id, {name: _plain(value) for name, value in item.attributes.fields.items()})


@dataclass(frozen=True)
class ItemsResult:
    """One page of the items."""

    items: tuple[CatalogueItem, ...]
    next_page_token: str
    request_id: str

    @classmethod
    def of(cls, response: pb.ListItemsResponse) -> ItemsResult:
        """Read a response."""
        items = tuple(CatalogueItem.of(item) for item in response.items)
        return cls(items, response.next_page_token, response.request_id)


@dataclass(frozen=True)
class UpsertResult:
    """Outcome of UpsertItems."""

    upserted_count: int
    rejects: tuple[Reject, ...]
    request_id: str

    @classmethod
    def of(cls, response: pb.UpsertItemsResponse) -> UpsertResult:
        """Read a response."""
        return cls(response.upserted_count, read_rejects(response.rejects), response.request_id)


@dataclass(frozen=True)
class UpdateResult:
    """Outcome of BatchUpdateItems."""

    updated_count: int
    rejects: tuple[Reject, ...]
    request_id: str

    @classmethod
    def of(cls, response: pb.BatchUpdateItemsResponse) -> UpdateResult:
        """Read a response."""
        return cls(response.updated_count, read_rejects(response.rejects), response.request_id)


def _plain(value: Value) -> object:
    if value.HasField("list_value"):
        return [_plain(element) for element in value.list_value.values]
    kind = value.WhichOneof("kind")
    return None if kind in (None, "null_value") else getattr(value, kind)
