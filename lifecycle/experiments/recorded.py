"""Recorded events as one lazy table, from the state or from a file, and the prices of their items."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console

from conf.errors import InputError
from conf.experiment_report import ExperimentReportConfig
from conf.operating import ExportEventsConfig
from features.data import schema
from ranking.bundle.store import VERSIONS
from serving.cli.export_events import export_events

USER: Final = "user"
TIME: Final = "time"
"""Microseconds since 1970."""
KIND: Final = "kind"
ITEM: Final = "item"
LIST: Final = "list"
SURFACE: Final = "surface"
ARMS: Final = "arms"
"""Experiments and arms of the list that an event came from: `name=arm;name=arm`, or null."""
VALUE: Final = "value"
SINCE: Final = "since"
PRICE: Final = "price"

_EXPERIMENTS: Final = "experiments"
_CATALOGUE: Final = "catalog.parquet"
_MAKE: Final = "make the file with `shelfwise export events imported=true`"


@contextmanager
def events(config: ExperimentReportConfig) -> Iterator[pl.LazyFrame]:
    """Yield the table of all events; the state is written to a file first, so that memory is bounded.

    Raises:
        InputError: no such file or state, an unreadable one, or a missing column.
    """
    if config.events is not None:
        yield scan(Path(config.events))
        return
    with tempfile.TemporaryDirectory(prefix="shelfwise-") as folder:
        path = Path(folder) / "events.parquet"
        export = ExportEventsConfig(config.artifacts, config.state, config.redis, str(path), imported=True)
        export_events(export, Console(file=io.StringIO()))
        yield scan(path)


def scan(path: Path) -> pl.LazyFrame:
    """Return the table of a file of recorded events.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    try:
        types = pl.read_parquet_schema(path)
    except FileNotFoundError:
        raise InputError(f"events: no file {path}; {_MAKE}") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"events: {path} cannot be read ({reason}); {_MAKE}") from error
    for name in (schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP, _EXPERIMENTS):
        if name not in types:
            raise InputError(f"events: {path} has no column '{name}'; {_MAKE}")

    if VALUE in types and not types[VALUE].is_numeric():
        raise InputError(f"events: {path}: value is {types[VALUE]}, not a number")

    def optional(name: str, kind: type[pl.DataType]) -> pl.Expr:
        return pl.col(name).cast(kind) if name in types else pl.lit(None, kind)

    moment = types[schema.TIMESTAMP]
    if isinstance(moment, pl.Datetime):
        time = pl.col(schema.TIMESTAMP).dt.epoch("us")
    elif moment.is_integer():
        time = pl.col(schema.TIMESTAMP).cast(pl.Int64) * 1_000_000
    else:
        raise InputError(f"events: {path}: timestamp is {moment}, not a time or Unix seconds; {_MAKE}")
    return (
        pl.scan_parquet(path)
        .select(
            pl.col(schema.USER_ID).cast(pl.String).alias(USER),
            time.alias(TIME),
            pl.col(schema.EVENT).cast(pl.String).alias(KIND),
            pl.col(schema.ITEM_ID).cast(pl.String).alias(ITEM),
            optional("request_id", pl.String).alias(LIST),
            optional("surface", pl.String).alias(SURFACE),
            pl.col(_EXPERIMENTS).cast(pl.String).alias(ARMS),
            optional(VALUE, pl.Float64).alias(VALUE),
        )
        .with_columns(pl.when(pl.col(VALUE).is_finite()).then(VALUE))
    )


def prices(config: ExperimentReportConfig) -> pl.DataFrame | None:
    """Return the price of items and since when (microseconds since 1970), or None where no price is known.

    A bundle's catalogue has the prices from its publication on, which its name begins with. Prices that were
    changed by UpsertItems are known only from the next bundle on.

    Raises:
        InputError: an unreadable file, or one without prices.
    """
    if config.items is not None:
        return _listed(Path(config.items))
    found = []
    for path in sorted((Path(config.artifacts) / VERSIONS).glob(f"*/{_CATALOGUE}")):
        try:
            made = datetime.strptime(path.parent.name.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            types = pl.read_parquet_schema(path)
        except (ValueError, OSError, pl.exceptions.PolarsError):
            continue  # a folder that is not a version, or a damaged one: the server says so
        if schema.PRICE in types and types[schema.PRICE].is_numeric():
            found.append(_priced(pl.read_parquet(path, columns=[schema.ITEM_ID, schema.PRICE]), made))
    if not found:
        return None
    return pl.concat(found).sort(SINCE)


def _listed(path: Path) -> pl.DataFrame:
    try:
        names = [schema.ITEM_ID, schema.PRICE]
        if path.suffix == ".csv":  # ids as they are written: 0012 is not 12
            table = pl.read_csv(path, columns=names, schema_overrides={schema.ITEM_ID: pl.String})
        else:
            table = pl.read_parquet(path, columns=names)
    except FileNotFoundError:
        raise InputError(f"items: no file {path}") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"items: {path} needs columns item_id and price ({reason})") from error
    if not table[schema.PRICE].dtype.is_numeric():
        raise InputError(f"items: {path}: price is {table[schema.PRICE].dtype}, not a number")
    return _priced(table, datetime.fromtimestamp(0, UTC))


def _priced(table: pl.DataFrame, since: datetime) -> pl.DataFrame:
    return table.select(
        pl.col(schema.ITEM_ID).cast(pl.String).alias(ITEM),
        pl.col(schema.PRICE).cast(pl.Float64),
        pl.lit(int(since.timestamp()) * 1_000_000, pl.Int64).alias(SINCE),
    ).filter(pl.col(PRICE).is_finite())
