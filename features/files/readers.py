"""One lazy table from one file, a list or a glob, in any of the formats of the data contract."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from conf.errors import InputError
from features.files.column_names import header_name, without_patterns
from features.files.containers import WORKBOOKS, expand, split, unpacked
from features.files.conversions import in_utf8, marked_encoding, scratch_file, with_line_feeds
from features.files.copies import Copy, files_at, is_url, rows_of
from features.files.feed_xml import read_feed
from features.files.json_documents import read_bytes, read_documents, spans_lines
from features.files.no_tables import refuse_drawings
from features.files.quoting import head, records, rewrite, survey
from features.files.spreadsheets import sheet_table

FILE = "__file"
"""Added column: path as given by the user (an Enum in the order of the files)."""
ROW = "__row"
"""Added column: 1-based data row within its file; a CSV header is not counted."""
MALFORMED = "__malformed"
"""Added column: why a row could not be read as its format demands, else null."""
BOOKKEEPING = (FILE, ROW, MALFORMED)

HEADER_AGAIN = "repeats the header"
"""In `MALFORMED`: the row repeats the names of the columns."""
_EXTRA = "__extra"
_COMPRESSED = (".gz", ".zst")
_TEXT_FORMATS = {
    ".csv": ",", ".txt": ",", ".dat": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t", ".item": "\t",
}  # fmt: skip
_SEPARATORS = (",", ";", "\t", "|")
_BELOW_A_HEADING = 2
_PREAMBLE = 50
"""Most lines before the header."""
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_DOCUMENTS = (".json", ".json.gz")
_PARQUET = (".parquet", ".pq")
_ARROW = (".arrow", ".ipc", ".feather")
_XML = ".xml"
KNOWN = (*_TEXT_FORMATS, *_JSON_LINES, *_PARQUET, *_ARROW, *WORKBOOKS, _XML)
"""Extensions of the supported formats."""
_UNTYPED = (*_TEXT_FORMATS, *WORKBOOKS, _XML)
"""Formats whose cells are read as text."""
_FALLBACK_SAMPLE = 100_000
"""Valid lines from which the columns of a JSON Lines file with broken lines are inferred."""


@dataclass(frozen=True)
class TextOptions:
    """Format of a text table, where it cannot be inferred."""

    header: bool = True
    """Whether its first line names the columns; else they are `column_1`, `column_2`, ..."""
    encoding: str | None = None
    """Null is UTF-8, or the encoding of the byte order mark."""


_AS_USUAL = TextOptions()


@dataclass(frozen=True)
class RawTable:
    """A table as read from files, with `FILE`, `ROW` and `MALFORMED` added."""

    frame: pl.LazyFrame
    untyped: bool = False
    """Whether every column is a string because the format (CSV, TSV) has no types."""
    name: str = "table"
    """Its name in messages, e.g. `data.events (events.csv)`."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns that the files have."""
        return [c for c in self.frame.collect_schema().names() if c not in BOOKKEEPING]


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn polars' errors about a broken file into one line that names `name`."""
    try:
        yield
    except UnicodeError as error:
        raise InputError(f"{name}: cannot be read in this data.encoding: {error}") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        if "utf-8" in reason.lower() or "utf8" in reason.lower():
            reason = "it is not UTF-8 text; if a spreadsheet wrote it, add data.encoding=cp1252"
        raise InputError(f"{name}: cannot be read: {reason}") from error


def resolve_paths(source: object, setting: str) -> list[str]:
    """Expand a path, a list of paths or globs into existing files, in the given order (a glob's sorted).

    Args:
        source: value of the setting.
        setting: its name in messages, e.g. `data.events`.

    Raises:
        InputError: an empty value, no such file, a folder, or a file named twice.
    """
    entries = [source] if isinstance(source, str | Path) else source
    if not isinstance(entries, list | tuple) or not entries:
        raise InputError(f"{setting}: expected a path, a list of paths or a glob, e.g. {setting}=shop/*.csv")
    found: list[str] = []
    for entry in entries:
        if not isinstance(entry, str | Path) or not str(entry):
            raise InputError(f"{setting}: '{entry}' is not a path")
        if is_url(entry):
            found.extend(files_at(str(entry), setting))
            continue
        path = Path(entry).expanduser()
        if (inside := expand(path, setting, KNOWN)) is not None:
            found.extend(inside)
        elif path.is_file():
            found.append(str(path))
        elif path.is_dir():
            raise InputError(f"{setting}: {path} is a folder; name its files, e.g. {path}/*.parquet")
        elif matches := sorted(m for m in glob.glob(str(path), recursive=True) if Path(m).is_file()):
            found.extend(file for m in matches for file in expand(m, setting, KNOWN) or [m])
        else:
            raise InputError(f"{setting}: no such file: {path} (looked from {Path.cwd()})")
    twice = next((p for i, p in enumerate(found) if p in found[:i]), None)
    if twice is not None:
        raise InputError(f"{setting}: {twice} is named twice; its rows would count double")
    return found


