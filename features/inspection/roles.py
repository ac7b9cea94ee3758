"""Roles of columns and kinds of tables, inferred from names and verified by values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from features.inspection.profiles import ColumnProfile
from features.values.names import (
    CLOCK,
    ITEM,
    KIND,
    LIKELY,
    ORDER,
    PARENT,
    PRICE,
    QUANTITY,
    SESSION,
    TIME,
    TITLE,
    USER,
    VALUE,
    name_score,
    normalised_name,
    usual_kind,
)
from features.values.order_states import is_state_column

_KINDS = 20
"""Most distinct values of a column of kinds."""
_PROPERTY = (
    "property",
    "property_name",
    "attribute",
    "attribute_name",
    "key",
    "feature",
    "merkmal",
    "eigenschaft",
    "name",
)
_PROPERTY_VALUE = ("value", "property_value", "attribute_value", "wert", "valor", "valeur")


class TableKind(Enum):
    """Inferred kind of a table."""

    items = "items"
    events = "events"
    both = "events and items in one"
    properties = "items in long form, a row per property"
    unknown = "neither items nor events"


@dataclass(frozen=True)
class Roles:
    """The kind of a table and the roles of its columns."""

    kind: TableKind
    columns: Mapping[str, str] = field(default_factory=dict)
    """Role -> column."""
    unsure: tuple[str, ...] = ()
    """Notes on uncertain decisions."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """`data.properties` of a table in long form."""


def _plausible(role: str, column: ColumnProfile) -> float:
    """Return how well a column's values fit a role: 0 excludes it."""
    if column.nested or column.filled == 0:
        return 0.0
    name = normalised_name(column.name)
    if role != KIND and is_state_column(column.name):
        return 0.0
    if role == TIME:
        if column.time < 0.5:
            return 0.0
        bare = column.written_time < 0.5
        return 0.3 if bare and name_score(TIME, column.name) == 0 else 1.0
    if column.written_time > 0.5 or column.url > 0.5:
        return 0.0
    if role == KIND:
        known = sum(usual_kind(v) is not None for v in column.samples)
        if column.values > _KINDS or column.number > 0.5 and name == "type":
            return 0.0
        return 1.0 if known else 0.4 if name != "type" else 0.0
    if role in (PRICE, QUANTITY, VALUE, ORDER):
        return 1.0 if column.number > 0.5 else 0.0
    if role == TITLE:
        return 0.0 if column.number > 0.9 or column.values < 2 and column.distinct < 1 else 1.0
    if role in (USER, ITEM):
        return 0.0 if column.decimal > 0.5 or column.words > 4 else 1.0 if column.code > 0.5 else 0.7
    return 1.0


def _score(role: str, column: ColumnProfile) -> float:
    return name_score(role, column.name) * _plausible(role, column)


def _best(
    role: str,
    columns: Mapping[str, ColumnProfile],
    taken: set[str],
    weight: Mapping[str, float] | None = None,
) -> tuple[str, float] | None:
    scored = [
        (_score(role, column) * (weight or {}).get(name, 1.0), name)
        for name, column in columns.items()
        if name not in taken
    ]
    best = max(scored, key=lambda pair: pair[0], default=(0.0, ""))
    return (best[1], best[0]) if best[0] > 0.2 else None


def _long_form(columns: Mapping[str, ColumnProfile]) -> Mapping[str, str] | None:
    """Return `data.properties` if a table has a row per item and property."""
    names = {normalised_name(name): name for name in columns}
    name = next((names[n] for n in _PROPERTY if n in names), None)
    value = next((names[n] for n in _PROPERTY_VALUE if n in names and names[n] != name), None)
    if name is None or value is None or len(columns) > 6 or columns[name].distinct > 0.5:
        return None
    found = {"name": name, "value": value}
    if when := _best(TIME, columns, {name, value}):
        found["time"] = when[0]
    return found


def _event_roles(columns: Mapping[str, ColumnProfile]) -> tuple[dict[str, str], list[str]]:
    """Assign the roles of an event, those with the most distinctive values first."""
    roles: dict[str, str] = {}
    unsure: list[str] = []
    for role in (TIME, KIND, USER, ITEM, QUANTITY, VALUE, SESSION):
        weight = None
        if role == ITEM:  # a distinct value per row is an event's own id
            weight = {name: 0.6 for name, c in columns.items() if c.distinct == 1 and c.filled == 1}
        found = _best(role, columns, set(roles.values()), weight)
        if found is None:
            continue
        name, score = found
        roles[role] = name
        if score < LIKELY and role in (TIME, USER, ITEM, KIND):
            unsure.append(f"'{name}' as {role}")
    if TIME not in roles:
        times = [name for name, c in columns.items() if c.written_time > 0.9 and name not in roles.values()]
        if times:
            roles[TIME] = times[0]
            unsure.append(f"'{times[0]}' as timestamp, by its values")
    if TIME in roles and columns[roles[TIME]].hours < 1 / 2:
        clocks = [name for name, c in columns.items() if c.clock > 0.9 and name not in roles.values()]
        if clocks:
            roles[CLOCK] = clocks[0]
    if TIME not in roles and (position := _best(ORDER, columns, set(roles.values()))):
        roles[ORDER] = position[0]
    if KIND not in roles:
        kinds = [
            name
            for name, c in columns.items()
            if name not in roles.values() and 0 < c.values <= _KINDS and all(usual_kind(v) for v in c.samples)
        ]
        if kinds:
            roles[KIND] = kinds[0]
    return roles, unsure


