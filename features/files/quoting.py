"""Text tables with malformed quoting: detected line by line, and rewritten.

RFC 4180 quotes a whole field and doubles the marks inside. Real files have inches (`TV 55"`), unclosed marks
and descriptions of several lines; a parser that trusts every mark reads everything up to the next one as one
field. Where every line's marks pair up the file is read unchanged. Any other file is rewritten with the
quoting inferred from its records: a mark counts as quoting only at the beginning of a field, and a field may
span several lines only where these lines are not rows themselves.
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
"""Most lines of a field; a mark that is not closed by then is literal."""
_BATCH = 50_000
_CERTAIN = 3
"""Number of row-like lines that are taken for rows even without numbers or codes."""
_CODE = re.compile(r"\S*\d\S*")
_NUMERIC = re.compile(r"[\d.,:/+ -]*\d[\d.,:/+ -]*")


@dataclass(frozen=True)
class Lines:
    """Properties of the lines of a text table."""

    irregular: bool
    """Whether some line's quotation marks do not pair up around whole fields."""
    blank: bool
    """Whether some line is empty, or has separators alone."""


@dataclass(frozen=True)
class _Parsed:
    """The fields of one line; `open_at` is the start of a field whose mark is not closed, or -1."""

    fields: list[str]
    open_at: int = -1


def survey(path: str, separator: str) -> Lines:
    """Return the properties of a file's lines, reading it once as a stream.

    Raises:
        polars.exceptions.ComputeError: the file is not UTF-8 text.
    """
    sep = re.escape(separator)
    # A tab inside quotation marks is rarely intended: a lone mark has swallowed the end of a field.
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
    """Yield every line of a file, compressed or not, with a few thousand in memory."""
    scan = pl.scan_lines(path, name=_LINE)
    for batch in scan.collect_batches(maintain_order=True, chunk_size=_BATCH, engine="streaming"):
        yield from batch[_LINE].to_list()


def _closing(line: str, start: int, separator: str) -> int:
    """Return the position of the mark that closes the field opened before `start`, or -1."""
    position = line.find('"', start)
    while position >= 0:
        after = line[position + 1 : position + 2]
        if after in ("", separator):
            return position
        position = line.find('"', position + (2 if after == '"' else 1))
    return -1


def _parse(line: str, separator: str) -> _Parsed:
    """Split one line into fields; marks inside a field are part of it."""
    if '"' not in line:
        return _Parsed(line.split(separator))
    fields: list[str] = []
    position = 0
    while True:
        if line.startswith('"', position):
            close = _closing(line, position + 1, separator)
            if close < 0:
                return _Parsed(fields, position)
            fields.append(line[position + 1 : close].replace('""', '"'))
            position = close + 1
        else:
            end = line.find(separator, position)
            end = len(line) if end < 0 else end
            fields.append(line[position:end])
            position = end
        if position >= len(line):
            return _Parsed(fields)
        position += 1  # past the separator


def _stray(fields: list[str], rest: str, separator: str) -> list[str]:
    """Split a line whose last mark is literal: a lone mark is dropped, the separators count."""
    first, *others = rest.split(separator)
    if first.count('"') == 1:
        first = first[1:]
    elif first.endswith('"'):  # "TV 55"": quoted, but the mark inside was not doubled
        first = first[1:-1].replace('""', '"')
    return [*fields, first, *others]


def _kind(field: str) -> str:
    """Return the kind of a field: a number, a code (one word with a digit) or text."""
    if _NUMERIC.fullmatch(field):
        return "number"
    return "code" if _CODE.fullmatch(field) else "text"


def _matching_fields(line: str, separator: str, row: Sequence[str]) -> int:
    """Return in how many numbers and codes a line matches a row; -1 if it cannot be a row of that table.

    Prose may have as many separators, but blanks after them, and rarely numbers in the same positions.
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
    """Return whether a field of several lines contains rows: most of its lines are like another row.

    Args:
        spanned: the lines after the first.
        separator: of fields.
        row: a row of the table.
        fits: whether the whole record has as many fields as the header.
    """
    matches = [_matching_fields(line, separator, row) for line in spanned]
    rows = sum(match >= 0 for match in matches)
    typed = max(matches) > 0 or rows >= _CERTAIN
    return len(row) > 1 and typed and 2 * rows >= len(spanned) and (matches[-1] >= 0 or not fits)


def records(lines: Iterable[str], separator: str, width: int) -> Iterator[list[str]]:
    """Split lines into records, each a list of fields; a blank line is a record of one empty field.

    A quotation mark that is never closed, or that closes only after other rows, damages its own row at most.

    Args:
        lines: of the file, without line ends.
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
        if '\\"' in line:  # databases escape a mark inside a field as \"
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
        The record's fields and the number of further lines, or None where the field is not closed, or a mark
        that opens another field comes first.
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
    """Rewrite a file's records with the quoting of RFC 4180.

    Args:
        path: the file.
        target: the file to write, in UTF-8.
        separator: of fields, in both.
        skipped: lines to skip at the beginning.
        width: fields of the header.
    """
    lines = islice(all_lines(path), skipped, None)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows(
            [] if record == [""] else record for record in records(lines, separator, width)
        )
