"""From the kinds of files to the command that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.composition.overrides import override
from features.ingest.id_lists import KEY as ID_LISTS
from features.inspection.files import FileFacts
from features.inspection.joints import Joint, find_joint, holds_several
from features.inspection.known import EVENTS, ITEMS, choose_preset, reads_any_events, reads_any_items
from features.inspection.roles import TableKind
from features.inspection.settings import describe_events, describe_items, map_column
from features.values.names import ITEM, PRICE, TIME, TITLE, USER


@dataclass(frozen=True)
class Plan:
    """The settings that read some files, and their uncertainties."""

    preset: str
    items: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    settings: Mapping[str, Any] | None = None
    """Further settings, e.g. `data.columns`."""
    unsure: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    """Files that the command does not read."""

    @property
    def overrides(self) -> list[str]:
        """The settings as shell arguments."""
        words = [] if self.preset == "files" else [f"data={self.preset}"]
        for key, paths in (("data.items", self.items), ("data.events", self.events)):
            if paths:
                words.append(override(key, paths[0] if len(paths) == 1 else list(paths)))
        return words + [
            override(key, value) for key, value in (self.settings or {}).items() if value not in ({}, [])
        ]


def _same_table(chosen: FileFacts, files: Sequence[FileFacts]) -> tuple[str, ...]:
    """Return the files that belong to one table with the chosen one: of its kind, with its columns."""
    return tuple(
        f.path
        for f in files
        if f.roles.kind is chosen.roles.kind
        and list(f.columns) == list(chosen.columns)
        and f.header == chosen.header
    )


def _add_format(settings: dict[str, Any], items: FileFacts | None, events: FileFacts | None) -> None:
    """Add the settings of unusual file formats."""
    files = [f for f in (items, events) if f is not None]
    if encoding := next((f.encoding for f in files if f.encoding), None):
        settings["data.encoding"] = encoding
    tables = (("items", items or events), ("events", events))
    bare = [name for name, f in tables if f is not None and not f.header]
    if bare:
        settings["data.without_header"] = bare


def plan_own_tables(files: Sequence[FileFacts]) -> Plan:
    """Plan the reading of a shop's own tables."""
    by_kind = {kind: [f for f in files if f.roles.kind is kind] for kind in TableKind}
    catalogues = by_kind[TableKind.items] + by_kind[TableKind.properties]
    logs = by_kind[TableKind.events] + by_kind[TableKind.both]
    settings: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    unsure: list[str] = []
    events = max(logs, key=lambda f: f.rows, default=None)
    if not catalogues and events is not None and events.roles.kind is TableKind.events:
        catalogues = [f for f in by_kind[TableKind.unknown] if _holds(f, events)]
    items, joint = _catalogue(catalogues, events)
    if events is None and items is None:
        return Plan(
            "files",
            unsure=("none of the files looks like items or events",),
            unused=tuple(f.path for f in files),
        )
    if events is not None:
        describe_events(events, columns, settings, unsure)
    if items is not None:
        describe_items(items, columns, settings, unsure)
        if joint is not None:
            _join(columns, settings, joint, unsure)
        else:
            map_column(columns, "items.item_id", items.roles.columns[ITEM])
            unsure += [f"{items.path}: {what}" for what in items.roles.unsure]
            if events is not None:
                map_column(columns, "events.item_id", events.roles.columns.get(ITEM, "item_id"))
                unsure.append(
                    f"no column of {events.path} holds ids of {items.path}: are they of the same shop?"
                )
    elif events is not None:
        map_column(columns, "item_id", events.roles.columns[ITEM])
        if holds_several(events, events.roles.columns[ITEM]):
            settings["data.types"] = {ID_LISTS: "list"}
        if events.roles.kind is TableKind.both:
            map_column(columns, TITLE, events.roles.columns[TITLE])
            if PRICE in events.roles.columns:
                map_column(columns, PRICE, events.roles.columns[PRICE])
        else:
            unsure.append(
                "no table of items: what events say of them is all that is known; name the catalogue, too"
            )
    if settings.get("data.parent", "") in (columns.get("items.item_id"), columns.get("item_id")):
        del settings["data.parent"]  # rows that add pictures to a product, under the product's own id
        settings["data.duplicates"] = "first"
    _add_format(settings, items, events)
    event_paths = _same_table(events, files) if events is not None else ()
    item_paths = _same_table(items, files) if items is not None else event_paths
    if settings.get("data.encoding") is None:
        settings.pop("data.encoding", None)
    unused = tuple(f.path for f in files if f.path not in (*event_paths, *item_paths) and not f.error)
    if events is None or items is None:
        unsure += _unread([f for f in by_kind[TableKind.unknown] if f.path in unused], events is None)
    return Plan(
        "files", item_paths, event_paths, {"data.columns": columns, **settings}, tuple(unsure), unused
    )


