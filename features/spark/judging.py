"""What a worker does: reads its parts of the files, and judges every row by the rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa

from features.data import schema
from features.files.conversions import discarding
from features.files.readers import FILE, ROW
from features.ingest import rejects as why
from features.ingest.engines.rules import REASON, EventRules, JudgedEvents
from features.ingest.event_readings import kind_keys
from features.spark.splits import Reading, Split

FILE_NUMBER, ROW_NUMBER, AT = "__file", "__row", "__at"
"""Place of a row: number of its file, row in it, and place among the rows made of that one."""
KIND_KEY = "__kind_key"
KEY = "__key_"
"""Prefix of raw columns that identify a rejected row; null in accepted ones."""
_ARROW: dict[type[pl.DataType], pa.DataType] = {
    pl.String: pa.string(),
    pl.Int64: pa.int64(),
    pl.Int32: pa.int32(),
    pl.Float64: pa.float64(),
    pl.Boolean: pa.bool_(),
}


def staged_columns(judged: JudgedEvents, numbers: dict[str, int]) -> list[pl.Expr]:
    """Return the columns of a judged row: its place, its reason, the event, and what rejects and counts need.

    Args:
        judged: rows.
        numbers: file -> its number.
    """
    rejected = pl.col(REASON).is_not_null()
    number = pl.col(FILE).cast(pl.String).replace_strict(numbers, return_dtype=pl.Int32)
    columns = [number.alias(FILE_NUMBER), pl.col(ROW).cast(pl.Int64).alias(ROW_NUMBER), pl.col(REASON)]
    columns += judged.values()
    columns.append(kind_keys(pl.col("__event")).alias(KIND_KEY))
    keys = judged.reject_columns()[-len(why.KEYS) :]
    columns += [
        pl.when(rejected).then(key).alias(f"{KEY}{name}") for name, key in zip(why.KEYS, keys, strict=True)
    ]
    for name in judged.optional:
        bad = judged.unreadable(name) & ~rejected
        columns += [
            (pl.col(f"__given_{name}") & ~rejected).alias(f"__given_{name}"),
            bad.alias(f"__bad_{name}"),
            pl.when(bad).then(pl.col(name).cast(pl.String)).alias(f"__raw_{name}"),
        ]
    return columns


def arrow_schema(types: pl.Schema) -> pa.Schema:
    """Return the Arrow schema of staged rows, with the place in their part."""
    fields = [pa.field(name, _ARROW[type(dtype)]) for name, dtype in types.items()]
    return pa.schema([*fields, pa.field(AT, pa.int64())])


@dataclass(frozen=True)
class Judge:
    """Judges the parts of a table; every worker has the same one."""

    splits: Sequence[Split]
    reading: Reading
    rules: EventRules
    """Without the catalogue's ids, which are in a file."""
    ids_file: str
    """Arrow file, mapped into memory by every worker of a machine together."""
    numbers: dict[str, int]
    columns: pa.Schema
    orders: Sequence[int] | None = None
    """Events before each part, where the order of the files is that of the events."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the judged rows of the parts whose numbers are in `id`."""
        rules = replace(self.rules, item_ids=pl.read_ipc(self.ids_file).get_column(schema.ITEM_ID))
        for batch in batches:
            for number in batch.column(0).to_pylist():
                with discarding():  # workers end without the handlers that remove converted files
                    yield from self._part(number, rules)

    def _part(self, number: int, rules: EventRules) -> Iterator[pa.RecordBatch]:
        at = 0
        order = None if self.orders is None else self.orders[number]
        for table in self.reading.tables(self.splits[number]):
            frame = table.frame
            if order is not None:
                frame = frame.with_row_index(schema.ORDER, offset=order + at + 1)
            judged = rules.judge(frame)
            rows = judged.frame.select(staged_columns(judged, self.numbers)).collect()
            rows = rows.with_columns(pl.int_range(at, at + pl.len(), dtype=pl.Int64).alias(AT))
            at += rows.height
            yield from rows.to_arrow().cast(self.columns).to_batches()


@dataclass(frozen=True)
class Count:
    """Counts the events of the parts of a table."""

    splits: Sequence[Split]
    reading: Reading

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the number of every part, and of its events."""
        for batch in batches:
            for number in batch.column(0).to_pylist():
                with discarding():
                    tables = self.reading.tables(self.splits[number])
                    rows = sum(int(table.frame.select(pl.len()).collect().item()) for table in tables)
                yield pa.RecordBatch.from_pydict({"id": [number], "rows": [rows]})
