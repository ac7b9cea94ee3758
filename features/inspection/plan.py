"""From what files are to the command that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from conf.overrides import override
from features.files.readers import readable
from features.ingest.cleaning import id_of
from features.inspection.files import FileFacts
from features.inspection.known import EVENTS, ITEMS, choose_preset, reads_any_events, reads_any_items
from features.inspection.profiles import ColumnProfile
from features.inspection.roles import TableKind
from features.values.names import (
    CLOCK,
    ITEM,
    KIND,
    ORDER,
    PARENT,
    PRICE,
    QUANTITY,
    TIME,
    TITLE,
    USER,
    VALUE,
    is_no_choice,
    name_score,
    plain,
    usual_kind,
)

_CANDIDATES = 12
_LIKE_A_USER = 0.2
"""Score of a name from which on a column may say who a guest was."""
_MANY = 20
"""Different values by which rows of a table may be known, even where each has several rows."""
_RATINGS = ("rating", "stars", "score", "overall")
_LOOKING = ("view", "click", "klick", "visit", "pageview")
"""What in the name of a file without kinds says that its rows are no purchases."""


@dataclass(frozen=True)
class Plan:
    """The settings that read some files, and what is not sure about them."""

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
        """The settings as they are typed in a shell."""
        words = [] if self.preset == "files" else [f"data={self.preset}"]
        for key, paths in (("data.items", self.items), ("data.events", self.events)):
            if paths:
                words.append(override(key, paths[0] if len(paths) == 1 else list(paths)))
        return words + [
            override(key, value) for key, value in (self.settings or {}).items() if value not in ({}, [])
        ]


def _values(facts: FileFacts, column: str) -> set[str]:
    """Return the ids in a column of the whole file."""
    table = facts.scan()
    with readable(facts.path):
        found = (
            table.frame.select(id_of(table.frame, column).unique()).collect(engine="streaming").to_series()
        )
    return set(found.drop_nulls())


def _ids(sample: pl.DataFrame, column: str) -> pl.Series:
    return sample.select(id_of(sample.lazy(), column)).to_series()


def _sampled(facts: FileFacts, column: str) -> set[str]:
    return set(_ids(facts.sample, column).drop_nulls())


def _joinable(column: ColumnProfile) -> bool:
    return (
        not column.nested
        and column.filled > 0
        and column.decimal < 0.5
        and column.written_time < 0.5
        and column.url < 0.5
    )


@dataclass(frozen=True)
class Joint:
    """The columns by which events name their items, and the share of the events looked at that do."""

    items: str
    events: str
    share: float


def find_joint(items: FileFacts, events: FileFacts) -> Joint | None:
    """Find the columns of two tables that hold the same ids: names propose, values decide.

    Returns:
        The best pair, or None where no two columns have values in common.
    """
    taken = {events.roles.columns.get(role) for role in (USER, TIME, KIND, QUANTITY, VALUE)}
    price = items.roles.columns.get(PRICE)
    left = sorted(
        (
            n
            for n, c in items.columns.items()
            if _joinable(c) and (c.distinct > 0.3 or c.values > _MANY) and n != price
        ),
        key=lambda n: -name_score(ITEM, n),
    )[:_CANDIDATES]
    right = sorted(
        (n for n, c in events.columns.items() if _joinable(c) and n not in taken),
        key=lambda n: -name_score(ITEM, n),
    )[:_CANDIDATES]
    named = {column: _sampled(events, column) for column in right}
    best: tuple[float, Joint] | None = None
    for column in left:
        ids = _values(items, column)
        for other, values in named.items():
            share = len(values & ids) / len(values) if values else 0.0
            by_name = 0.25 * (name_score(ITEM, column) + name_score(ITEM, other))
            few = 0.3 if len(values) < 0.05 * len(ids) and len(values) < 20 < len(ids) else 0.0
            scored = (share + by_name - few if share else 0.0, Joint(column, other, share))
            if scored[0] > 0 and (best is None or scored[0] > best[0]):
                best = scored
    return best[1] if best is not None and best[1].share > 0.2 else None


def _kinds(facts: FileFacts, column: str) -> tuple[dict[str, str], list[str]]:
    """Return the translation of a column's kinds, and those that are none of the contract's."""
    values = sorted(_values(facts, column))
    meant = {value: usual_kind(value) for value in values}
    return {v: k for v, k in meant.items() if k is not None and k != v}, [
        v for v, k in meant.items() if k is None
    ]


def _alike(chosen: FileFacts, files: Sequence[FileFacts]) -> tuple[str, ...]:
    """Return the files that are parts of one table with the chosen one: of its kind, with its columns."""
    return tuple(
        f.path
        for f in files
        if f.roles.kind is chosen.roles.kind
        and list(f.columns) == list(chosen.columns)
        and f.header == chosen.header
    )


def _column(columns: dict[str, Any], key: str, source: str) -> None:
    if key.rpartition(".")[2] != source:
        columns[key] = source


def _written(settings: dict[str, Any], items: FileFacts | None, events: FileFacts | None) -> None:
    """Add how the files are written, where it is not the usual way."""
    files = [f for f in (items, events) if f is not None]
    if encoding := next((f.encoding for f in files if f.encoding), None):
        settings["data.encoding"] = encoding
    tables = (("items", items or events), ("events", events))
    bare = [name for name, f in tables if f is not None and not f.header]
    if bare:
        settings["data.without_header"] = bare


def _describe_items(
    items: FileFacts, columns: dict[str, Any], settings: dict[str, Any], unsure: list[str]
) -> None:
    roles = items.roles.columns
    if items.roles.kind is TableKind.properties:
        settings["data.properties"] = dict(items.roles.properties)
        return
    for role in (TITLE, PRICE):
        if role in roles and roles[role] != roles.get(ITEM):
            _column(columns, role if role == TITLE else PRICE, roles[role])
    if TITLE not in roles:
        unsure.append(f"{items.path}: no column looks like a title; name one with data.columns.title=COLUMN")
    parent = roles.get(PARENT)
    if parent not in (None, roles.get(ITEM)) and TITLE in roles and items.columns[roles[TITLE]].filled < 1:
        settings["data.parent"] = parent


def _guests(events: FileFacts, user: str) -> list[str]:
    """Return the columns that say who it was in most of the rows where the shopper's column is empty."""
    without = events.sample.filter(_ids(events.sample, user).is_null())
    if without.is_empty():
        return []
    free = set(events.columns) - set(events.roles.columns.values())
    named = [name for name in events.columns if name in free and name_score(USER, name) > _LIKE_A_USER]
    return [
        n
        for n in named
        if _joinable(events.columns[n]) and _ids(without, n).null_count() * 2 < without.height
    ]


