"""Validation of item rows, shared by the RPCs that change items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.struct_pb2 import Struct, Value

from features.text.item_text import TextTemplate, has_text
from ranking.catalogue.item_values import typed_values
from ranking.catalogue.live_catalogue import ItemChange, LiveCatalogue
from serving.api.validation import MAX_ID_CHARS, MAX_TEXT_CHARS
from serving.core.errors import invalid
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_ITEMS: Final = 1000
"""Items per call."""
MAX_ATTRIBUTES: Final = 200
MAX_LIST: Final = 1000
"""Elements of a list attribute."""
MAX_ITEM_CHARS: Final = 50_000
"""Characters of all texts of an item together."""
_NAMED_FAULTS: Final = 3
CATALOGUE_FULL: Final = "no room for further new items until a new model is published (max_live_items)"
Fault = tuple[pb.RowReject.Reason, str]
"""Why a row is rejected: a reason for programs, a message for people."""


@dataclass(frozen=True)
class CheckedItems:
    """The rows of one call, split into changes and rejects."""

    changes: list[ItemChange]
    rejects: list[pb.RowReject]


def check_items(
    rows: Sequence[pb.Item], catalogue: LiveCatalogue, template: TextTemplate, capacity: int
) -> CheckedItems:
    """Split a call's rows into changes and rejects.

    Args:
        rows: of the request.
        catalogue: the current items and their attributes.
        template: the model's text template.
        capacity: how many items may be added.

    Raises:
        ApiError: no row, or too many.
    """
    if not rows:
        raise invalid("items", "is empty; send at least one item")
    if len(rows) > MAX_ITEMS:
        raise invalid("items", f"{len(rows):,} items; send at most {MAX_ITEMS:,} per call")
    checked = CheckedItems([], [])
    added: set[str] = set()
    for index, row in enumerate(rows):
        attributes, fault = _whole_item(row, catalogue, template)
        if fault is None and catalogue.row(row.item_id) is None and row.item_id not in added:
            if len(added) >= capacity:
                fault = pb.RowReject.CATALOGUE_FULL, CATALOGUE_FULL
            else:
                added.add(row.item_id)
        if fault is not None:
            checked.rejects.append(reject(index, fault))
        else:
            checked.changes.append(ItemChange(row.item_id, attributes))
    return checked


def reject(index: int, fault: Fault) -> pb.RowReject:
    """Return the reject message of a row."""
    reason, message = fault
    return pb.RowReject(index=index, reason=reason, message=message)


def _whole_item(
    row: pb.Item, catalogue: LiveCatalogue, template: TextTemplate
) -> tuple[dict[str, object], Fault | None]:
    """Return an item's attributes as Python values, and why it is rejected."""
    if message := id_fault(row.item_id):
        return {}, (pb.RowReject.ITEM_ID, message)
    attributes, message = attributes_of(row.attributes)
    message = message or type_faults(attributes, catalogue)
    if message:
        return {}, (pb.RowReject.ITEM_ATTRIBUTES, message)
    if message := text_fault(attributes, template):
        return {}, (pb.RowReject.ITEM_TEXT, message)
    return attributes, None


def check_deletes(item_ids: Sequence[str]) -> list[str]:
    """Return the ids to delete, each once.

    Raises:
        ApiError: no id, too many, or an invalid one.
    """
    if not item_ids:
        raise invalid("item_ids", "is empty; send at least one id")
    if len(item_ids) > MAX_ITEMS:
        raise invalid("item_ids", f"{len(item_ids):,} ids; send at most {MAX_ITEMS:,} per call")
    for index, item_id in enumerate(item_ids):
        fault = id_fault(item_id)
        if fault:
            raise invalid(f"item_ids[{index}]", fault)
    return list(dict.fromkeys(item_ids))


def id_fault(item_id: str) -> str:
    """Return why an item id is invalid; empty where it is valid."""
    if not item_id:
        return "item_id is empty"
    if len(item_id) > MAX_ID_CHARS:
        return f"item_id is longer than {MAX_ID_CHARS} characters"
    return ""


def attributes_of(given: Struct) -> tuple[dict[str, object], str]:
    """Return attributes as Python values, and why they are invalid (empty where they are valid)."""
    if len(given.fields) > MAX_ATTRIBUTES:
        return {}, f"{len(given.fields)} attributes; at most {MAX_ATTRIBUTES}"
    attributes: dict[str, object] = {}
    for name, value in given.fields.items():
        try:
            attributes[name] = _plain(value)
        except ValueError as error:
            return {}, f"attribute '{name[:64]}': {error}"
    if sum(_chars(value) for value in attributes.values()) > MAX_ITEM_CHARS:
        return {}, f"texts of more than {MAX_ITEM_CHARS:,} characters together"
    return attributes, ""


def type_faults(attributes: Mapping[str, object], catalogue: LiveCatalogue) -> str:
    """Return which attributes do not fit the types of the catalogue's columns; empty where all fit."""
    _, faults = typed_values(attributes, catalogue.columns)
    shown = "; ".join(faults[:_NAMED_FAULTS])
    more = len(faults) - _NAMED_FAULTS
    return f"{shown}; and {more} more" if more > 0 else shown


def text_fault(attributes: Mapping[str, object], template: TextTemplate) -> str:
    """Return why an item with these attributes has no text; empty where it has one.

    Without text the model would encode the item's id, and any text query might match it.
    """
    if has_text(attributes, template):
        return ""
    return f"no text: set at least one of {', '.join(template.fields or template.fallback)}"


def _plain(value: Value, in_list: bool = False) -> object:
    """Return a value as a Python value; lists cannot be nested, so recursion is one level deep.

    Raises:
        ValueError: with a message that continues the attribute's name.
    """
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        if len(value.string_value) > MAX_TEXT_CHARS:
            raise ValueError(f"longer than {MAX_TEXT_CHARS:,} characters")
        return value.string_value
    if kind == "number_value":
        return value.number_value
    if kind == "bool_value":
        return value.bool_value
    if kind in (None, "null_value") and not in_list:
        return None
    if kind == "list_value" and not in_list:
        if len(value.list_value.values) > MAX_LIST:
            raise ValueError(f"a list of more than {MAX_LIST:,} elements")
        return [_plain(element, in_list=True) for element in value.list_value.values]
    raise ValueError("expected text, a number, true, false, null or a list of these")


def _chars(value: object) -> int:
    if isinstance(value, list):
        return sum(_chars(element) for element in value)
    return len(value) if isinstance(value, str) else 0
