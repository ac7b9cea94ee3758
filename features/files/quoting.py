"""Text tables whose quotation marks are not what CSV wants: found line by line, written anew where needed.

RFC 4180 quotes a whole field and doubles the marks inside. Files of shops hold inches (`TV 55"`), marks that
are never closed and descriptions of several lines; a parser that trusts every mark reads everything up to the
next one as one field. Where every line's marks pair up the file is read as it is. Any other file is written
anew with the quoting that its records show: a mark counts as quoting only at the beginning of a field, and a
field that runs over several lines is believed only where these lines are no rows of their own.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

_LINE = "line"
_MOST_LINES = 1000
"""Lines that one field may have; a mark that is not closed by then opened nothing."""
_BATCH = 50_000
_CERTAIN = 3
"""Lines like rows that are rows, even if no number or code says so."""
_CODE = re.compile(r"\S*\d\S*")
_NUMERIC = re.compile(r"[\d.,:/+ -]*\d[\d.,:/+ -]*")


@dataclass(frozen=True)
class Lines:
    """What the lines of a text table are like."""

    irregular: bool
    """Some line's quotation marks do not pair up around whole fields."""
    blank: bool
    """Some line holds nothing, or separators alone."""


@dataclass(frozen=True)
class _Parsed:
    """The fields of one line; `open_at` is where the field whose mark is not closed begins, or -1."""

    fields: list[str]
    open_at: int = -1


def survey(path: str, separator: str) -> Lines:
    """Read every line of a file once, as a stream.

    Raises:
        polars.exceptions.ComputeError: the file is not UTF-8 text.
    """
    sep = re.escape(separator)
    # A tab inside quotation marks is hardly ever meant: a lone mark has swallowed the end of a field.
    bare, quoted = f'[^"{sep}]*', '"(?:[^"\t]|"")*"' if separator == "\t" else '"(?:[^"]|"")*"'
    regular = f"^\ufeff?(?:{bare}|{quoted})(?:{sep}(?:{bare}|{quoted}))*\\r?$"
    line = pl.col(_LINE)
    marked = line.str.contains('"', literal=True)
    odd = marked & ~pl.when(marked).then(line).str.contains(regular)
    found = pl.scan_lines(path, name=_LINE).select(
        odd.any().alias("odd"), line.str.contains(f"^[\\s{sep}]*$").any().alias("blank")
    )
    odd_lines, blank = found.collect(engine="streaming").row(0)
    return Lines(bool(odd_lines), bool(blank))


def head(path: str, count: int) -> list[str]:
    """Return the first lines of a file, without a byte order mark."""
    lines = pl.scan_lines(path, name=_LINE).head(count).collect()[_LINE].to_list()
    return [line.removeprefix("\ufeff").removesuffix("\r") for line in lines]


def all_lines(path: str) -> Iterator[str]:
    """Give every line of a file, compressed or not, holding a few thousand at a time."""
    scan = pl.scan_lines(path, name=_LINE)
    for batch in scan.collect_batches(maintain_order=True, chunk_size=_BATCH, engine="streaming"):
        yield from batch[_LINE].to_list()


def _closing(line: str, start: int, separator: str) -> int:
    """Return where the field that opens before `start` closes: at a mark before a separator or the end."""
    place = line.find('"', start)
    while place >= 0:
        after = line[place + 1 : place + 2]
        if after in ("", separator):
            return place
        place = line.find('"', place + (2 if after == '"' else 1))
    return -1


def _parse(line: str, separator: str) -> _Parsed:
    """Divide one line into fields; marks inside a field are part of it."""
    if '"' not in line:
        return _Parsed(line.split(separator))
    fields: list[str] = []
    place = 0
    while True:
        if line.startswith('"', place):
            close = _closing(line, place + 1, separator)
            if close < 0:
                return _Parsed(fields, place)
            fields.append(line[place + 1 : close].replace('""', '"'))
            place = close + 1
        else:
            end = line.find(separator, place)
            end = len(line) if end < 0 else end
            fields.append(line[place:end])
            place = end
        if place >= len(line):
            return _Parsed(fields)
        place += 1  # past the separator


def _stray(fields: list[str], rest: str, separator: str) -> list[str]:
    """Read a line whose last mark opens nothing: a lone mark goes, the separators count."""
    first, *others = rest.split(separator)
    if first.count('"') == 1:
        first = first[1:]
    elif first.endswith('"'):  # "TV 55"": quoted, but the mark inside was not doubled
        first = first[1:-1].replace('""', '"')
    return [*fields, first, *others]


def _kind(field: str) -> str:
    """Return what a field looks like: a number, a code (one word with a digit) or text."""
    if _NUMERIC.fullmatch(field):
        return "number"
    return "code" if _CODE.fullmatch(field) else "text"


