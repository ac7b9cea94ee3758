"""Names of columns as tables are read: those of a header, and none that Polars takes for several."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl


def is_pattern(name: str) -> bool:
    """Return whether Polars takes the name of a column for a pattern of several: `*`, or `^...$`."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def header_name(written: str, place: int) -> str:
    """Return the name of a column of a header: without blanks around it, `column_N` for one without a name.

    Args:
        written: what the header has.
        place: of the column, from 1.

    """
    name = " ".join(written.split())
    return f"column_{place}" if not name or is_pattern(name) else name


def without_patterns(frame: pl.LazyFrame, apart: Collection[str] = ()) -> pl.LazyFrame:
    """Return a typed table whose columns with names that are patterns are called `column_N`.

    Args:
        frame: the table.
        apart: columns that are not of the file, and not counted.

    """
    names = [name for name in frame.collect_schema().names() if name not in apart]
    renamed = {name: f"column_{place}" for place, name in enumerate(names, 1) if is_pattern(name)}
    return frame.rename(renamed) if renamed else frame
