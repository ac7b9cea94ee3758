"""UpdateItem and BatchUpdateItems: partial updates of items, with optimistic concurrency control.

An update is applied to the stored item and written only if the item has not changed in between; otherwise it
is retried. So concurrent updates of different attributes of one item through two servers are both preserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from features.text.item_text import TextTemplate
from ranking.catalogue.item_values import patched, sendable, typed_values
from ranking.catalogue.live_catalogue import ItemChange, LiveCatalogue
from serving.api.items import CATALOGUE_FULL, Fault, attributes_of, id_fault, text_fault, type_faults
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_PATHS: Final = 200
_PREFIX: Final = "attributes."
_WHOLE: Final = ("*", "attributes")


@dataclass(frozen=True)
class Update:
    """A validated update of an item."""

    item_id: str
    attributes: Mapping[str, object]
    """New values by name; None removes one."""
    replace: bool
    """Whether all other attributes are removed."""
    allow_missing: bool
    """Whether a missing item is added."""


@dataclass
class UpdateResult:
    """Outcome of updates applied to items as they were read; each may fail independently."""

    changes: dict[str, ItemChange] = field(default_factory=dict)
    """Changes to store, by item."""
    applied: dict[int, ItemChange] = field(default_factory=dict)
    """The item after each update, by position."""
    faults: dict[int, Fault] = field(default_factory=dict)
    """Why updates were rejected, by position."""


def read_update(row: pb.UpdateItemRequest, catalogue: LiveCatalogue) -> Update | Fault:
    """Return the update of a row, or why it is invalid for any item."""
    fault = id_fault(row.item.item_id)
    if fault:
        return pb.RowReject.ITEM_ID, fault
    given, fault = attributes_of(row.item.attributes)
    if fault:
        return pb.RowReject.ITEM_ATTRIBUTES, fault
    paths = list(row.update_mask.paths)
    if len(paths) > MAX_PATHS:
        return pb.RowReject.UPDATE_MASK, f"{len(paths):,} paths; at most {MAX_PATHS}"
    replace = any(path in _WHOLE for path in paths)
    if paths and not replace:
        for path in paths:
            if not path.startswith(_PREFIX) or path == _PREFIX:
                message = f"no field '{path[:80]}'; write attributes.NAME, or * for all attributes"
                return pb.RowReject.UPDATE_MASK, message
        given = {name: given.get(name) for name in (path[len(_PREFIX) :] for path in paths)}
    fault = type_faults(given, catalogue) if given or replace else "there is nothing to change"
    if fault:
        return pb.RowReject.ITEM_ATTRIBUTES, fault
    return Update(row.item.item_id, given, replace, row.allow_missing)


def apply_updates(
    updates: Mapping[int, Update],
    stored: Mapping[str, ItemChange | None],
    catalogue: LiveCatalogue,
    template: TextTemplate,
    capacity: int,
) -> UpdateResult:
    """Apply updates to items as they are stored.

    Args:
        updates: by position, in order; several updates of one item build on each other.
        stored: the newest change of each item, None where it was never changed.
        catalogue: the model's items.
        template: the model's text template.
        capacity: how many items may be added.
    """
    result = UpdateResult()
    text_fields = {*template.fields, *template.fallback}
    for position, update in updates.items():
        before = result.changes.get(update.item_id, stored[update.item_id])
        found = exists(update.item_id, before, catalogue)
        if not found and not update.allow_missing:
            message = f"item_id '{update.item_id[:64]}' is not in the catalogue"
            result.faults[position] = pb.RowReject.ITEM_NOT_FOUND, message
            continue
        if not found and catalogue.row(update.item_id) is None:
            capacity -= 1
            if capacity < 0:
                result.faults[position] = pb.RowReject.CATALOGUE_FULL, CATALOGUE_FULL
                continue
        change = _changed(update, before if found else None, found)
        if update.replace or not found or not text_fields.isdisjoint(update.attributes):
            fault = text_fault(sendable(values_of(change, catalogue)), template)
            if fault:
                result.faults[position] = pb.RowReject.ITEM_TEXT, fault
                continue
        result.changes[update.item_id] = result.applied[position] = change
    return result


def exists(item_id: str, stored: ItemChange | None, catalogue: LiveCatalogue) -> bool:
    """Return whether an item with this newest change exists."""
    if stored is None or stored.partial:
        return catalogue.base.row(item_id) is not None
    return stored.attributes is not None


def values_of(change: ItemChange, catalogue: LiveCatalogue) -> dict[str, object]:
    """Return an item's values after a change, typed as the catalogue's columns."""
    assert change.attributes is not None
    if not change.partial:
        return typed_values(change.attributes, catalogue.columns)[0]
    row = catalogue.base.row(change.item_id)
    before = {} if row is None else catalogue.bundled([row])[0]
    return patched(before, change.attributes, catalogue.columns)


def _changed(update: Update, before: ItemChange | None, found: bool) -> ItemChange:
    """Return the change to store for an update; `before` is the stored one, None where there is none."""
    encoded = None if before is None else before.encoded
    if update.replace or not found:
        content = {name: value for name, value in update.attributes.items() if value is not None}
        return ItemChange(update.item_id, content, encoded)
    if before is None:
        return ItemChange(update.item_id, dict(update.attributes), encoded, partial=True)
    content = {**(before.attributes or {}), **update.attributes}
    if not before.partial:
        content = {name: value for name, value in content.items() if value is not None}
    return ItemChange(update.item_id, content, encoded, before.partial)
