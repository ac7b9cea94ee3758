"""Opening files for inspection: their tables, formats and column profiles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from conf.errors import InputError
from features.files.containers import ARCHIVES, WORKBOOKS, members, split
from features.files.readers import BOOKKEEPING, KNOWN, RawTable, TextOptions, readable, scan_table
from features.files.spreadsheets import sheet_names
from features.ingest.nested import flatten
from features.ingest.raw_tables import first_line
from features.inspection.known import by_double_colons, known_by
from features.inspection.profiles import ColumnProfile, profiles
from features.inspection.roles import Roles, TableKind, headerless_items, headerless_roles, roles_of
from features.values.names import ITEM, name_score

SETTING = "inspect"
_TEXT = (".csv", ".txt", ".dat", ".tsv", ".tab")
_ENCODINGS = (None, "mac_roman", "cp1252")
"""UTF-8 first; of the others, the one named by the error message is tried."""
_DATA = re.compile(r"\s*(?:[\d.,:/+ -]*\d[\d.,:/+ -]*|\d{4}-\d\d-\d\dT\S+|https?://\S+|\S+@\S+\.\w+)\s*")
"""A cell that is unlikely in a header: a number, a time, a link or an address."""
_CERTAIN = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d|^\s*\d{6,}\s*$|^\s*\d+[.,]\d{1,2}\s*$")
_EVENT_ROLES = 3
_BELOW = 1000
"""Rows searched for values of the first line."""


@dataclass(frozen=True)
class FileFacts:
    """One table and its properties."""

    path: str
    error: str = ""
    """Error on opening it, or empty."""
    encoding: str | None = None
    header: bool = True
    rows: int = 0
    """Sampled rows."""
    more: bool = False
    """Whether there are more rows."""
    sample: pl.DataFrame = field(default_factory=pl.DataFrame)
    columns: Mapping[str, ColumnProfile] = field(default_factory=dict)
    roles: Roles = field(default_factory=lambda: Roles(TableKind.unknown))
    presets: tuple[tuple[str, str], ...] = ()
    """Presets that read the file, each with its table in them."""
    paths: tuple[str, ...] = ()
    """Paths of columns inside objects."""

    def scan(self) -> RawTable:
        """Return the table in its detected format, with the columns inside objects."""
        table = scan_table(self.path, SETTING, TextOptions(header=self.header, encoding=self.encoding))
        return flatten(table, self.paths) if self.paths else table


def tables_in(path: str) -> list[str]:
    """Return the tables of a path: the members of an archive, the sheets of a workbook, or the file itself.

    Raises:
        InputError: no such file, or an archive or workbook that cannot be opened.
    """
    file, inside = split(path)
    if not Path(file).is_file():
        raise InputError(f"inspect: no such file: {path} (looked from {Path.cwd()})")
    if inside is None and file.lower().endswith(ARCHIVES):
        found = [f"{file}/{name}" for name in members(file, KNOWN)]
        if not found:
            raise InputError(f"inspect: {file}: no table in it")
        return found
    if inside is None and file.lower().endswith(WORKBOOKS):
        names = sheet_names(file)
        return [file] if len(names) == 1 else [f"{file}/{name}" for name in names]
    return [path]


def _looks_like_data(table: RawTable) -> bool:
    """Return whether a first line is data: it has a time, a long number, or values that recur below."""
    names = [name for name in table.columns if not re.fullmatch(r"column_\d+", name)]
    if any(_CERTAIN.search(name) for name in names):
        return True
    if sum(bool(_DATA.fullmatch(name)) for name in names) * 3 > len(table.columns):
        return True
    below = table.frame.select(names).head(_BELOW).collect(engine="streaming")
    recurring = sum(name in below[name] for name in names)
    return 0 < recurring < len(names)  # a repeated header recurs as a whole


def _leaves(name: str, dtype: pl.DataType, lists: bool) -> list[str]:
    """Return the paths to plain values inside objects; with `lists`, in lists of objects, too."""
    if lists and isinstance(dtype, pl.List | pl.Array) and isinstance(dtype.inner, pl.Struct):
        dtype = dtype.inner
    if not isinstance(dtype, pl.Struct):
        return []
    found = []
    for each in dtype.fields:
        inner = each.dtype
        assert isinstance(inner, pl.DataType)
        path = f"{name}.{each.name}"
        found += _leaves(path, inner, lists=False) if inner.is_nested() else [path]
    return found


def _flat(sample: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Add the values inside objects as columns; a list of objects becomes rows only if it holds the items.

    Returns:
        The sample, and the added paths.
    """
    paths = [path for name, dtype in sample.schema.items() for path in _leaves(name, dtype, lists=False)]
    table = RawTable(sample.lazy())
    flat = flatten(table, paths).frame.collect() if paths else sample
    if ITEM in roles_of(profiles(flat)).columns:
        return flat, tuple(paths)
    for name, dtype in sample.schema.items():
        inside = _leaves(name, dtype, lists=True) if isinstance(dtype, pl.List) else []
        if any(name_score(ITEM, path) > 0 for path in inside):
            return flatten(table, [*paths, *inside]).frame.collect(), (*paths, *inside)
    return flat, tuple(paths)


def _guessed(columns: Mapping[str, ColumnProfile]) -> Roles:
    """Infer the roles of a table without column names from its values."""
    events = headerless_roles(columns)
    if len(events) >= _EVENT_ROLES:
        note = "the columns have no names: user and item are guessed by their place"
        return Roles(TableKind.events, events, (note,))
    if items := headerless_items(columns):
        note = "the columns have no names: id, title and price are guessed by their values"
        return Roles(TableKind.items, items, (note,))
    return Roles(TableKind.unknown, events)


def look_at(path: str, rows: int) -> FileFacts:
    """Open a table and profile its first rows.

    Args:
        path: a file, a member of an archive or a sheet.
        rows: size of the sample.
    """
    is_text = any(s.lower() in _TEXT for s in Path(path).suffixes)
    start = first_line(path) if is_text and not path.lower().endswith((".gz", ".zst")) else ""
    if movielens := by_double_colons(start):
        return FileFacts(path, presets=tuple(movielens))
    message = ""
    for encoding in _ENCODINGS:
        if encoding is not None and encoding not in message:
            continue
        try:
            table = scan_table(path, SETTING, TextOptions(encoding=encoding))
            header = not (is_text and _looks_like_data(table))
            if not header:
                table = scan_table(path, SETTING, TextOptions(header=False, encoding=encoding))
            with readable(path):
                sample = table.frame.head(rows + 1).collect(engine="streaming")
        except InputError as error:
            message = str(error).removeprefix(f"{SETTING}: ")
            if encoding is None and "data.encoding" in message:
                continue
            return FileFacts(path, message)
        if sample.is_empty():
            names = ", ".join(c for c in sample.columns if c not in BOOKKEEPING)
            return FileFacts(path, f"no data rows, only the names of columns ({names})")
        more = sample.height > rows
        sample, paths = _flat(sample.head(rows))
        columns = profiles(sample)
        roles = roles_of(columns)
        if not header:
            roles = _guessed(columns)
        presets = tuple(known_by(table.columns, start))
        return FileFacts(
            path, "", encoding, header, sample.height, more, sample, columns, roles, presets, paths
        )
    return FileFacts(path, message)
