"""Files that are rewritten before they can be read; the copies are temporary."""

from __future__ import annotations

import codecs
import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from conf.errors import InputError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; that of UTF-32 begins like one of UTF-16."""
_BLOCK = 1 << 20
_open: list[tempfile.TemporaryDirectory[str]] = []
_numbers = count()


def scratch_file(name: str) -> Path:
    """Return a fresh path for a converted file; it is removed by `discarding`, or when the process ends."""
    if not _open:
        _open.append(tempfile.TemporaryDirectory(prefix="shelfwise-"))
    return Path(_open[-1].name) / f"{next(_numbers)}-{name}"


@contextmanager
def discarding() -> Iterator[None]:
    """Remove the files that were converted within the block."""
    _open.append(tempfile.TemporaryDirectory(prefix="shelfwise-"))
    try:
        yield
    finally:
        _open.pop().cleanup()


def marked_encoding(path: str) -> str | None:
    """Return the encoding of a file's byte order mark, None for UTF-8 and for files without one."""
    with Path(path).open("rb") as file:
        start = file.read(4)
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)


def in_utf8(path: str, encoding: str) -> str:
    """Convert a text file to UTF-8 and return the path of the copy.

    Raises:
        UnicodeDecodeError: the file has bytes that the encoding does not define.
    """
    target = scratch_file(Path(path).name)
    with (
        Path(path).open(encoding=encoding, newline="") as source,
        target.open("w", encoding="utf-8", newline="") as file,
    ):
        while block := source.read(_BLOCK):
            file.write(block)
    return str(target)


def with_line_feeds(path: str) -> str:
    """Return a text file whose lines end in a line feed: one with bare carriage returns is converted.

    Spreadsheets on a Mac save such files ("CSV (Macintosh)"), often in their own encoding.

    Raises:
        InputError: the lines end in carriage returns, and the file is not UTF-8 text.
    """
    if path.lower().endswith(".zst"):
        return path
    opener = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        start: bytes = file.read(_BLOCK)
    if b"\r" not in start or b"\n" in start.rstrip():
        return path
    target = scratch_file(f"{Path(path).stem}.csv" if path.lower().endswith(".gz") else Path(path).name)
    try:
        with (
            opener(path, "rt", encoding="utf-8", newline=None) as source,
            target.open("w", encoding="utf-8", newline="") as copy,
        ):
            while block := source.read(_BLOCK):
                copy.write(block)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: cannot be read: it is not UTF-8 text, and its lines end as an old Mac ends them; "
            "add data.encoding=mac_roman"
        ) from error
    return str(target)
