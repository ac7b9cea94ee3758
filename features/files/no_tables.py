"""Files that hold a table in a form that cannot be read, and how to export it instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from conf.errors import InputError

_PAGE = re.compile(r"(?i)\s*<(?:!doctype html|html|head|body|meta|style|table|div)\b")
_XML_WORKBOOK = re.compile(r"(?i)\s*<\?xml\b")
_FRAME = re.compile(r"\s*\+(?:[-=]+\+)+\s*")
_RULE = re.compile(r"\s*(?:-{2,}(?:\+-{2,})+|\|(?:\s*:?-{2,}:?\s*\|)+)\s*")
"""The line below the header: `----+----` of psql, `|---|---|` of Markdown."""
_LOOKED_AT = 5
_START = 1000


def refuse_pages(path: str) -> None:
    """Refuse a web page or an XML workbook that is called a spreadsheet.

    Raises:
        InputError: naming what the file is, and how to save it.
    """
    with Path(path).open("rb") as file:
        start = file.read(_START).decode("utf-8", errors="replace").lstrip("\ufeff")
    for form, what in ((_PAGE, "a web page (HTML)"), (_XML_WORKBOOK, "an XML document")):
        if form.match(start):
            raise InputError(
                f"{path}: it is {what} with the name of a spreadsheet; open it in a spreadsheet program and "
                "save it as .xlsx or .csv"
            )


def refuse_drawings(path: str, lines: Sequence[str]) -> None:
    """Refuse a web page, and a table that a terminal has drawn, by the first lines of a text file.

    Raises:
        InputError: naming what the file is, and how to export the table.
    """
    first = [line for line in lines if line.strip()][:_LOOKED_AT]
    if first and _PAGE.match(first[0]):
        raise InputError(f"{path}: it is a web page (HTML), no table; was the download signed in?")
    if any(_FRAME.fullmatch(line) for line in first) or any(_RULE.fullmatch(line) for line in first[1:]):
        raise InputError(
            f"{path}: it is a table drawn for the screen; export it with `mysql --batch -e 'SELECT ...' > "
            "FILE.tsv` or `psql --csv -c 'SELECT ...' > FILE.csv`"
        )
