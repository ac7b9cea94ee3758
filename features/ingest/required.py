"""Required columns: all missing ones are reported at once, with the setting that maps them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from conf.composition.overrides import override
from conf.errors import InputError, closest, nearest
from features.data import schema
from features.files.readers import RawTable
from features.values.names import LIKELY, NAMES, name_score

_PLACEHOLDER = "COLUMN"
IN_FILE_ORDER = {"data.file_order": True, "split": "leave_one_out"}
"""Settings that read events without times."""
_LIKE_DATA = r"[\d.,:-]+"
"""A column named like a number: the file has no header."""


def _likely(name: str, columns: Sequence[str]) -> str:
    """Return the most probable column for a contract name, or an empty string."""
    if near := nearest(name, columns):
        return near
    if name not in NAMES:
        return ""
    best = max(columns, key=lambda column: name_score(name, column), default="")
    return best if best and name_score(name, best) > LIKELY else ""


def _missing(table: RawTable, names: Sequence[str], prefix: str) -> tuple[str, dict[str, str], str]:
    """Describe the missing columns of a table.

    Returns:
        A sentence, the mapping of likely columns, and the setting for a file without a header; all empty if
        nothing is missing.

    Raises:
        InputError: there is no column at all.
    """
    existing = table.columns
    if not existing:
        raise InputError(f"{table.name}: no data rows")
    lacking = [name for name in dict.fromkeys(names) if name not in existing]
    if not lacking:
        return "", {}, ""
    mapping: dict[str, str] = {}
    free = [column for column in existing if column not in names]
    for name in lacking:
        found = _likely(name, [column for column in free if column not in mapping.values()])
        mapping[f"{prefix}.{name}"] = found or _PLACEHOLDER
    if len(lacking) == 1:
        lack = f"no column '{lacking[0]}'{closest(lacking[0], existing) or '.'}"
    else:
        *first, last = (f"'{name}'" for name in lacking)
        lack = f"no columns {', '.join(first)} and {last}."
    bare = any(re.fullmatch(_LIKE_DATA, column) for column in existing)
    return (
        f"{table.name}: {lack} Columns: {', '.join(existing)}",
        mapping,
        override("data.without_header", [prefix]) if bare else "",
    )


def _raise_missing(missing: Sequence[tuple[str, dict[str, str], str]]) -> None:
    """Raise an error on the missing columns of both tables, in one line."""
    found = [each for each in missing if each[0]]
    if not found:
        return
    mapping = {key: column for _, columns, _ in found for key, column in columns.items()}
    setting = override("data.columns", mapping)
    them = "it" if len(mapping) == 1 else "them"
    if _PLACEHOLDER not in mapping.values():
        fix = f"{setting} takes {them}"
    elif len(mapping) == 1:
        fix = f"Set {setting} to the one in the file"
    else:
        fix = f"Set {setting} with the columns of the files in place of {_PLACEHOLDER}"
    for _, _, headerless in found:
        if headerless:
            fix += f"; where the first line is data, add {headerless}"
    time = f"events.{schema.TIMESTAMP}"
    others = {key: column for key, column in mapping.items() if key != time}
    if mapping.get(time) == _PLACEHOLDER and _PLACEHOLDER not in others.values():
        settings = {**({"data.columns": others} if others else {}), **IN_FILE_ORDER}
        typed = " ".join(override(key, value) for key, value in settings.items())
        fix += f"; where there are no times, {typed} takes the order of the file"
    raise InputError(f"{'; '.join(lack for lack, _, _ in found)}. {fix}")


def require_columns(table: RawTable, names: Sequence[str], prefix: str) -> None:
    """Check that a table has columns.

    Args:
        table: the table after `map_columns`.
        names: required columns.
        prefix: `items` or `events`, for the fix in the message.

    Raises:
        InputError: naming all missing columns, what exists, and what to set.
    """
    _raise_missing([_missing(table, names, prefix)])


def require_contract(items: RawTable, events: RawTable | None) -> None:
    """Check that both tables have the columns that the data contract requires.

    Raises:
        InputError: naming all missing columns of both, and the one setting that maps them.
    """
    missing = [_missing(items, (schema.ITEM_ID,), "items")]
    if events is not None:
        names = [schema.USER_ID, schema.ITEM_ID]
        if schema.ORDER not in events.columns:
            names.append(schema.TIMESTAMP)
        missing.append(_missing(events, names, "events"))
    _raise_missing(missing)