def _format(path: str, setting: str) -> str:
    """Return the lower-case extension that decides the format, without a compression suffix."""
    file = split(path)[0]
    suffixes = [s.lower() for s in Path(file if file.lower().endswith(WORKBOOKS) else path).suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
        allowed: tuple[str, ...] = (*_TEXT_FORMATS, *_JSON_LINES)
    else:
        allowed = KNOWN
    if not suffixes or suffixes[-1] not in allowed:
        raise InputError(
            f"{setting}: {path}: unknown format; the extension must be one of {', '.join(KNOWN)} "
            "(text formats also with .gz or .zst, all of them in a .zip)"
        )
    return suffixes[-1]


def _preamble(lines: list[str]) -> tuple[int, str | None]:
    """Count the lines before the header: blank ones, comments and `sep=;`, which names the separator."""
    separator = None
    for place, line in enumerate(lines):
        if named := re.fullmatch(r"(?i)sep=(.)", line):
            separator = named.group(1)
        elif _is_heading(line, lines[place + 1 :]):
            continue
        elif line.strip() and not (line.startswith("#") and _columns(line) < _columns(_after(lines, place))):
            return place, separator
    return 0, separator


def _is_heading(line: str, following: list[str]) -> bool:
    """Whether a line is a title above a table: one cell, and the next two have several."""
    rows = [other for other in following if other.strip()][:_BELOW_A_HEADING]
    if len(rows) < _BELOW_A_HEADING:
        return False
    separator = max(_SEPARATORS, key=rows[0].count)
    cells = [[cell.strip() for cell in row.split(separator)] for row in (line, *rows)]
    full = [sum(map(bool, row)) for row in cells]
    width = len(cells[1])
    return full[0] <= 1 < full[1] == width == len(cells[2]) and len(cells[0]) in (1, width)


def _after(lines: list[str], place: int) -> str:
    """Return the next line that is neither blank nor a comment."""
    return next((line for line in lines[place + 1 :] if line.strip() and not line.startswith("#")), "")


def _columns(line: str) -> int:
    return max(line.count(separator) for separator in _SEPARATORS)


def _separator(header: str, default: str) -> str:
    """Take the separator that the header uses most; spreadsheets with decimal commas export `;`."""
    if default != ",":
        return default
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_SEPARATORS, key=bare.count)


def _names(header: list[str]) -> list[str]:
    """Return the names of a header's columns, repeated ones numbered."""
    names: list[str] = []
    for place, written in enumerate(header, 1):
        name = header_name(written, place)
        repeats = (name, *(f"{name}_{n}" for n in range(2, len(header) + 2)))
        names.append(next(n for n in repeats if n not in names))
    return names


def _scan_text(path: str, extension: str, options: TextOptions) -> pl.LazyFrame:
    """Scan CSV or TSV with every column a string, so that the id `007` is preserved."""
    if encoding := options.encoding or marked_encoding(path):
        path = in_utf8(path, encoding)
    path = with_line_feeds(path)
    first = head(path, _PREAMBLE)
    refuse_drawings(path, first)
    skipped, named = _preamble(first)
    separator = named or _separator(first[skipped], _TEXT_FORMATS[extension])
    header = next(records(first[skipped:], separator, 1))
    names = _names(header) if options.header else [f"column_{n}" for n in range(1, len(header) + 1)]
    lines = survey(path, separator)
    if lines.irregular:
        target = scratch_file(f"{Path(path).name}.csv")
        rewrite(path, target, separator, skipped, len(header))
        path, skipped = str(target), 0
    # One more column than the header has catches rows with too many fields; polars would cut them silently.
    frame = pl.scan_csv(
        path,
        separator=separator,
        has_header=False,
        skip_lines=skipped + options.header,
        schema={name: pl.String for name in (*names, _EXTRA)},
        missing_columns="insert",
        truncate_ragged_lines=True,
        extra_columns="ignore",  # a first row with several fields too many is as malformed as any other
        row_index_name=ROW,
        row_index_offset=1,
    )
    if lines.blank:
        frame = frame.filter(pl.any_horizontal(pl.col(*names, _EXTRA).is_not_null()))
    written = zip(names, header, strict=True)  # once more where files were put together
    again = pl.all_horizontal(pl.col(n) == w for n, w in written) if options.header else pl.lit(False)
    reason = (
        pl.when(pl.col(_EXTRA).is_not_null())
        .then(pl.lit("more fields than the header"))
        .when(again)
        .then(pl.lit(HEADER_AGAIN))
    )
    return frame.with_columns(reason.alias(MALFORMED)).drop(_EXTRA)