def _describe_events(
    events: FileFacts, columns: dict[str, Any], settings: dict[str, Any], unsure: list[str]
) -> None:
    roles = events.roles.columns
    for role in (USER, TIME, ORDER, KIND, "quantity", "value", "session_id"):
        if role in roles:
            _column(columns, role if role in (USER, TIME, ORDER, KIND) else f"events.{role}", roles[role])
    if USER in roles and (others := _guests(events, roles[USER])):
        columns[USER] = [roles[USER], *others]
    if CLOCK in roles:
        columns[TIME] = [roles[TIME], roles[CLOCK]]
    if TIME in roles and (either := events.columns[roles[TIME]].either):
        settings["data.timestamp_format"] = either[0]
        unsure.append(
            f"{events.path}: '{events.columns[roles[TIME]].samples[0]}' is read with the day first; "
            f"{override('data.timestamp_format', either[1])} puts the month first"
        )
    if TIME not in roles and ORDER not in roles:
        unsure.append(
            f"{events.path}: no column says when it happened, and none in which order; "
            "name one with data.columns.timestamp=COLUMN or data.columns.order=COLUMN"
        )
    if KIND in roles:
        kinds, others = _kinds(events, roles[KIND])
        settings["data.kinds"] = kinds
        weightless = {v: 0 for v in others if is_no_choice(v)}
        if weightless:
            settings["data.event_weights"] = {**weightless, "impression": 0, "*": 1}
        if others := [v for v in others if v not in weightless]:
            shown = ", ".join(f"'{v}'" for v in others[:5])
            ignoring = {**weightless, others[0]: 0, "impression": 0, "*": 1}
            unsure.append(
                f"{events.path}: kinds {shown}{', ...' if len(others) > 5 else ''} count like purchases; "
                f"{override('data.event_weights', ignoring)} leaves one out"
            )
    elif roles.get(VALUE) and plain(roles[VALUE]) in _RATINGS:
        settings["data.default_event"] = "rating"
    elif any(word in events.path.lower() for word in _LOOKING):
        settings["data.default_event"] = "view"
    elif "session_id" not in roles and "quantity" not in roles:
        unsure.append(
            f"{events.path}: no column says what happened, so every row is a purchase; "
            "data.default_event=view makes it a view"
        )
    if USER not in roles:
        unsure.append(f"{events.path}: no column says who it was; name one with data.columns.user_id=COLUMN")
    unsure += [f"{events.path}: {what}" for what in events.roles.unsure]


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
        _describe_events(events, columns, settings, unsure)
    if items is not None:
        _describe_items(items, columns, settings, unsure)
        if joint is not None:
            _join(columns, joint, unsure)
        else:
            _column(columns, "items.item_id", items.roles.columns[ITEM])
            unsure += [f"{items.path}: {what}" for what in items.roles.unsure]
            if events is not None:
                _column(columns, "events.item_id", events.roles.columns.get(ITEM, "item_id"))
                unsure.append(
                    f"no column of {events.path} holds ids of {items.path}: are they of the same shop?"
                )
    elif events is not None:
        _column(columns, "item_id", events.roles.columns[ITEM])
        if events.roles.kind is TableKind.both:
            _column(columns, TITLE, events.roles.columns[TITLE])
            if PRICE in events.roles.columns:
                _column(columns, PRICE, events.roles.columns[PRICE])
        else:
            unsure.append(
                "no table of items: what events say of them is all that is known; name the catalogue, too"
            )
    if settings.get("data.parent", "") in (columns.get("items.item_id"), columns.get("item_id")):
        del settings["data.parent"]  # rows that add pictures to a product, under the product's own id
        settings["data.duplicates"] = "first"
    _written(settings, items, events)
    event_paths = _alike(events, files) if events is not None else ()
    item_paths = _alike(items, files) if items is not None else event_paths
    if settings.get("data.encoding") is None:
        settings.pop("data.encoding", None)
    unused = tuple(f.path for f in files if f.path not in (*event_paths, *item_paths) and not f.error)
    if events is None or items is None:
        unsure += _unread([f for f in by_kind[TableKind.unknown] if f.path in unused], events is None)
    return Plan(
        "files", item_paths, event_paths, {"data.columns": columns, **settings}, tuple(unsure), unused
    )


