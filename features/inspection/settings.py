"""The settings that read a table of items or of events, inferred from its columns."""

from __future__ import annotations

from typing import Any

from conf.composition.overrides import override
from features.ingest.columns import EVENT_COLUMNS
from features.ingest.exclusions import exclusion, void_states
from features.ingest.required import IN_FILE_ORDER
from features.inspection.files import FileFacts
from features.inspection.joints import ids, joinable, values_of
from features.inspection.roles import TableKind
from features.values.names import (
    CLOCK,
    ITEM,
    KIND,
    ORDER,
    PARENT,
    PRICE,
    TIME,
    TITLE,
    USER,
    VALUE,
    is_not_interaction,
    name_score,
    normalised_name,
    usual_kind,
)

_LIKE_A_USER = 0.2
"""Least score of a column's name to identify guests."""
_RATINGS = ("rating", "stars", "score", "overall")
_LOOKING = ("view", "click", "klick", "visit", "pageview")
"""Words in the name of a file without kinds whose rows are not purchases."""


def _kinds(facts: FileFacts, column: str) -> tuple[dict[str, str], list[str]]:
    """Return the mapping of a column's kinds to the contract's, and those without one."""
    values = sorted(values_of(facts, column))
    meant = {value: usual_kind(value) for value in values}
    return {v: k for v, k in meant.items() if k is not None and k != v}, [
        v for v, k in meant.items() if k is None
    ]


def map_column(columns: dict[str, Any], key: str, source: str) -> None:
    """Add a column to `data.columns` unless it has the contract's name."""
    if key.rpartition(".")[2] != source:
        columns[key] = source


def describe_items(
    items: FileFacts, columns: dict[str, Any], settings: dict[str, Any], unsure: list[str]
) -> None:
    """Add the settings of a table of items, and notes on uncertain ones."""
    roles = items.roles.columns
    if items.roles.kind is TableKind.properties:
        settings["data.properties"] = dict(items.roles.properties)
        return
    for role in (TITLE, PRICE):
        if role in roles and roles[role] != roles.get(ITEM):
            map_column(columns, role if role == TITLE else PRICE, roles[role])
    if TITLE not in roles:
        unsure.append(f"{items.path}: no column looks like a title; name one with data.columns.title=COLUMN")
    parent = roles.get(PARENT)
    if parent not in (None, roles.get(ITEM)) and TITLE in roles and items.columns[roles[TITLE]].filled < 1:
        settings["data.parent"] = parent


def _guests(events: FileFacts, user: str) -> list[str]:
    """Return the columns with a value in most of the rows without a user."""
    without = events.sample.filter(ids(events.sample, user).is_null())
    if without.is_empty():
        return []
    free = set(events.columns) - set(events.roles.columns.values())
    named = [name for name in events.columns if name in free and name_score(USER, name) > _LIKE_A_USER]
    return [
        n for n in named if joinable(events.columns[n]) and ids(without, n).null_count() * 2 < without.height
    ]


def _describe_kinds(events: FileFacts, settings: dict[str, Any], unsure: list[str]) -> None:
    """Map the kinds of event, or set the default kind if there is no such column."""
    roles = events.roles.columns
    if KIND in roles:
        kinds, others = _kinds(events, roles[KIND])
        settings["data.kinds"] = kinds
        weightless = {v: 0 for v in others if is_not_interaction(v)}
        if weightless:
            settings["data.event_weights"] = {**weightless, "impression": 0, "*": 1}
        if others := [v for v in others if v not in weightless]:
            shown = ", ".join(f"'{v}'" for v in others[:5])
            ignoring = {**weightless, others[0]: 0, "impression": 0, "*": 1}
            unsure.append(
                f"{events.path}: kinds {shown}{', ...' if len(others) > 5 else ''} count like purchases; "
                f"{override('data.event_weights', ignoring)} leaves one out"
            )
    elif roles.get(VALUE) and normalised_name(roles[VALUE]) in _RATINGS:
        settings["data.default_event"] = "rating"
    elif any(word in events.path.lower() for word in _LOOKING):
        settings["data.default_event"] = "view"
    elif "session_id" not in roles and "quantity" not in roles:
        unsure.append(
            f"{events.path}: no column says what happened, so every row is a purchase; "
            "data.default_event=view makes it a view"
        )


def _describe_states(events: FileFacts, settings: dict[str, Any], unsure: list[str]) -> None:
    """Exclude orders that were cancelled, refunded or never paid."""
    roles = events.roles.columns
    states = {c: v for c, v in void_states(events.scan()).items() if c not in roles.values()}
    if states:
        settings["data.exclude"] = exclusion(states)
        unsure += [
            f"{events.path}: {sum(values.values()):,} rows with {column} "
            f"{', '.join(f'{value} ({rows:,})' for value, rows in values.items())} are left out"
            for column, values in states.items()
        ]


def describe_events(
    events: FileFacts, columns: dict[str, Any], settings: dict[str, Any], unsure: list[str]
) -> None:
    """Add the settings of a table of events, and notes on uncertain ones."""
    roles = events.roles.columns
    for role in (USER, TIME, ORDER, KIND, "quantity", "value", "session_id"):
        if role in roles:
            map_column(columns, role if role in (USER, TIME, ORDER, KIND) else f"events.{role}", roles[role])
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
    if not {TIME, ORDER} & {*roles, *events.columns}:  # a column of that name is read in any case
        unsure.append(
            f"{events.path}: no column says when it happened, so the order of the file is taken; where one "
            "does, name it with data.columns.timestamp=COLUMN instead of data.file_order=true"
        )
        settings.update(IN_FILE_ORDER)
    mapped = {name.removeprefix("events.") for name in columns}
    for name in EVENT_COLUMNS:  # objects under a name of the contract would be refused
        if name in events.columns and events.columns[name].nested and name not in mapped:
            columns[f"events.{name}_object"] = name
    _describe_kinds(events, settings, unsure)
    _describe_states(events, settings, unsure)
    if USER not in roles:
        unsure.append(f"{events.path}: no column says who it was; name one with data.columns.user_id=COLUMN")
    unsure += [f"{events.path}: {what}" for what in events.roles.unsure]
