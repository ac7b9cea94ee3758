"""UpsertItems and DeleteItems: which rows can be taken, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.struct_pb2 import Struct, Value

from ranking.item_values import typed_values
from ranking.live_catalogue import ItemChange, LiveCatalogue
from serving.problems import invalid
from serving.proto.shelfwise.v1 import recommendations_pb2 as pb
from serving.validation import MAX_ID_CHARS, MAX_TEXT_CHARS

MAX_ITEMS: Final = 1000
"""Items per call."""
MAX_ATTRIBUTES: Final = 200
MAX_LIST: Final = 1000
"""Elements of a list attribute."""
MAX_ITEM_CHARS: Final = 50_000
"""Characters of all texts of an item together."""
_NAMED_FAULTS: Final = 3


@dataclass(frozen=True)
class CheckedItems:
    """The rows of one call, parted."""

    changes: list[ItemChange]
    rejects: list[pb.RowReject]


def check_items(rows: Sequence[pb.Item], catalogue: LiveCatalogue, room: int) -> CheckedItems:
    """Part a call's rows into changes to make and rejects.

    Args:
        rows: as received.
        catalogue: the items of now, which say what attributes there are.
        room: how many items may be added.

    Raises:
        Problem: no row, or too many.
    """
    if not rows:
        raise invalid("items", "is empty; send at least one item")
    if len(rows) > MAX_ITEMS:
        raise invalid("items", f"{len(rows):,} items; send at most {MAX_ITEMS:,} per call")
    checked = CheckedItems([], [])
    added: set[str] = set()
    for index, row in enumerate(rows):
        reason, message = pb.RowReject.ITEM_ID, id_fault(row.item_id)
        attributes: dict[str, object] = {}
        if not message:
            reason = pb.RowReject.ITEM_ATTRIBUTES
            attributes, message = _attributes(row.attributes, catalogue)
        if not message and catalogue.row(row.item_id) is None and row.item_id not in added:
            if len(added) >= room:
                reason = pb.RowReject.CATALOGUE_FULL
                message = "no room for further new items until a new model is published (max_live_items)"
            else:
                added.add(row.item_id)
        if message:
            checked.rejects.append(pb.RowReject(index=index, reason=reason, message=message))
        else:
            checked.changes.append(ItemChange(row.item_id, attributes))
    return checked


def check_deletes(item_ids: Sequence[str]) -> list[str]:
    """Return the ids to delete, each once.

    Raises:
        Problem: no id, too many, or one that no item can have.
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
    """Return why an item cannot have this id; empty where it can."""
    if not item_id:
        return "item_id is empty"
    if len(item_id) > MAX_ID_CHARS:
        return f"item_id is longer than {MAX_ID_CHARS} characters"
    return ""


def _attributes(given: Struct, catalogue: LiveCatalogue) -> tuple[dict[str, object], str]:
    """Return attributes as plain values, and why they cannot be taken (empty where they can)."""
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
    _, faults = typed_values(attributes, catalogue.columns)
    shown = "; ".join(faults[:_NAMED_FAULTS])
    return attributes, f"{shown}; and {len(faults) - _NAMED_FAULTS} more" if len(
        faults
    ) > _NAMED_FAULTS else shown


def _plain(value: Value, in_list: bool = False) -> object:
    """Return the plain value; lists hold single values only, so nothing here recurses deeper than once.

    Raises:
        ValueError: in words that follow the attribute's name.
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
