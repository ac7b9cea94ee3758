"""Events of a dataset as files that are mapped into memory, so that opening one reads none of them.

The operating system reads pages of a mapped file when they are used and may drop them again, so the memory of
a step that goes through the events in blocks does not grow with their number.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt
import polars as pl

from conf.errors import InputError
from features.data import schema
from features.data.arrays import mapped_rows

FOLDER: Final = "arrays"
"""In a dataset directory."""
TYPES: Final = {"user": "<i4", "item": "<i4", "kind": "|i1", "time": "<i8"}
"""Array -> type; 17 bytes an event."""
_OFFSETS: Final = "offsets"
_USERS: Final = "user_ids.arrow"
_SOURCE: Final = "source.json"
_BLOCK: Final = 1 << 20
"""Events read at a time."""


class UserIds(Sequence[str]):
    """Ids of the users of a dataset in row order, in a mapped file instead of one Python string each."""

    def __init__(self, series: pl.Series) -> None:
        """Wrap a series of distinct ids."""
        self.series = series

    def __len__(self) -> int:
        return len(self.series)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return the id at a place, or a list of those of a slice."""
        if isinstance(place, slice):
            return self.series[place].to_list()
        if not -len(self) <= place < len(self):
            raise IndexError(f"user {place} of {len(self)}")
        return str(self.series[int(place)])

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.series), _BLOCK):
            yield from self.series[start : start + _BLOCK].to_list()

    def __contains__(self, user_id: object) -> bool:
        return isinstance(user_id, str) and bool((self.series == user_id).any())

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Return the row of an id.

        Raises:
            ValueError: there is no such user between `start` and `stop`.
        """
        places = (self.series == value).arg_true()
        stop = len(self) if stop is None else stop
        inside = places.filter((places >= start) & (places < stop))
        if inside.is_empty():
            raise ValueError("no such user in the dataset")
        return int(inside[0])


@dataclass(frozen=True)
class EventArrays:
    """The mapped files of one dataset."""

    arrays: dict[str, npt.NDArray[Any]]
    """By the names of `TYPES`, each [events]."""
    offsets: npt.NDArray[np.int64]  # [users + 1]
    user_ids: UserIds


def _source(folder: Path, info: dict[str, Any], arrays: Path) -> dict[str, Any]:
    """Return what the arrays are made from, and their sizes: other tables make others, a copy may be cut off.

    Raises:
        OSError: a file is missing.
    """
    tables = {name: (folder / name).stat().st_size for name in (schema.EVENTS_FILE, schema.ITEMS_FILE)}
    names = [*(f"{name}.npy" for name in (*TYPES, _OFFSETS)), _USERS]
    sizes = {name: (arrays / name).stat().st_size for name in names}
    return {
        "content_hash": info["content_hash"], "kinds": list(info["kinds"]), "tables": tables, "bytes": sizes,
    }  # fmt: skip


def write_event_arrays(folder: Path, info: dict[str, Any], item_ids: pl.Series, target: Path) -> None:
    """Convert the events of a dataset directory, a block at a time, to files for mapping.

    Args:
        folder: holds `events.parquet`, sorted by user.
        info: content of dataset.json.
        item_ids: ids of the catalogue in row order.
        target: an existing, empty folder, which others may not read while it is filled.

    Raises:
        InputError: an event of an item that is not in the catalogue.
    """
    import pyarrow as pa  # here: a server opens no dataset, and goes without this library
    import pyarrow.parquet as pq

    source = pq.ParquetFile(folder / schema.EVENTS_FILE, memory_map=True)
    events = int(source.metadata.num_rows)
    rows = pl.DataFrame({schema.ITEM_ID: item_ids, "item": pl.arange(len(item_ids), eager=True)})
    kinds = [str(kind) for kind in info["kinds"]]
    names = (schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP)
    paths = {name: target / f"{name}.npy" for name in TYPES}
    handles = {name: path.open("wb") for name, path in paths.items()}
    ids = pa.schema([(schema.USER_ID, pa.large_string())])
    starts, users, last, done = [], 0, None, 0
    try:
        for name, handle in handles.items():
            header = {"descr": TYPES[name], "fortran_order": False, "shape": (events,)}
            np.lib.format.write_array_header_1_0(handle, header)
        with pa.ipc.new_file(target / _USERS, ids) as writer:
            for batch in source.iter_batches(_BLOCK, columns=list(names)):
                block = pl.DataFrame(pl.from_arrow(batch))
                user = block[schema.USER_ID]
                first = user.ne_missing(user.shift(1, fill_value=last)).to_numpy()
                code = np.cumsum(first) + (users - 1)
                item = block.join(rows, schema.ITEM_ID, "left", maintain_order="left")["item"]
                if item.null_count():
                    raise InputError(
                        f"{folder}: its events name items that it lacks; run `shelfwise prepare`"
                    )
                kind = block[schema.EVENT].replace_strict(kinds, range(len(kinds)), return_dtype=pl.Int8)
                columns = {"user": code, "item": item, "kind": kind, "time": block[schema.TIMESTAMP]}
                for name, handle in handles.items():
                    np.asarray(columns[name]).astype(TYPES[name]).tofile(handle)
                starts.append(np.flatnonzero(first) + done)
                new = user.filter(pl.Series(first)).to_arrow().cast(pa.large_string())
                writer.write_batch(pa.record_batch([new], schema=ids))
                users, last, done = int(code[-1]) + 1, user[-1], done + len(block)
    finally:
        for handle in handles.values():
            handle.close()
        source.close()
    offsets = np.concatenate([*starts, [events]]).astype(np.int64)
    np.save(target / f"{_OFFSETS}.npy", offsets)
    (target / _SOURCE).write_text(json.dumps(_source(folder, info, target)) + "\n")


def _is_current(folder: Path, info: dict[str, Any]) -> bool:
    arrays = folder / FOLDER
    try:
        return bool(json.loads((arrays / _SOURCE).read_text()) == _source(folder, info, arrays))
    except (OSError, ValueError):
        return False


def open_event_arrays(folder: Path, info: dict[str, Any], item_ids: pl.Series) -> EventArrays:
    """Map the events of a dataset directory.

    A dataset without arrays, with other tables than theirs, or with a part of them is converted into a
    temporary folder (17 bytes an event, in `TMPDIR`), which disappears with the last use of the arrays: its
    own directory may be read-only.

    Args:
        folder: the dataset directory.
        info: content of dataset.json.
        item_ids: ids of the catalogue in row order.

    Raises:
        InputError: the events are not of the catalogue, or there is no room for a temporary folder.
    """
    made = folder / FOLDER
    temporary = not _is_current(folder, info)
    if temporary:
        made = Path(tempfile.mkdtemp(prefix="shelfwise-events-"))
        try:
            write_event_arrays(folder, info, item_ids, made)
        except BaseException as error:
            shutil.rmtree(made, ignore_errors=True)
            if isinstance(error, OSError) and (folder / schema.EVENTS_FILE).is_file():
                raise InputError(
                    f"{made.parent}: cannot hold the events of {folder} ({error.strerror or error}); set "
                    "TMPDIR to a folder with 17 bytes of room for each, or run `shelfwise prepare`, which "
                    "keeps them beside the dataset"
                ) from error
            raise
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(str(made / _USERS))).read_all()
    series = pl.Series(schema.USER_ID, pl.from_arrow(table[schema.USER_ID]), dtype=pl.String)
    arrays = {name: mapped_rows(made / f"{name}.npy") for name in TYPES}
    opened = EventArrays(arrays, mapped_rows(made / f"{_OFFSETS}.npy"), UserIds(series))
    if temporary:  # what is mapped stays until the last use of it
        shutil.rmtree(made, ignore_errors=True)
    return opened
