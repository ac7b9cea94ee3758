"""UpdateItem and BatchUpdateItems: changes of some attributes of items, however many are made at a time.

A change is made to the item as the store has it and is stored only if the item is still the same then;
otherwise it is made again. So two servers that change different attributes of one item at the same moment
keep both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from features.text.item_text import TextTemplate
from ranking.catalogue.item_values import patched, sendable, typed_values
from ranking.catalogue.live_catalogue import ItemChange, LiveCatalogue
from serving.api.items import NO_ROOM, Fault, attributes_of, id_fault, text_fault, type_faults
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_PATHS: Final = 200
_PREFIX: Final = "attributes."
_WHOLE: Final = ("*", "attributes")


@dataclass(frozen=True)
class Update:
    """What shall become of an item."""

    item_id: str
    attributes: Mapping[str, object]
    """New values by name; None removes one."""
    whole: bool
    """Whether nothing else shall be left of the item."""
    allow_missing: bool
    """Whether the item is added where it is not there."""


@dataclass
class Round:
    """Updates made to items as they were read; each may fail for itself."""

    changes: dict[str, ItemChange] = field(default_factory=dict)
    """What to store, by item."""
    made: dict[int, ItemChange] = field(default_factory=dict)
    """What the item is after each update, by position."""
    faults: dict[int, Fault] = field(default_factory=dict)
    """Why updates cannot be made, by position."""


def read_update(row: pb.UpdateItemRequest, catalogue: LiveCatalogue) -> Update | Fault:
    """Return what a row asks for, or why it cannot be taken whatever the item is."""
    fault = id_fault(row.item.item_id)
    if fault:
        return pb.RowReject.ITEM_ID, fault
    given, fault = attributes_of(row.item.attributes)
    if fault:
        return pb.RowReject.ITEM_ATTRIBUTES, fault
    paths = list(row.update_mask.paths)
    if len(paths) > MAX_PATHS:
        return pb.RowReject.UPDATE_MASK, f"{len(paths):,} paths; at most {MAX_PATHS}"
    whole = any(path in _WHOLE for path in paths)
    if paths and not whole:
        for path in paths:
            if not path.startswith(_PREFIX) or path == _PREFIX:
                message = f"no field '{path[:80]}'; write attributes.NAME, or * for all attributes"
                return pb.RowReject.UPDATE_MASK, message
        given = {name: given.get(name) for name in (path[len(_PREFIX) :] for path in paths)}
    fault = type_faults(given, catalogue) if given or whole else "there is nothing to change"
    if fault:
        return pb.RowReject.ITEM_ATTRIBUTES, fault
    return Update(row.item.item_id, given, whole, row.allow_missing)


def make_round(
    updates: Mapping[int, Update],
    stored: Mapping[str, ItemChange | None],
    catalogue: LiveCatalogue,
    template: TextTemplate,
    room: int,
) -> Round:
    """Make updates to items as the store has them.

    Args:
        updates: by position, in order; those of one item follow each other.
        stored: the newest change of each item, None where it was never changed.
        catalogue: the model's items.
        template: what the model makes texts from.
        room: how many items may be added.
    """
    made = Round()
    for place, update in updates.items():
        before = made.changes.get(update.item_id, stored[update.item_id])
        there = is_there(update.item_id, before, catalogue)
        if not there and not update.allow_missing:
            message = f"item_id '{update.item_id[:64]}' is not in the catalogue"
            made.faults[place] = pb.RowReject.ITEM_NOT_FOUND, message
            continue
        if not there and catalogue.row(update.item_id) is None:
            room -= 1
            if room < 0:
                made.faults[place] = pb.RowReject.CATALOGUE_FULL, NO_ROOM
                continue
        change = _changed(update, before if there else None, there)
        reads = {*template.fields, *template.fallback}
        if update.whole or not there or not reads.isdisjoint(update.attributes):
            fault = text_fault(sendable(values_of(change, catalogue)), template)
            if fault:
                made.faults[place] = pb.RowReject.ITEM_TEXT, fault
                continue
        made.changes[update.item_id] = made.made[place] = change
    return made


def is_there(item_id: str, stored: ItemChange | None, catalogue: LiveCatalogue) -> bool:
    """Tell whether there is an item whose newest change is this one."""
    if stored is None or stored.partial:
        return catalogue.base.row(item_id) is not None
    return stored.attributes is not None


def values_of(change: ItemChange, catalogue: LiveCatalogue) -> dict[str, object]:
    """Return the values that an item has after a change, typed as the catalogue's columns."""
    assert change.attributes is not None
    if not change.partial:
        return typed_values(change.attributes, catalogue.columns)[0]
    row = catalogue.base.row(change.item_id)
    before = {} if row is None else catalogue.bundled([row])[0]
    return patched(before, change.attributes, catalogue.columns)


def _changed(update: Update, before: ItemChange | None, there: bool) -> ItemChange:
    """Return what is to be stored of an item; `before` is None where the store has nothing of it."""
    encoded = None if before is None else before.encoded
    if update.whole or not there:
        content = {name: value for name, value in update.attributes.items() if value is not None}
        return ItemChange(update.item_id, content, encoded)
    if before is None:
        return ItemChange(update.item_id, dict(update.attributes), encoded, partial=True)
    content = {**(before.attributes or {}), **update.attributes}
    if not before.partial:
        content = {name: value for name, value in content.items() if value is not None}
    return ItemChange(update.item_id, content, encoded, before.partial)
