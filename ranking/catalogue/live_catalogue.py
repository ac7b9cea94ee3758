"""The catalogue while it is served: a bundle's items with an overlay of changes, additions and deletions.

An item keeps its row for as long as the bundle is served, so that rows in running requests stay valid:
changed items keep theirs, new ones get the next row, deleted ones are hidden. A `LiveCatalogue` is one
snapshot; the storage that snapshots share is append-only, and a snapshot reads no further than its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from features.data import schema
from features.data.dataset import BoolArray, Catalogue, FloatArray, IntArray
from features.data.statistics import Neighbours
from ranking.catalogue.filter_language import (
    AttributeKind,
    MaskCache,
    attribute_kinds,
    compile_filter,
    evaluate,
)
from ranking.catalogue.item_values import DECLARED_TYPES, overlay_schema
from ranking.words.item_words import ItemWords

_MAX_CHUNKS = 64
"""Chunks of the table of changes from which on it is rechunked."""


@dataclass(frozen=True)
class LiveItem:
    """One added or changed item."""

    item_id: str
    text: str
    values: dict[str, object]
    """Attribute values, typed as the catalogue's columns."""


@dataclass(frozen=True)
class TextVector:
    """A cached text vector."""

    key: bytes
    """Hash of the text and of its encoder."""
    values: bytes
    """As float32, [text dim]."""


@dataclass(frozen=True)
class ItemChange:
    """An upsert or deletion of one item."""

    item_id: str
    attributes: Mapping[str, object] | None
    """Its attributes by name; None deletes it."""
    encoded: TextVector | None = field(default=None, compare=False)
    """Cached vector of its text, used if text and encoder are unchanged."""
    partial: bool = False
    """Whether `attributes` patch the bundle's item, with None to remove a value; ignored if the bundle has no
    such item."""


@dataclass(frozen=True)
class Declaration:
    """A declaration of an attribute that the bundle has no column for."""

    name: str
    kind: AttributeKind


Change = ItemChange | Declaration


@dataclass(frozen=True)
class PreparedItemChanges:
    """Changes of items, prepared against one snapshot of the catalogue."""

    upserts: list[LiveItem]
    deletes: list[str]
    encode: list[int]
    """Positions in `upserts` of items with new texts."""
    vectors: FloatArray
    """Unit vectors of these texts, [encode, text dim]."""
    lenders: Neighbours | None = None
    """Items that co-purchase factors of these are imputed from; None imputes from the nearest texts."""
    words: Sequence[tuple[int, ItemWords]] = ()
    """Positions in `upserts` of items whose words or names change, and the new ones."""
    fresh: Mapping[str, TextVector] = field(default_factory=dict)
    """Newly encoded text vectors by item id, to be cached with the changes."""
    declared: Mapping[str, AttributeKind] = field(default_factory=dict)
    """Attributes declared by these changes."""


@dataclass
class _Overlay:
    """The overlay that all snapshots of a catalogue share: added and changed items."""

    ids: list[str]
    """[rows] ids of the bundle's and of all added items."""
    added: dict[str, int] = field(default_factory=dict)
    """Row of each added item by id."""
    items: dict[int, LiveItem] = field(default_factory=dict)
    """Newest content of each added or changed row."""


