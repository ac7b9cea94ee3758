"""The fields of a collection: an item's id, its vectors, and the attributes that filters may refer to."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from features.data import schema
from features.data.dataset import LongArray
from ranking.catalogue.filter_language import AttributeKind, attribute_kinds

ITEM: Final = "item_id"
"""The primary key: the item's id, which is the same for every server; rows of added items are not."""
FRESH: Final = "fresh"
"""Whether an item had no events when the bundle was made, or was added later."""
ITEM_VECTOR: Final = "item"
TEXT_VECTOR: Final = "text"
FACTOR_VECTOR: Final = "factor"
AFFINITY_VECTOR: Final = "affinity"
MAX_BYTES: Final = 65535
"""Longest text that Milvus stores."""
MAX_VALUES: Final = 4096
"""Most values of a list that Milvus stores."""
MAX_ATTRIBUTES: Final = 50
"""Attributes with a field of their own, the first ones; Milvus has at most 64 fields per collection."""
_VALUE_BYTES: Final = 10
"""About what a number takes in a message, or a text beside its own bytes."""
_MORE_BYTES: Final = 200
"""About what else an item takes."""
_LARGEST: Final = sys.float_info.max
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


@dataclass(frozen=True)
class AttributeField:
    """An attribute with a field of its own."""

    name: str
    """As the catalogue has it."""
    field: str
    """As the collection has it: `a_` and the name, or `n_` and its number where a name has other characters
    than Milvus allows; so no two are the same, and none is a word of Milvus."""
    kind: AttributeKind
    dtype: pl.DataType

    @property
    def whole(self) -> bool:
        """Whether its numbers are stored as 64-bit integers; else as doubles."""
        return self.dtype.is_integer() and not isinstance(self.dtype, (pl.UInt64, pl.Int128))

    @property
    def inner(self) -> pl.DataType:
        """Type of a list's elements."""
        assert isinstance(self.dtype, pl.List)
        inner = self.dtype.inner
        return inner if isinstance(inner, pl.DataType) else inner()

    @property
    def elements(self) -> AttributeKind:
        """What the values of a list are: text or numbers."""
        return AttributeKind.number if self.inner.is_numeric() else AttributeKind.string

    def expression(self) -> pl.Expr:
        """Return the column as it is stored: NaN as missing, times as microseconds since 1970.

        Milvus takes no infinities. They become the largest numbers, which compare alike with a filter's.
        """
        column = pl.col(self.name)
        if self.kind is AttributeKind.string:
            return column.cast(pl.String).alias(self.field)
        if self.kind is AttributeKind.time:
            return column.cast(pl.Datetime("us")).dt.epoch("us").alias(self.field)
        if self.kind is AttributeKind.list:
            if self.elements is AttributeKind.string:
                return column.cast(pl.List(pl.String)).list.drop_nulls().alias(self.field)
            numbers = column.cast(pl.List(pl.Float64)).list.eval(_finite(pl.element()))
            return numbers.list.drop_nulls().alias(self.field)
        if self.kind is AttributeKind.boolean or self.whole:
            return column.alias(self.field)
        return _finite(column.cast(pl.Float64)).alias(self.field)


def _finite(numbers: pl.Expr) -> pl.Expr:
    """Return doubles that Milvus takes."""
    return numbers.fill_nan(None).clip(-_LARGEST, _LARGEST)


def attribute_fields(frame: pl.DataFrame) -> list[AttributeField]:
    """Return the attributes of a bundle's catalogue that get a field.

    Left out are those whose values Milvus cannot hold, and those after the first 50: filters by them are
    applied to what a search has found.
    """
    fields: list[AttributeField] = []
    for number, (name, kind) in enumerate(attribute_kinds(frame.schema).items()):
        if name == schema.ITEM_ID or len(fields) == MAX_ATTRIBUTES:
            continue
        plain = set(name) <= _PLAIN and len(name) < 200
        made = AttributeField(name, f"a_{name}" if plain else f"n_{number}", kind, frame.schema[name])
        if not len(unstorable(frame, [made])):
            fields.append(made)
    return fields


def unstorable(frame: pl.DataFrame, fields: Sequence[AttributeField]) -> list[int]:
    """Return the positions of rows with a value that Milvus cannot hold: too long a text or list."""
    tests = []
    for field in fields:
        column = field.expression()
        if field.kind is AttributeKind.string:
            tests.append(column.str.len_bytes() > MAX_BYTES)
        elif field.kind is AttributeKind.list:
            tests.append(column.list.len() > MAX_VALUES)
            if field.elements is AttributeKind.string:
                tests.append(column.list.eval(pl.element().str.len_bytes() > MAX_BYTES).list.any())
    if not tests:
        return []
    positions = frame.select(pl.any_horizontal(tests).fill_null(False).arg_true())
    return [int(position) for position in positions.to_series()]


def stored_rows(frame: pl.DataFrame, fields: Sequence[AttributeField]) -> list[dict[str, Any]]:
    """Return the values of fields of some items, one mapping per item; None where there is no value."""
    return frame.select(field.expression() for field in fields).to_dicts() or [{} for _ in range(len(frame))]


def stored_bytes(frame: pl.DataFrame, fields: Sequence[AttributeField]) -> LongArray:
    """Return about how many bytes each item's id and values have, [items]."""
    sizes = [pl.col(schema.ITEM_ID).str.len_bytes() + _MORE_BYTES]
    for field in fields:
        column = field.expression()
        if field.kind is AttributeKind.string:
            sizes.append(column.str.len_bytes())
        elif field.kind is AttributeKind.list and field.elements is AttributeKind.string:
            sizes.append(column.list.eval(pl.element().str.len_bytes() + _VALUE_BYTES).list.sum())
        elif field.kind is AttributeKind.list:
            sizes.append(column.list.len() * _VALUE_BYTES)
        else:
            sizes.append(pl.lit(_VALUE_BYTES))
    whole = (size.cast(pl.Int64).fill_null(0) for size in sizes)
    return frame.select(bytes=pl.sum_horizontal(whole)).to_series().to_numpy()


def frame_of(values: Sequence[Mapping[str, object]], fields: Sequence[AttributeField]) -> pl.DataFrame:
    """Return the attributes of added or changed items as a table with the columns of fields."""
    columns: dict[str, pl.DataType] = {}
    for field in fields:
        text = field.kind is AttributeKind.string
        columns[field.name] = pl.String() if text else field.dtype
    rows = [{name: value.get(name) for name in columns} for value in values]
    return pl.DataFrame(rows, schema=columns)