def _item_roles(columns: Mapping[str, ColumnProfile]) -> tuple[dict[str, str], list[str]]:
    """Assign the roles of an item; ids are nearly distinct."""
    weight = {name: c.filled * (1.0 if c.distinct > 0.95 else 0.3) for name, c in columns.items()}
    roles: dict[str, str] = {}
    unsure: list[str] = []
    found = _best(ITEM, columns, set(), weight)
    if found is not None:
        roles[ITEM] = found[0]
        if found[1] < LIKELY:
            unsure.append(f"'{found[0]}' as item_id")
    for role in (TITLE, PRICE):
        found = _best(role, columns, set(roles.values()))
        if found is not None:
            roles[role] = found[0]
    parent = _best(PARENT, columns, set(roles.values()))
    if parent is not None and columns[parent[0]].distinct < 1:
        roles[PARENT] = parent[0]
    return roles, unsure


def roles_of(columns: Mapping[str, ColumnProfile]) -> Roles:
    """Infer the kind of a table and the roles of its columns."""
    events, unsure = _event_roles(columns)
    items, unsure_items = _item_roles(columns)
    acts = USER in events or KIND in events or SESSION in events
    if (properties := _long_form(columns)) is not None and USER not in events and ITEM in events:
        return Roles(TableKind.properties, {ITEM: events[ITEM]}, (), properties)
    if (
        (TIME in events or ORDER in events or USER in events)
        and ITEM in events
        and acts
        and _happens(columns, events, items)
    ):
        if USER not in events:
            _guess_user(columns, events, unsure)
        titled = items.get(TITLE)
        telling = titled is not None and titled not in events.values() and columns[titled].words > 1.2
        if telling and titled is not None:
            price = items.get(PRICE)
            priced = {PRICE: price} if price is not None and price not in events.values() else {}
            return Roles(TableKind.both, {**events, TITLE: titled, **priced}, tuple(unsure))
        return Roles(TableKind.events, events, tuple(unsure))
    if ITEM in items and (TITLE in items or len(columns) > 1) and USER not in events:
        return Roles(TableKind.items, items, tuple(unsure_items))
    if ITEM in items and TITLE in items:
        return Roles(TableKind.items, items, tuple(unsure_items))
    return Roles(TableKind.unknown, {**items, **events}, ())


def _happens(
    columns: Mapping[str, ColumnProfile], events: Mapping[str, str], items: Mapping[str, str]
) -> bool:
    """Return whether rows are events, not items with a date: ids repeat, or there is a kind or a user."""
    if KIND in events and any(usual_kind(v) for v in columns[events[KIND]].samples):
        return True
    if USER in events and _score(USER, columns[events[USER]]) > LIKELY:
        return True
    return columns[events[ITEM]].distinct < 0.95 and not (TITLE in items and PRICE in items)


def _guess_user(columns: Mapping[str, ColumnProfile], roles: dict[str, str], unsure: list[str]) -> None:
    """Take an order or session as the user if there is no user column."""
    if SESSION in roles:
        roles[USER] = roles.pop(SESSION)
        unsure.append(f"'{roles[USER]}' as user_id: nothing says who the shopper was, so every order is one")


def headerless_items(columns: Mapping[str, ColumnProfile]) -> dict[str, str]:
    """Assign the roles of an item by values alone: a key, nearly distinct texts, a decimal number."""
    left = {name: c for name, c in columns.items() if not c.nested and c.filled > 0}
    ids = [n for n, c in left.items() if c.distinct == 1 and c.filled == 1 and c.code > 0.9 and not c.url]
    texts = [n for n, c in left.items() if c.words > 1.2 and c.distinct > 0.5 and c.number < 0.5]
    if not ids or not texts:
        return {}
    prices = [n for n, c in left.items() if c.decimal > 0.5 and n != ids[0]]
    return {ITEM: ids[0], TITLE: texts[0], **({PRICE: prices[0]} if prices else {})}


def headerless_roles(columns: Mapping[str, ColumnProfile]) -> dict[str, str]:
    """Assign the roles of an event by values alone, for a file without a header."""
    roles: dict[str, str] = {}
    left = {name: c for name, c in columns.items() if not c.nested and c.filled > 0}
    tests: tuple[tuple[str, Callable[[ColumnProfile], bool]], ...] = (
        (TIME, lambda c: c.written_time > 0.9),
        (TIME, lambda c: c.time > 0.9),
        (KIND, lambda c: c.values <= _KINDS and any(usual_kind(v) for v in c.samples)),
    )
    for role, fits in tests:
        if role not in roles and (found := next((n for n, c in left.items() if fits(c)), None)):
            roles[role] = found
            left.pop(found)
    amounts = {n for n, c in left.items() if c.number > 0.9 and any("." in v for v in c.samples)}
    ids = [n for n, c in left.items() if c.code > 0.9 and c.values > 1 and n not in amounts]
    if len(ids) >= 2:
        roles[USER], roles[ITEM] = ids[0], ids[1]
    elif ids and (texts := [n for n, c in left.items() if c.words > 1.2 and c.number < 0.5]):
        roles[USER], roles[ITEM] = ids[0], texts[0]  # items known by their titles
    return roles