class LiveCatalogue:
    """One snapshot of the items; safe to read from any thread."""

    def __init__(self, base: Catalogue) -> None:
        """Start with a bundle's items, unchanged."""
        self.base = base
        self.size = len(base)
        """Rows, hidden ones included."""
        self.hidden: BoolArray | None = None
        """[size] rows of deleted items; None while there are none."""
        self.hidden_count = 0
        self.revision = 0
        """Number of this snapshot, from 0."""
        self.declared: Mapping[str, AttributeKind] = {}
        """Declared attributes that the bundle has no column for."""
        self.overruled: Mapping[str, AttributeKind] = {}
        """Attributes declared with another type than the bundle's, which takes precedence."""
        self._overlay = _Overlay(list(base.ids))
        self._columns = overlay_schema(base.frame.schema)
        self._changed = pl.DataFrame(schema=self._columns)
        self._changed_rows: IntArray = np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        return self.size

    @property
    def ids(self) -> Sequence[str]:
        """Item id of each row; rows of later snapshots may follow."""
        return self._overlay.ids

    @property
    def attributes(self) -> list[str]:
        """Names of the columns that filters may use."""
        return [*self.base.attributes, *self.declared]

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Types of the values of added and changed items."""
        return self._columns

    @property
    def kinds(self) -> dict[str, AttributeKind]:
        """Attributes that filters may refer to."""
        return attribute_kinds(self.filtered())

    def columns_with(self, declared: Mapping[str, AttributeKind]) -> dict[str, pl.DataType]:
        """Return `columns` with further declared attributes."""
        return {**{name: DECLARED_TYPES[kind] for name, kind in declared.items()}, **self._columns}

    def filtered(self, declared: Mapping[str, AttributeKind] | None = None) -> dict[str, pl.DataType]:
        """Return the column types that filters are compiled for.

        Args:
            declared: further attributes to be declared.

        """
        every = {**self.declared, **(declared or {})}
        return {**{name: DECLARED_TYPES[kind] for name, kind in every.items()}, **self.base.frame.schema}

    @property
    def alive_count(self) -> int:
        """Items that are not deleted."""
        return self.size - self.hidden_count

    @property
    def changed_count(self) -> int:
        """Number of added and changed items without deleted ones."""
        return len(self._overlay.items)

    def row(self, item_id: str) -> int | None:
        """Return the row of an item, also of a deleted one; None for an unknown id."""
        row = self._overlay.added.get(item_id)
        row = self.base.row(item_id) if row is None else row
        return row if row is not None and row < self.size else None

    def find(self, item_ids: Sequence[str]) -> list[int | None]:
        """Return `row` of each id, vectorised."""
        found = self.base.find(item_ids)
        if not self._overlay.added:
            return found
        return [self.row(i) if row is None else row for i, row in zip(item_ids, found, strict=True)]

    def rows(self, item_ids: Sequence[str]) -> IntArray:
        """Return the rows of the known ids, in order."""
        return np.array([row for row in self.find(item_ids) if row is not None], dtype=np.int32)

    def is_hidden(self, row: int) -> bool:
        """Return whether a row's item is deleted."""
        return self.hidden is not None and bool(self.hidden[row])

    def text(self, row: int) -> str:
        """Return an item's text."""
        item = self._overlay.items.get(row)
        return self.base.texts[row] if item is None else item.text

    def later(self, row: int) -> LiveItem | None:
        """Return the content of an added or changed row, else None."""
        return self._overlay.items.get(row)

    def value(self, row: int, attribute: str) -> object:
        """Return the value of an item's attribute; None if it is missing."""
        item = self._overlay.items.get(row)
        return self.base.frame[attribute][row] if item is None else item.values.get(attribute)

    def contents(self, rows: Sequence[int]) -> list[dict[str, object]]:
        """Return the attribute values of rows, typed as `columns`; for deleted items the last ones."""
        own = [row for row in rows if row not in self._overlay.items]
        bundled = dict(zip(own, self.bundled(own), strict=True))
        missing = dict.fromkeys(self.declared)
        return [
            {**missing, **(bundled[row] if (item := self.later(row)) is None else item.values)}
            for row in rows
        ]

    def bundled(self, rows: Sequence[int]) -> list[dict[str, object]]:
        """Return the bundle's attribute values of rows, typed as `columns`."""
        names = self.base.attributes
        frame = self.base.frame[list(rows)].select(pl.col(n).cast(self._columns[n]) for n in names)
        return frame.rows(named=True)

    def changed(self) -> list[tuple[int, LiveItem]]:
        """Return the added and changed rows without deleted ones, and their contents."""
        items = list(self._overlay.items.items())
        return [(row, item) for row, item in items if row < self.size and not self.is_hidden(row)]

    def mask(self, masks: MaskCache, version: str, expression: str) -> BoolArray:
        """Return the mask of rows that pass a filter, [size], read-only; only changed rows are re-evaluated.

        Raises:
            FilterError: as `ranking.catalogue.filter_language.compile_filter`.

        """
        found = self.cached_mask(masks, version, expression)
        if found is not None:
            return found
        if self.revision == 0:
            return masks.mask(version, self.base.frame, expression)
        compiled = compile_filter(self.filtered(), expression)
        base = masks.cached(version, expression)
        if base is None:
            base = masks.keep(version, expression, evaluate(self._base_frame(compiled), compiled))
        passed = np.zeros(self.size, dtype=np.bool_)
        passed[: len(base)] = base
        # A row that was changed twice occurs twice; the last assignment counts.
        passed[self._changed_rows] = evaluate(self._changed, compiled)
        return masks.keep(self._cache_version(version), expression, passed)

    def _base_frame(self, compiled: pl.Expr) -> pl.DataFrame:
        """Return the bundle's table with null columns for declared attributes that an expression reads."""
        read = set(compiled.meta.root_names())
        names = [name for name in self.declared if name in read]
        empty = [pl.lit(None, dtype=self._columns[name]).alias(name) for name in names]
        return self.base.frame.with_columns(empty)

    def cached_mask(self, masks: MaskCache, version: str, expression: str) -> BoolArray | None:
        """Return the cached mask of this snapshot, None if there is none."""
        return masks.cached(self._cache_version(version), expression)

    def changed_values(self, attribute: str) -> tuple[IntArray, pl.Series]:
        """Return the added and changed rows and their values; the last one of a row counts."""
        return self._changed_rows, self._changed[attribute]

    def bundled_values(self, attribute: str) -> pl.Series:
        """Return the bundle's values of an attribute, [bundle's items]; nulls for a declared one."""
        if attribute in self.declared:
            return pl.repeat(None, len(self.base), dtype=self._columns[attribute], eager=True)
        return self.base.frame[attribute]

    def _cache_version(self, version: str) -> str:
        return version if self.revision == 0 else f"{version}+{self.revision}"

    def rows_of(self, upserts: Sequence[LiveItem]) -> list[int]:
        """Return the row of each item; new items get the next rows."""
        rows, next_row = [], self.size
        for item in upserts:
            row = self.row(item.item_id)
            if row is None:
                row, next_row = next_row, next_row + 1
            rows.append(row)
        return rows

    def after(self, plan: PreparedItemChanges) -> LiveCatalogue:
        """Return the snapshot after prepared changes."""
        rows = self.rows_of(plan.upserts)
        hidden = np.zeros(max([self.size, *(row + 1 for row in rows)]), dtype=np.bool_)
        if self.hidden is not None:
            hidden[: self.size] = self.hidden
        hidden[rows] = False
        hidden[self.rows(plan.deletes)] = True
        return self.next(plan.upserts, rows, hidden, plan.declared)

    def next(
        self,
        upserts: Sequence[LiveItem],
        rows: Sequence[int],
        hidden: BoolArray,
        declared: Mapping[str, AttributeKind] | None = None,
    ) -> LiveCatalogue:
        """Return the snapshot after some changes.

        Args:
            upserts: added and changed items.
            rows: their rows; those from `size` on are new and in order.
            hidden: [new size] rows of deleted items.
            declared: further declared attributes.

        """
        state = LiveCatalogue.__new__(LiveCatalogue)
        state.base, state._columns, state._overlay = self.base, self._columns, self._overlay
        state.declared, state.overruled = self.declared, self.overruled
        for item, row in zip(upserts, rows, strict=True):
            if row >= len(self._overlay.ids):
                self._overlay.ids.append(item.item_id)
                self._overlay.added[item.item_id] = row
            self._overlay.items[row] = item
        state.size = len(self._overlay.ids)
        state.hidden_count = int(np.count_nonzero(hidden))
        state.hidden = hidden if state.hidden_count else None
        state.revision = self.revision + 1
        state._changed, state._changed_rows = self._changed, self._changed_rows
        if declared:
            state._declare(declared)
        if upserts:
            contents = [
                {schema.ITEM_ID: item.item_id, schema.TEXT: item.text, **item.values} for item in upserts
            ]
            state._changed = state._changed.vstack(pl.DataFrame(contents, schema=state._columns))
            state._changed_rows = np.concatenate([self._changed_rows, np.array(rows, dtype=np.int32)])
            if len(state._changed_rows) > 2 * len(self._overlay.items) + _MAX_CHUNKS:
                state._drop_superseded()
            if state._changed.n_chunks() > _MAX_CHUNKS:
                state._changed = state._changed.rechunk()
        return state

    def _declare(self, declared: Mapping[str, AttributeKind]) -> None:
        """Add columns for declared attributes; columns of the bundle keep their type."""
        bundled = attribute_kinds(self.base.frame.schema)
        known = (schema.ITEM_ID, *self.base.attributes)
        new = {name: kind for name, kind in declared.items() if name not in known}
        other = {name: kind for name, kind in declared.items() if name in known and bundled.get(name) != kind}
        self.declared, self.overruled = {**self.declared, **new}, {**self.overruled, **other}
        self._columns = self.columns_with(new)
        empty = [
            pl.lit(None, dtype=self._columns[name]).alias(name) for name in new if name not in self._changed
        ]
        self._changed = self._changed.with_columns(empty)[list(self._columns)]

    def _drop_superseded(self) -> None:
        """Drop all but the last content of every changed row."""
        _, last = np.unique(self._changed_rows[::-1], return_index=True)
        kept = np.sort(len(self._changed_rows) - 1 - last)
        self._changed, self._changed_rows = self._changed[kept], self._changed_rows[kept]