def _unread(files: Sequence[FileFacts], no_events: bool) -> list[str]:
    """Say of files that are left out what they lack, and how to name it."""
    table = "events" if no_events else "items"
    needed = (
        (("user_id", USER), ("item_id", ITEM), ("timestamp", TIME)) if no_events else (("item_id", ITEM),)
    )
    said = []
    for facts in files:
        lacks = [name for name, role in needed if role not in facts.roles.columns]
        if lacks:
            named = ", ".join(f"{table}.{name}: COLUMN" for name in lacks)
            said.append(
                f"{facts.path} is not read: no column looks like {' or '.join(lacks)} of {table}; "
                f"where one is, add {override(f'data.{table}', facts.path)} 'data.columns={{{named}}}'"
            )
    return said


def _holds(facts: FileFacts, events: FileFacts) -> bool:
    """Whether a table that names and values did not tell to be items holds most of the ids of the events."""
    joint = find_joint(facts, events)
    return joint is not None and joint.share > 1 / 2


def _catalogue(
    catalogues: Sequence[FileFacts], events: FileFacts | None
) -> tuple[FileFacts | None, Joint | None]:
    """Choose the table of items: the one that events name, else the one that says most."""
    if not catalogues:
        return None, None
    if events is not None:
        joints = [(find_joint(f, events), f) for f in catalogues]
        found = [(j, f) for j, f in joints if j is not None]
        if found:
            joint, items = max(found, key=lambda pair: (round(pair[0].share, 2), len(pair[1].columns)))
            return items, joint
    return max(catalogues, key=lambda f: (TITLE in f.roles.columns, f.rows, len(f.columns))), None


def _join(columns: dict[str, Any], joint: Joint, unsure: list[str]) -> None:
    if joint.items == joint.events:
        _column(columns, "item_id", joint.items)
    else:
        _column(columns, "items.item_id", joint.items)
        _column(columns, "events.item_id", joint.events)
    if joint.share < 0.99:
        unsure.append(
            f"only {joint.share:.0%} of the ids that events name ('{joint.events}') are in the catalogue "
            f"('{joint.items}')"
        )


def make_plan(files: Sequence[FileFacts]) -> Plan:
    """Plan how some files are read: by the preset that knows them, or as the shop's own tables."""
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
            _describe_events(log, columns, settings, unsure)
            joint = find_joint(items[0], log)
            _column(columns, "events.item_id", joint.events if joint else log.roles.columns[ITEM])
            events = [f for f in rest if f.path in _alike(log, rest)]
    if not items and reads_any_items(preset):
        catalogues = [f for f in rest if f.roles.kind is TableKind.items]
        items = catalogues[:1]
        if items and items[0].roles.columns[ITEM] not in ("item_id", "id", "sku", "SKU"):
            columns["items.item_id"] = items[0].roles.columns[ITEM]
    if columns:
        settings = {"data.columns": columns, **settings}
    _written(settings, items[0] if items and items[0].encoding else None, None)
    used = {f.path for f in (*items, *events)}
    unused = tuple(f.path for f in readable_files if f.path not in used)
    return Plan(
        preset, tuple(f.path for f in items), tuple(f.path for f in events), settings, tuple(unsure), unused
    )
