"""Reading the histories file block by block: a shop's events need not fit into memory.

The file is read through one open handle, so that it may be replaced meanwhile. The events of a user stay
together, because ids of equal events are numbered within the user. Where the file has each user's events in
one place, as training writes it, one pass yields them; otherwise a pass for every part of the users.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from conf.errors import InputError
from features.data import schema
from serving.state.contracts.user_state import IMPORTED, MICROS

BLOCK: Final = 1 << 17
"""Rows read at a time, some 10 MB."""
PART: Final = 1 << 18
"""Rows of the users that a pass collects, where the users' events are scattered."""
_COLUMNS: Final = {
    schema.USER_ID: pl.String,
    schema.ITEM_ID: pl.String,
    schema.EVENT: pl.String,
    schema.TIMESTAMP: pl.Int64,
    schema.ORDER: pl.Int64,
}
_STRINGS: Final = (schema.USER_ID, schema.ITEM_ID, schema.EVENT)
_FIX: Final = "publish the bundle again"


class StoppedError(Exception):
    """Reading was stopped; raised in a thread whose result is not awaited any more."""


@dataclass(frozen=True)
class Histories:
    """A checked histories file; valid while the block of `open_histories` lasts."""

    rows: int
    grouped: bool
    """Whether each user's events are in one place."""
    _path: Path
    _file: BinaryIO
    _stopped: threading.Event

    def events(self) -> Iterator[pl.DataFrame]:
        """Yield the rows of the store: user_id, event_id, time_us, position, item_id, kind; whole users.

        The event id consists of the content and a running number among equal contents, so that importing a
        later file with the same events, in any order, is idempotent.
        """
        for part in self._users_in_one_place() if self.grouped else self._users_by_part():
            yield _events(part)

    def _blocks(self) -> Iterator[pl.DataFrame]:
        for _, block in _blocks(self._path, self._file, self.rows, None, self._stopped):
            yield block

    def _users_in_one_place(self) -> Iterator[pl.DataFrame]:
        """Yield blocks that end with the end of a user; a user with more rows than a block is read whole."""
        rest: list[pl.DataFrame] = []
        for block in self._blocks():
            last = block[schema.USER_ID][-1]
            goes_on = (block[schema.USER_ID] == last).to_numpy()
            start = block.height - int(np.argmin(goes_on[::-1])) if not goes_on.all() else 0
            if start:
                yield pl.concat([*rest, block[:start]])
                rest = []
            elif rest and rest[0][schema.USER_ID][0] != last:
                yield pl.concat(rest)
                rest = []
            rest.append(block[start:])
        if rest:
            yield pl.concat(rest)

    def _users_by_part(self) -> Iterator[pl.DataFrame]:
        """Yield the users of a part of all hashes at a time, a pass over the file each."""
        parts = -(-self.rows // PART)
        for part in range(parts):
            chosen = pl.col(schema.USER_ID).hash(0) % parts == part
            # Joined with nothing, strings are copied; a filter's result would keep the whole block in memory.
            copies = [pl.concat_str(pl.col(name), pl.lit("")).alias(name) for name in _STRINGS]
            found = [block.filter(chosen).with_columns(copies) for block in self._blocks()]
            yield pl.concat(found)


class _Places:
    """Whether the rows of each user follow one another."""

    def __init__(self) -> None:
        """Expect blocks of users in the order of the file."""
        self._last: str | None = None
        self._known: npt.NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        """Hashes of users, each once, until one comes again."""
        self._later: list[npt.NDArray[np.uint64]] = []
        self._count = 0
        self._once = True

    def add(self, users: pl.Series) -> None:
        """Take the users of the next block."""
        if not self._once:
            return
        begins = users.ne_missing(users.shift(1, fill_value=self._last))
        self._last = users[-1]
        self._later.append(users.filter(begins).hash(0).to_numpy())
        self._count += len(self._later[-1])
        if self._count > len(self._known):  # seldom, as they double, and never with every row of a file
            self._merge()

    def together(self) -> bool:
        """Return whether each user of all blocks has been in one place."""
        self._merge()
        return self._once

    def _merge(self) -> None:
        found = np.concatenate([self._known, *self._later])
        found.sort()
        self._once = self._once and not (found[1:] == found[:-1]).any()
        self._known = found if self._once else found[:0].copy()
        self._later, self._count = [], 0


@contextmanager
def open_histories(path: Path, stopped: threading.Event | None = None) -> Iterator[Histories]:
    """Open a histories file and check all of it, before the first row is used.

    Memory: a block of rows, and at most 24 bytes for each user.

    Args:
        path: the file.
        stopped: once it is set, no further block is read.

    Raises:
        InputError: no such table, a missing column, a wrong type, or a missing value.
        StoppedError: reading was stopped.
    """
    stopped = stopped or threading.Event()
    with _open(path) as file:
        rows, places = _count(path, file), _Places()
        for start, block in _blocks(path, file, rows, None, stopped):
            _check(path, block, start)
            places.add(block[schema.USER_ID])
        yield Histories(rows, places.together(), path, file, stopped)


async def event_slices(path: Path, rows: int) -> AsyncGenerator[pl.DataFrame, None]:
    """Yield `Histories.events` of a file, at most so many rows at a time, read in other threads.

    Cancelled, it leaves a thread that ends after the block that it reads.

    Raises:
        InputError: as `open_histories`, before the first slice.
    """
    stopped = threading.Event()
    with ExitStack() as stack:
        try:
            found = await asyncio.to_thread(stack.enter_context, open_histories(path, stopped))
            parts = found.events()
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                for some in part.iter_slices(rows):
                    yield some
        finally:
            stopped.set()


def blocks_of(path: Path, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """Yield the rows of a histories file, a block at a time, without the checks of their values.

    Raises:
        InputError: the file is not a histories table.
    """
    for _, block in _numbered_blocks(path, columns):
        yield block


def events_of_user(path: Path, user_id: str) -> pl.DataFrame:
    """Return the events of one user, as `Histories.events`.

    Raises:
        InputError: as `open_histories`, for the rows of this user.
    """
    mine = [pl.DataFrame(schema=_COLUMNS)]
    for start, block in _numbered_blocks(path):
        is_mine = block[schema.USER_ID] == user_id
        _check(path, block, start, is_mine)
        mine.append(block.filter(is_mine))
    return _events(pl.concat(mine))


def _numbered_blocks(path: Path, columns: list[str] | None = None) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the first row of each block and its rows."""
    with _open(path) as file:
        yield from _blocks(path, file, _count(path, file), columns)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: not a histories table ({error}); {_FIX}") from error


def _count(path: Path, file: BinaryIO) -> int:
    """Return the rows of a file with all columns."""
    try:
        table = pl.scan_parquet(file)
        names = table.collect_schema().names()
        missing = [name for name in _COLUMNS if name not in names]
        if missing:
            raise InputError(f"{path}: no column '{missing[0]}'; {_FIX}")
        return int(table.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _wrong(path, error) from error


def _blocks(
    path: Path,
    file: BinaryIO,
    rows: int,
    columns: list[str] | None = None,
    stopped: threading.Event | None = None,
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the first row of each block and its rows, in the types of the columns."""
    wanted = {name: _COLUMNS[name] for name in columns or _COLUMNS}
    for start in range(0, rows, BLOCK):
        if stopped is not None and stopped.is_set():
            raise StoppedError
        try:
            table = pl.scan_parquet(file).slice(start, BLOCK)
            block = table.select(pl.col(name).cast(dtype) for name, dtype in wanted.items()).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _wrong(path, error) from error
        yield start, block


def _wrong(path: Path, error: Exception) -> InputError:
    first_line = str(error).partition("\n")[0]
    return InputError(f"{path}: not a histories table ({first_line}); {_FIX}")


def _check(path: Path, block: pl.DataFrame, start: int, among: pl.Series | None = None) -> None:
    """Refuse missing values, those of some rows only where `among` says which."""
    for name in _COLUMNS:
        if not block[name].null_count():
            continue
        missing = block[name].is_null() if among is None else block[name].is_null() & among
        if missing.any():
            row = start + int(missing.arg_max() or 0)
            raise InputError(f"{path}: row {row}: '{name}' is missing; {_FIX}")


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    content = (schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP)
    repeat = pl.int_range(pl.len()).over(schema.USER_ID, *content)
    # Sorted, because sequential inserts into a B-tree are many times faster than random ones.
    return rows.sort(schema.USER_ID, schema.TIMESTAMP, schema.ORDER).select(
        pl.col(schema.USER_ID),
        (pl.lit(IMPORTED) + pl.concat_str(*content, repeat, separator="\x1f")).alias("event_id"),
        (pl.col(schema.TIMESTAMP) * MICROS).alias("time_us"),
        pl.col(schema.ORDER).alias("position"),
        pl.col(schema.ITEM_ID),
        pl.col(schema.EVENT).alias("kind"),
    )
