"""Values inside objects and lists: paths of `data.columns` into them, and columns that need one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import polars as pl

from conf.composition.overrides import override
from conf.errors import InputError, closest
from features.files.readers import RawTable


def _fields(dtype: pl.DataType) -> list[str]:
    """Return the fields of an object, or of the objects in a list."""
    while isinstance(dtype, pl.List | pl.Array):
        dtype = dtype.inner  # type: ignore[assignment]
    return [field.name for field in dtype.fields] if isinstance(dtype, pl.Struct) else []


def _start(path: str, columns: Iterable[str]) -> str:
    """Return the column that a path begins with; column names may contain dots."""
    return max((c for c in columns if path.startswith(f"{c}.")), key=len, default="")


def flatten(table: RawTable, paths: Iterable[str]) -> RawTable:
    """Add a column for every path into objects, named as the path; lists become rows.

    Rows with an empty list are dropped.

    Args:
        table: the raw table.
        paths: values of `data.columns`; names of columns, and paths of other tables, are ignored.

    Raises:
        InputError: a field that the objects do not have, or paths through two lists beside each other.
    """
    frame = table.frame
    listed = ""
    for path in dict.fromkeys(paths):
        types = frame.collect_schema()
        here = _start(path, table.columns)
        if path in types or not here or not _fields(types[here]):
            continue
        for part in path[len(here) + 1 :].split("."):
            dtype = frame.collect_schema()[here]
            if isinstance(dtype, pl.List | pl.Array):
                if listed and not here.startswith(listed):
                    raise InputError(
                        f"{table.name}: '{path}' leads through a list beside the list '{listed}', and rows "
                        "of both would be combined; name columns of one of them"
                    )
                listed = here
                as_list = pl.col(here).arr.to_list() if isinstance(dtype, pl.Array) else pl.col(here)
                frame = frame.with_columns(as_list).explode(here, empty_as_null=False, keep_nulls=False)
                dtype = frame.collect_schema()[here]
            fields = _fields(dtype)
            if part not in fields:
                raise InputError(
                    f"data.columns: no field '{part}' in '{here}' of {table.name}"
                    f"{closest(part, fields) or '.'} Fields: {', '.join(fields) or 'none'}"
                )
            frame = frame.with_columns(pl.col(here).struct.field(part).alias(f"{here}.{part}"))
            here = f"{here}.{part}"
    return replace(table, frame=frame)


def spread(frame: pl.LazyFrame, name: str, beside: Mapping[str, pl.Expr]) -> pl.LazyFrame:
    """Make a row of every value in a column of lists, with the values that stand at its place in other lists.

    A list of another length gives its rows no value: what is said of several items together (`3` beside
    three ids) is not true of each of them.

    Args:
        frame: `name` holds lists, none of them empty.
        name: the column.
        beside: other columns and their values as lists.
    """
    size = pl.col(name).list.len()
    fitting = {
        other: pl.when(lists.list.len() == size).then(lists).otherwise(pl.lit(None).repeat_by(size))
        for other, lists in beside.items()
    }
    frame = frame.with_columns(lists.alias(other) for other, lists in fitting.items())
    return frame.explode(name, *fitting, empty_as_null=False, keep_nulls=False)


def rows_of_lists(table: RawTable, name: str, beside: Iterable[str] = ()) -> RawTable:
    """Make a row of every value, where a column holds lists of plain values: an order with several items.

    Args:
        table: the table; a row whose list is empty is passed over.
        name: the column.
        beside: columns whose lists, or values, belong to those of `name`.
    """
    types = table.frame.collect_schema()
    dtype = types.get(name)
    if not isinstance(dtype, pl.List | pl.Array) or dtype.inner.is_nested():
        return table
    as_list = pl.col(name).arr.to_list() if isinstance(dtype, pl.Array) else pl.col(name)
    lists = {c: pl.col(c) if types[c].is_nested() else pl.concat_list(c) for c in beside if c in types}
    frame = table.frame.with_columns(as_list).filter(pl.col(name).list.len() > 0)
    return replace(table, frame=spread(frame, name, lists))


def require_flat(table: RawTable, names: Iterable[str], prefix: str) -> None:
    """Check that columns of the contract hold plain values.

    Args:
        table: the table after `map_columns`.
        names: columns of the contract.
        prefix: `items` or `events`, for the fix in the message.

    Raises:
        InputError: naming the column, what it holds, and the path that reads it.
    """
    types = table.frame.collect_schema()
    for name in names:
        dtype = types.get(name)
        if dtype is None or not (dtype.is_nested() or dtype in (pl.Binary, pl.Object)):
            continue
        fields = _fields(dtype)
        what = "lists of objects" if isinstance(dtype, pl.List | pl.Array) else "objects"
        if not fields:
            kind = "lists" if dtype.is_nested() else "bytes"
            rename = override("data.columns", {f"{prefix}.{name}_raw": name})
            raise InputError(
                f"{table.name}: column '{name}' holds {kind} ({dtype}), no plain values; map another column "
                f"to it, or leave it out under another name: {rename}"
            )
        path = override("data.columns", {f"{prefix}.{name}": f"{name}.{fields[0]}"})
        raise InputError(
            f"{table.name}: column '{name}' holds {what} with the fields {', '.join(fields)}; a path reads "
            f"one of them, e.g. {path}"
        )