def _scan_json_lines(path: str) -> pl.LazyFrame:
    """Scan JSON Lines; a file with broken lines is parsed line by line."""
    first = pl.scan_lines(path).head(1).collect()
    start = str(first.item()).lstrip("\ufeff \t") if first.height else ""
    if re.match(r"\[\s*\[", start) and (table := read_documents(path)) is not None:
        return _numbered(table)
    if start.startswith("["):
        return _numbered(pl.read_json(read_bytes(path), infer_schema_length=None))
    alone = path.lower().endswith(_DOCUMENTS) and pl.scan_lines(path).head(2).collect().height == 1
    if (spans_lines(start) or alone) and (table := read_documents(path)) is not None:
        return _numbered(table)
    try:
        frame = pl.scan_ndjson(path, infer_schema_length=None, row_index_name=ROW, row_index_offset=1)
        frame.collect_schema()
    except pl.exceptions.ComputeError:
        return _scan_broken_json_lines(path)
    return frame.with_columns(pl.lit(None, dtype=pl.String).alias(MALFORMED))


def _numbered(table: pl.DataFrame) -> pl.LazyFrame:
    """Number the rows of a file that was read as a whole."""
    return (
        table.with_row_index(ROW, offset=1)
        .lazy()
        .with_columns(pl.lit(None, dtype=pl.String).alias(MALFORMED))
    )


def _scan_broken_json_lines(path: str) -> pl.LazyFrame:
    lines = pl.scan_lines(path, name="line", row_index_name=ROW, row_index_offset=1)
    lines = lines.with_columns(pl.col("line").str.strip_chars().str.strip_suffix(","))
    lines = lines.filter(pl.col("line") != "")
    valid = pl.col("line").str.json_path_match("$").str.starts_with("{").fill_null(False)
    sample = lines.filter(valid).head(_FALLBACK_SAMPLE).collect(engine="streaming")["line"]
    if sample.is_empty():
        raise InputError(f"{path}: no line is a JSON object; JSON Lines has one object per line")
    dtype = sample.str.json_decode(infer_schema_length=None).dtype
    return (
        lines.with_columns(pl.when(valid).then("line").alias("line"))
        .with_columns(
            pl.when(pl.col("line").is_null()).then(pl.lit("not a JSON object")).alias(MALFORMED),
            pl.col("line").str.json_decode(dtype),
        )
        .unnest("line")
    )


def _scan(path: str, extension: str, setting: str, options: TextOptions) -> pl.LazyFrame:
    """Scan one file with `ROW` and `MALFORMED`, whatever its format."""
    if extension in WORKBOOKS:
        file, sheet = split(path)
        frame = sheet_table(file, sheet, setting, ROW).lazy()
        return frame.with_columns(pl.lit(None, dtype=pl.String).alias(MALFORMED))
    local = unpacked(path)
    if Path(local).stat().st_size == 0:
        raise InputError(f"{setting}: {path} is empty")
    if extension in _TEXT_FORMATS:
        return _scan_text(local, extension, options)
    if extension in _JSON_LINES:
        return _scan_json_lines(local)
    if extension == _XML:
        frame = read_feed(local).with_row_index(ROW, offset=1).lazy()
    else:
        scan = pl.scan_parquet if extension in _PARQUET else pl.scan_ipc
        frame = scan(local, row_index_name=ROW, row_index_offset=1)
    return frame.with_columns(pl.lit(None, dtype=pl.String).alias(MALFORMED))


def _scan_copy(copy: Copy, names: pl.Enum) -> pl.LazyFrame:
    """Scan the copied rows of a URL."""
    frame = pl.scan_parquet(list(copy.parts), hive_partitioning=False)
    return frame.with_columns(
        pl.col(ROW).cast(pl.get_index_type()),
        pl.lit(None, dtype=pl.String).alias(MALFORMED),
        pl.col(FILE).cast(names),
    )


def scan_table(source: object, setting: str, options: TextOptions = _AS_USUAL) -> RawTable:
    """Scan the files of one table without reading them.

    Files may differ in columns (a missing one is null) and in types (their common type is taken).

    Args:
        source: path, list of paths or glob; formats go by extension.
        setting: name of the configuration key, for messages.
        options: format of text tables.

    Raises:
        InputError: a path without a file, an unknown format, or a file that polars cannot open.
    """
    paths = resolve_paths(source, setting)
    copies = {path: copy for path in paths if (copy := rows_of(path)) is not None}
    names = pl.Enum([name for path in paths for name in (copies[path].names if path in copies else [path])])
    frames: list[pl.LazyFrame] = []
    untyped = False
    for path in paths:
        if path in copies:
            with readable(f"{setting}: {path}"):
                frames.append(_scan_copy(copies[path], names))
            continue
        extension = _format(path, setting)
        with readable(f"{setting}: {path}"):
            untyped = untyped or extension in _UNTYPED
            frame = without_patterns(_scan(path, extension, setting, options), BOOKKEEPING)
            frame = frame.with_columns(pl.lit(path, dtype=pl.String).cast(names).alias(FILE))
            frame.collect_schema()
        frames.append(frame)
    shown = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    table = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
    return RawTable(table, untyped, f"{setting} ({shown})")
