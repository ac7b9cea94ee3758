"""Item attributes converted from the API's types to the column types of a catalogue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Final

import polars as pl

from conf.errors import closest
from features.data import schema
from ranking.catalogue.filter_language import AttributeKind

DECLARED_TYPES: Final[Mapping[AttributeKind, pl.DataType]] = {
    AttributeKind.string: pl.String(),
    AttributeKind.number: pl.Float64(),
    AttributeKind.boolean: pl.Boolean(),
    AttributeKind.time: pl.Datetime("us"),
    AttributeKind.list: pl.List(pl.String()),
}
"""Column types of attributes that were declared after the bundle was made."""


def overlay_schema(columns: pl.Schema) -> dict[str, pl.DataType]:
    """Return the column types of added and changed items, which filters treat like the catalogue's.

    Enumerations become text, because these items may have new values.
    """
    types: dict[str, pl.DataType] = {}
    for name, dtype in columns.items():
        if isinstance(dtype, (pl.Categorical, pl.Enum)):
            types[name] = pl.String()
        elif isinstance(dtype, pl.Datetime):
            types[name] = pl.Datetime("us")
        elif isinstance(dtype, pl.Decimal):
            types[name] = pl.Float64()
        else:
            types[name] = dtype
    return types


def typed_values(
    attributes: Mapping[str, object], columns: Mapping[str, pl.DataType]
) -> tuple[dict[str, object], list[str]]:
    """Convert attributes to the types of columns.

    Args:
        attributes: text, numbers, bools and lists of text or numbers by name; None for no value.
        columns: of the catalogue, see `overlay_schema`.

    Returns:
        A value (or None) for every column but the item's id and text, and the error messages; an invalid
        value is None.

    """
    names = [name for name in columns if name not in (schema.ITEM_ID, schema.TEXT)]
    values: dict[str, object] = dict.fromkeys(names)
    faults: list[str] = []
    for name, given in attributes.items():
        if name not in values:
            faults.append(f"unknown attribute '{name[:64]}'{closest(name[:64], names)}")
            continue
        if given is None:
            continue
        try:
            values[name] = _typed(given, columns[name])
        except ValueError as error:
            faults.append(f"attribute '{name}': {error}")
    return values, faults


def patched(
    values: Mapping[str, object], patch: Mapping[str, object], columns: Mapping[str, pl.DataType]
) -> dict[str, object]:
    """Return an item's values after a patch.

    Args:
        values: typed as the columns.
        patch: new values by name in the API's types; None removes one, invalid ones are ignored.
        columns: of the catalogue, see `overlay_schema`.

    """
    changed = dict(values)
    for name, given in patch.items():
        if name in columns and name not in (schema.ITEM_ID, schema.TEXT):
            try:
                changed[name] = None if given is None else _typed(given, columns[name])
            except ValueError:
                continue
    return changed


def sendable(values: Mapping[str, object]) -> dict[str, object]:
    """Return typed values in the API's types, without missing ones: times are ISO text."""
    sent = {name: _sendable(value) for name, value in values.items()}
    return {name: value for name, value in sent.items() if value is not None}


def _sendable(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [sent for element in value if (sent := _sendable(element)) is not None]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, bool, int, float)) else None


def _typed(given: object, dtype: pl.DataType) -> object:
    """Return a value converted to a column's type.

    Raises:
        ValueError: with a message that follows the attribute's name.

    """
    if isinstance(dtype, pl.Boolean):
        if not isinstance(given, bool):
            raise ValueError("expected true or false")
        return given
    if isinstance(dtype, pl.String):
        if not isinstance(given, str):
            raise ValueError("expected text")
        return given
    if dtype.is_numeric():
        return _number(given, dtype)
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return _moment(given, dtype)
    if isinstance(dtype, pl.List):
        if not isinstance(given, list):
            raise ValueError("expected a list")
        inner = dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()
        return [_typed(element, inner) for element in given]
    raise ValueError("its type cannot be set")


def _number(given: object, dtype: pl.DataType) -> int | float:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not math.isfinite(given):
        raise ValueError("expected a number")
    if not dtype.is_integer():
        return float(given)
    if given != int(given):
        raise ValueError("expected a whole number")
    low, high = pl.select(low=dtype.min(), high=dtype.max()).row(0)  # type: ignore[attr-defined]
    if not low <= given <= high:
        raise ValueError(f"expected a whole number from {low} to {high}")
    return int(given)


def _moment(given: object, dtype: pl.DataType) -> object:
    if not isinstance(given, str):
        raise ValueError("expected an ISO date or time as text")
    try:
        moment = datetime.fromisoformat(given)
        moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):  # the latter: the time zone shifts it out of the years 1 to 9999
        raise ValueError("expected an ISO date or time as text") from None
    return moment.date() if isinstance(dtype, pl.Date) else moment