def _likeness(line: str, separator: str, row: Sequence[str]) -> int:
    """Return in how many numbers and codes a line agrees with a row; -1 where it is no row of that table.

    Prose may have as many separators, but blanks behind them, and seldom numbers in the same places.
    """
    parsed = _parse(line, separator)
    fields = parsed.fields
    if parsed.open_at >= 0 or len(fields) != len(row) or any(field[:1] == " " for field in fields):
        return -1
    kinds = [(_kind(a), _kind(b)) for a, b in zip(fields, row, strict=True)]
    alike = [a == b for a, b in kinds]
    if not alike[0] or 2 * sum(alike) <= len(alike):
        return -1
    return sum(a == b != "text" for a, b in kinds)


def _swallows(spanned: Sequence[str], separator: str, row: Sequence[str], fits: bool) -> bool:
    """Whether a field of several lines has rows inside: most of its lines are rows like another one.

    Args:
        spanned: the lines after the first.
        separator: of fields.
        row: a row of the table.
        fits: whether the whole record has as many fields as the header.
    """
    likeness = [_likeness(line, separator, row) for line in spanned]
    rows = sum(like >= 0 for like in likeness)
    told = max(likeness) > 0 or rows >= _CERTAIN
    return len(row) > 1 and told and 2 * rows >= len(spanned) and (likeness[-1] >= 0 or not fits)


def records(lines: Iterable[str], separator: str, width: int) -> Iterator[list[str]]:
    """Divide lines into records, each a list of fields; a blank line is the record of one empty field.

    A quotation mark that is never closed, or that closes only after rows of their own, costs its own row
    at most.

    Args:
        lines: of the file, without their ends.
        separator: of fields.
        width: fields of the header.
    """
    ahead: deque[str] = deque()
    source = iter(lines)
    row: list[str] = []  # the last one without an open mark
    while True:
        if not ahead:
            ahead.extend(islice(source, 1))
            if not ahead:
                return
        line = ahead.popleft().removesuffix("\r")
        if '\\"' in line:  # databases write a mark inside a field as \"
            escaped = _parse(line.replace('\\"', '""'), separator)
            if escaped.open_at < 0 and len(escaped.fields) == width:
                row = escaped.fields
                yield row
                continue
        parsed = _parse(line, separator)
        if parsed.open_at < 0:
            fields = parsed.fields
            if len(fields) < width and line.count(separator) == width - 1:
                fields = [field.strip('"') for field in line.split(separator)]  # "Boots,9.99,"new"
            if len(fields) == width:
                row = fields
            yield fields
            continue
        rest = line[parsed.open_at :]
        literal = _stray(parsed.fields, rest, separator)
        taken = _continued(parsed.fields, rest, ahead, source, separator)
        if taken is not None:
            fields, count = taken
            spanned = list(islice(ahead, count))
            if not _swallows(spanned, separator, row or literal, len(fields) == width):
                for _ in range(count):
                    ahead.popleft()
                yield fields
                continue
        yield literal


def _continued(
    fields: list[str], rest: str, ahead: deque[str], source: Iterator[str], separator: str
) -> tuple[list[str], int] | None:
    """Follow an open field over further lines to the end of its record.

    Returns:
        The record's fields and how many further lines it takes, or None where the field is not closed, or
        a mark that opens another field comes first.
    """
    fields, text, count = list(fields), rest, 0
    while count < _MOST_LINES:
        if count == len(ahead):
            ahead.extend(islice(source, 1))
        if count == len(ahead):
            return None
        line = ahead[count].removesuffix("\r")
        count += 1
        close = _closing(line, 0, separator)
        before = line if close < 0 else line[:close]
        if re.search(f'(?:^|{re.escape(separator)})"(?!")', before):
            return None
        if close < 0:
            text += "\n" + line
            continue
        fields.append((text[1:] + "\n" + before).replace('""', '"'))
        if close + 1 >= len(line):
            return fields, count
        more = _parse(line[close + 2 :], separator)
        fields.extend(more.fields)
        if more.open_at < 0:
            return fields, count
        text = line[close + 2 + more.open_at :]
    return None


def rewrite(path: str, target: Path, separator: str, skipped: int, width: int) -> None:
    """Write a file's records anew, each quoted as RFC 4180 wants.

    Args:
        path: the file.
        target: the file to write, in UTF-8.
        separator: of fields, in both.
        skipped: lines at the beginning that are left out.
        width: fields of the header.
    """
    lines = islice(all_lines(path), skipped, None)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows(
            [] if record == [""] else record for record in records(lines, separator, width)
        )