def _unread(files: Sequence[FileFacts], no_events: bool) -> list[str]:
    """Return a note for each unused file on its missing columns, and how to map them."""
    table = "events" if no_events else "items"
    needed = (
        (("user_id", USER), ("item_id", ITEM), ("timestamp", TIME)) if no_events else (("item_id", ITEM),)
    )
    notes = []
    for facts in files:
        lacks = [name for name, role in needed if role not in facts.roles.columns]
        if lacks:
            named = ", ".join(f"{table}.{name}: COLUMN" for name in lacks)
            notes.append(
                f"{facts.path} is not read: no column looks like {' or '.join(lacks)} of {table}; "
                f"where one is, add {override(f'data.{table}', facts.path)} 'data.columns={{{named}}}'"
            )
    return notes


def _holds(facts: FileFacts, events: FileFacts) -> bool:
    """Return whether a table of unknown kind has most of the item ids of the events."""
    joint = find_joint(facts, events)
    return joint is not None and joint.share > 1 / 2


def _catalogue(
    catalogues: Sequence[FileFacts], events: FileFacts | None
) -> tuple[FileFacts | None, Joint | None]:
    """Choose the table of items: the one that events refer to, else the most informative."""
    if not catalogues:
        return None, None
    if events is not None:
        joints = [(find_joint(f, events), f) for f in catalogues]
        found = [(j, f) for j, f in joints if j is not None]
        if found:
            joint, items = max(found, key=lambda pair: (round(pair[0].share, 2), len(pair[1].columns)))
            return items, joint
    return max(catalogues, key=lambda f: (TITLE in f.roles.columns, f.rows, len(f.columns))), None


def _join(columns: dict[str, Any], settings: dict[str, Any], joint: Joint, unsure: list[str]) -> None:
    if joint.items == joint.events:
        map_column(columns, "item_id", joint.items)
    else:
        map_column(columns, "items.item_id", joint.items)
        map_column(columns, "events.item_id", joint.events)
    if joint.several:
        settings["data.types"] = {ID_LISTS: "list"}
    if joint.match:
        settings["data.match_ids"] = list(joint.match)
    if joint.share < 0.99:
        unsure.append(
            f"only {joint.share:.0%} of the ids that events name ('{joint.events}') are in the catalogue "
            f"('{joint.items}')"
        )


def make_plan(files: Sequence[FileFacts]) -> Plan:
    """Plan the reading of files: by a preset, or as the shop's own tables."""
    readable_files = [f for f in files if not f.error]
    preset = choose_preset([f.presets for f in readable_files])
    if preset is None:
        return plan_own_tables(readable_files)
    items = [f for f in readable_files if (preset, ITEMS) in f.presets]
    events = [f for f in readable_files if (preset, EVENTS) in f.presets]
    rest = [f for f in readable_files if f not in items and f not in events]
    settings: dict[str, Any] = {}
    unsure: list[str] = []
    columns: dict[str, Any] = {}
    if not events and reads_any_events(preset):
        logs = [f for f in rest if f.roles.kind in (TableKind.events, TableKind.both)]
        if log := max(logs, key=lambda f: f.rows, default=None):
            describe_events(log, columns, settings, unsure)
            joint = find_joint(items[0], log)
            map_column(columns, "events.item_id", joint.events if joint else log.roles.columns[ITEM])
            if joint and joint.several:
                settings["data.types"] = {ID_LISTS: "list"}
            if joint and joint.match:
                settings["data.match_ids"] = list(joint.match)
            events = [f for f in rest if f.path in _same_table(log, rest)]
    if not items and reads_any_items(preset):
        catalogues = [f for f in rest if f.roles.kind is TableKind.items]
        items = catalogues[:1]
        if items and items[0].roles.columns[ITEM] not in ("item_id", "id", "sku", "SKU"):
            columns["items.item_id"] = items[0].roles.columns[ITEM]
    if columns:
        settings = {"data.columns": columns, **settings}
    _add_format(settings, items[0] if items and items[0].encoding else None, None)
    used = {f.path for f in (*items, *events)}
    unused = tuple(f.path for f in readable_files if f.path not in used)
    return Plan(
        preset, tuple(f.path for f in items), tuple(f.path for f in events), settings, tuple(unsure), unused
    )
