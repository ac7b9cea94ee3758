"""Sheets of workbooks (Excel, OpenDocument) as text, read by calamine through fastexcel."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import polars as pl

from conf.errors import InputError
from features.files.column_names import header_name
from features.files.no_tables import refuse_pages

if TYPE_CHECKING:
    from fastexcel import ExcelReader

_LOOKED_AT = 50
"""Rows at the top of a sheet that are searched for the header."""


def _open(file: str) -> ExcelReader:
    refuse_pages(file)
    try:
        import fastexcel
    except ImportError as error:
        raise InputError(f"{file}: spreadsheets need fastexcel: pip install 'shelfwise[xlsx]'") from error
    try:
        return fastexcel.read_excel(file)
    except fastexcel.FastExcelError as error:
        raise InputError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from error


def read_sheet(file: str, sheet: str | None, setting: str) -> tuple[pl.DataFrame, int]:
    """Read a sheet, every cell as text: whole numbers without `.0`, dates in ISO form; blank cells are null.

    Headings above the table are skipped: its header is the first row at least half as full as the fullest.

    Args:
        file: the workbook.
        sheet: its name, or None where only one sheet has content.
        setting: name of the setting, for messages.

    Returns:
        The rows below the header, blank ones included, and the number of rows above the first of them.

    Raises:
        InputError: fastexcel is missing, no such sheet, several sheets of which none is named, or an empty
        one.
    """
    book = _open(file)
    names = book.sheet_names
    if sheet is not None and sheet not in names:
        raise InputError(f"{setting}: no sheet '{sheet}' in {file}; it has {', '.join(names)}")
    tables = {
        name: book.load_sheet(name, header_row=None, dtypes="string").to_polars()
        for name in (names if sheet is None else [sheet])
    }
    filled = {name: table for name, table in tables.items() if table.height > 1}
    if not filled:
        raise InputError(f"{setting}: {file}: no rows in it")
    if len(filled) > 1:
        example = shlex.quote(f"{setting}={file}/{next(iter(filled))}")
        raise InputError(
            f"{setting}: {file} has several sheets ({', '.join(filled)}); name one, e.g. {example}"
        )
    cells = next(iter(filled.values()))
    full = cells.head(_LOOKED_AT).select(pl.sum_horizontal(pl.all().is_not_null())).to_series()
    widest = int(full.max() or 0)  # type: ignore[arg-type]
    header = next(i for i, count in enumerate(full) if 2 * int(count) >= widest)
    return cells, header + 1


def sheet_table(file: str, sheet: str | None, setting: str, row: str) -> pl.DataFrame:
    """Return a sheet as a table of text with its row numbers, the first below the header being 1.

    Args:
        file: the workbook.
        sheet: its name, or None.
        setting: for messages.
        row: name of the column of row numbers.
    """
    cells, start = read_sheet(file, sheet, setting)
    header = cells.row(start - 1)
    names: list[str] = []
    for place, name in enumerate(header, 1):
        plain = header_name("" if name is None else str(name), place)
        choices = (plain, f"{plain}_{place}")
        names.append(next(c for c in choices if c not in names))
    table = cells.slice(start).rename(dict(zip(cells.columns, names, strict=True)))
    nameless = [n for n, given in zip(names, header, strict=True) if given is None and not table[n].count()]
    table = table.drop(nameless).with_row_index(row, offset=1)
    return table.filter(pl.any_horizontal(pl.exclude(row).is_not_null()))


def sheet_names(file: str) -> list[str]:
    """Return the sheets of a workbook that have rows.

    Raises:
        InputError: fastexcel is missing, or the file cannot be read.
    """
    book = _open(file)
    return [n for n in book.sheet_names if book.load_sheet(n, header_row=None, dtypes="string").height > 1]
