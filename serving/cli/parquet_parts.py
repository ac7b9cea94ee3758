"""Writing a Parquet file of any length: parts are written as they come, and joined as a stream at the end."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl

from features.files.file_replacement import PARTS

_MODE: Final = 0o700


class ParquetParts:
    """The parts of a file."""

    def __init__(self, folder: Path, schema: Mapping[str, Any]) -> None:
        """Begin without rows.

        Args:
            folder: holds the parts.
            schema: column -> type of polars.
        """
        self._folder = folder
        self._schema = pl.Schema(schema)
        self._parts = 0
        self._largest = 1
        self.rows = 0
        """Rows written."""

    def write(self, columns: Mapping[str, list[Any]]) -> None:
        """Write some rows, column -> values.

        Raises:
            OSError: they cannot be written.
        """
        frame = pl.DataFrame(columns, schema=self._schema)
        with _failures():
            frame.write_parquet(self._folder / f"{self._parts:08}.parquet", compression="zstd")
        self._parts += 1
        self._largest = max(self._largest, frame.height)
        self.rows += frame.height

    def join(self, path: Path) -> None:
        """Write all parts, in order, to one file, whose row groups are as long as the largest part.

        Raises:
            OSError: it cannot be written.
        """
        if not self._parts:
            self.write({name: [] for name in self._schema})
        parts = [self._folder / f"{part:08}.parquet" for part in range(self._parts)]
        with _failures():
            pl.scan_parquet(parts).sink_parquet(
                path, compression="zstd", maintain_order=True, row_group_size=self._largest
            )


@contextmanager
def _failures() -> Iterator[None]:
    """Raise what Polars says of a disk, for example that it is full, as an OSError."""
    try:
        yield
    except pl.exceptions.ComputeError as error:
        reason = str(error).splitlines()[0].rpartition("IO error: ")[2]
        raise OSError(errno.EIO, reason) from error


@contextmanager
def parquet_parts(path: Path, schema: Mapping[str, Any]) -> Iterator[ParquetParts]:
    """Yield what takes the rows of a file, which is written at the end of the block if nothing is raised.

    Meanwhile its parts take as much room again, in a folder beside it that only its owner can read.

    Raises:
        OSError: the file cannot be written.
    """
    folder = path.with_name(f"{path.name}{PARTS}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=_MODE)
    try:
        parts = ParquetParts(folder, schema)
        yield parts
        parts.join(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
