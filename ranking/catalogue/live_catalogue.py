"""The catalogue while it is served: a bundle's items, and what has been changed, added and deleted since.

An item keeps its row for as long as the bundle is served, so that rows in running requests stay true:
changed items stay where they are, new ones get the next row, deleted ones are hidden. A `LiveCatalogue` is
one state of this; what states share only ever grows, and a state does not look beyond its own size.
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
"""Pieces in which the table of changes may lie before it is joined."""


@dataclass(frozen=True)
class LiveItem:
    """One added or changed item."""

    item_id: str
    text: str
    values: dict[str, object]
    """Attribute values, typed as the catalogue's columns."""


@dataclass(frozen=True)
class TextVector:
    """The vector of a text, kept for the next time that it is encoded."""

    key: bytes
    """Of the text and of the encoder that has read it."""
    values: bytes
    """As float32, [text dim]."""


@dataclass(frozen=True)
class ItemChange:
    """One item as it shall be from now on."""

    item_id: str
    attributes: Mapping[str, object] | None
    """Everything known about it, by name; None deletes it."""
    encoded: TextVector | None = field(default=None, compare=False)
    """What an encoder has made of its text before; it serves where text and encoder are the same."""
    partial: bool = False
    """Whether `attributes` are only what differs from the bundle's item, None for what it shall not have.
    A bundle without the item does not get it."""


@dataclass(frozen=True)
class Declaration:
    """An attribute that items may have although the bundle has no such column."""

    name: str
    kind: AttributeKind


Change = ItemChange | Declaration


@dataclass(frozen=True)
class PreparedItemChanges:
    """Changes of items, prepared against one state of the catalogue."""

    upserts: list[LiveItem]
    deletes: list[str]
    encode: list[int]
    """Positions in `upserts` of items whose texts are new."""
    vectors: FloatArray
    """Unit vectors of these texts, [encode, text dim]."""
    lenders: Neighbours | None = None
    """Whom these items would borrow co-purchase factors from; None leaves it to the nearest texts."""
    words: Sequence[tuple[int, ItemWords]] = ()
    """Positions in `upserts` of items that are looked up differently from then on, and how."""
    fresh: Mapping[str, TextVector] = field(default_factory=dict)
    """What had to be encoded, by item, to be kept with the changes."""
    declared: Mapping[str, AttributeKind] = field(default_factory=dict)
    """Attributes that items may have from then on."""


@dataclass
class _Later:
    """What all states of a catalogue share about items that are not as the bundle has them."""

    ids: list[str]
    """[rows] of the bundle's items and of all that were added."""
    added: dict[str, int] = field(default_factory=dict)
    """Row of each added id."""
    items: dict[int, LiveItem] = field(default_factory=dict)
    """Newest content of each row that is not as in the bundle."""


class LiveCatalogue:
    """One state of the items; safe to read from any thread."""

    def __init__(self, base: Catalogue) -> None:
        """Begin with a bundle's items, unchanged."""
        self.base = base
        self.size = len(base)
        """Rows, hidden ones included."""
        self.hidden: BoolArray | None = None
        """[size] rows of deleted items; None while there are none."""
        self.hidden_count = 0
        self.revision = 0
        """Number of this state, from 0."""
        self.declared: Mapping[str, AttributeKind] = {}
        """Attributes that the bundle does not have and items may have."""
        self.overruled: Mapping[str, AttributeKind] = {}
        """Attributes that were declared with another type than the bundle's, which counts."""
        self._later = _Later(list(base.ids))
        self._columns = overlay_schema(base.frame.schema)
        self._changed = pl.DataFrame(schema=self._columns)
        self._changed_rows: IntArray = np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        return self.size

    @property
    def ids(self) -> Sequence[str]:
        """Item id of each row; rows of later states may follow."""
        return self._later.ids

    @property
    def attributes(self) -> list[str]:
        """Names of the columns that filters may use."""
        return [*self.base.attributes, *self.declared]

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Types in which the values of later items are kept."""
        return self._columns

    @property
    def kinds(self) -> dict[str, AttributeKind]:
        """What filters may refer to."""
        return attribute_kinds(self.filtered())

    def columns_with(self, declared: Mapping[str, AttributeKind]) -> dict[str, pl.DataType]:
        """Return `columns` as they are once these attributes have been declared."""
        return {**{name: DECLARED_TYPES[kind] for name, kind in declared.items()}, **self._columns}

    def filtered(self, declared: Mapping[str, AttributeKind] | None = None) -> dict[str, pl.DataType]:
        """Return the column types that filters are compiled for.

        Args:
            declared: attributes that are going to be declared beside those that are.

        """
        every = {**self.declared, **(declared or {})}
        return {**{name: DECLARED_TYPES[kind] for name, kind in every.items()}, **self.base.frame.schema}

    @property
    def alive_count(self) -> int:
        """Items that are not deleted."""
        return self.size - self.hidden_count

    @property
    def changed_count(self) -> int:
        """Items that are not as the bundle has them, deleted ones not counted."""
        return len(self._later.items)

    def row(self, item_id: str) -> int | None:
        """Return the row of an item that is or was in the catalogue, or None for an unknown id."""
        row = self._later.added.get(item_id)
        row = self.base.row(item_id) if row is None else row
        return row if row is not None and row < self.size else None

    def find(self, item_ids: Sequence[str]) -> list[int | None]:
        """Return what `row` does of each id, in a fraction of the time."""
        found = self.base.find(item_ids)
        if not self._later.added:
            return found
        return [self.row(i) if row is None else row for i, row in zip(item_ids, found, strict=True)]

    def rows(self, item_ids: Sequence[str]) -> IntArray:
        """Return rows of the known ids, in order, leaving unknown ones out."""
        return np.array([row for row in self.find(item_ids) if row is not None], dtype=np.int32)

    def is_hidden(self, row: int) -> bool:
        """Tell whether a row's item has been deleted."""
        return self.hidden is not None and bool(self.hidden[row])

    def text(self, row: int) -> str:
        """Return an item's text."""
        item = self._later.items.get(row)
        return self.base.texts[row] if item is None else item.text

    def later(self, row: int) -> LiveItem | None:
        """Return the content of a row that is not as in the bundle, else None."""
        return self._later.items.get(row)

    def value(self, row: int, attribute: str) -> object:
        """Return the newest value of an item's attribute; None where it has none."""
        item = self._later.items.get(row)
        return self.base.frame[attribute][row] if item is None else item.values.get(attribute)

    def contents(self, rows: Sequence[int]) -> list[dict[str, object]]:
        """Return the attribute values of rows, typed as `columns`; of deleted items the last ones."""
        own = [row for row in rows if row not in self._later.items]
        bundled = dict(zip(own, self.bundled(own), strict=True))
        missing = dict.fromkeys(self.declared)
        return [
            {**missing, **(bundled[row] if (item := self.later(row)) is None else item.values)}
            for row in rows
        ]

    def bundled(self, rows: Sequence[int]) -> list[dict[str, object]]:
        """Return the attribute values that the bundle has in some of its rows, typed as `columns`."""
        names = self.base.attributes
        frame = self.base.frame[list(rows)].select(pl.col(n).cast(self._columns[n]) for n in names)
        return frame.rows(named=True)

    def changed(self) -> list[tuple[int, LiveItem]]:
        """Return the rows that are not as in the bundle, without deleted ones, and their newest contents."""
        items = list(self._later.items.items())
        return [(row, item) for row, item in items if row < self.size and not self.is_hidden(row)]

    def mask(self, masks: MaskCache, version: str, expression: str) -> BoolArray:
        """Return which rows pass a filter, [size], read-only; only what has changed is looked at again.

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
        # A row that was changed twice is there twice; the later assignment stays.
        passed[self._changed_rows] = evaluate(self._changed, compiled)
        return masks.keep(self._state_name(version), expression, passed)

    def _base_frame(self, compiled: pl.Expr) -> pl.DataFrame:
        """Return the bundle's table with the declared columns that an expression reads, empty."""
        read = set(compiled.meta.root_names())
        names = [name for name in self.declared if name in read]
        empty = [pl.lit(None, dtype=self._columns[name]).alias(name) for name in names]
        return self.base.frame.with_columns(empty)

    def cached_mask(self, masks: MaskCache, version: str, expression: str) -> BoolArray | None:
        """Return a mask made before for this state, without any work."""
        return masks.cached(self._state_name(version), expression)

    def changed_values(self, attribute: str) -> tuple[IntArray, pl.Series]:
        """Return rows that changed since the bundle, and their values; the last one of a row counts."""
        return self._changed_rows, self._changed[attribute]

    def bundled_values(self, attribute: str) -> pl.Series:
        """Return the bundle's values of an attribute, [bundle's items]; a declared one has none there."""
        if attribute in self.declared:
            return pl.repeat(None, len(self.base), dtype=self._columns[attribute], eager=True)
        return self.base.frame[attribute]

    def _state_name(self, version: str) -> str:
        return version if self.revision == 0 else f"{version}+{self.revision}"

    def places(self, upserts: Sequence[LiveItem]) -> list[int]:
        """Return the row that each item has or is going to have, new ones after the last."""
        rows, next_row = [], self.size
        for item in upserts:
            row = self.row(item.item_id)
            if row is None:
                row, next_row = next_row, next_row + 1
            rows.append(row)
        return rows

    def after(self, plan: PreparedItemChanges) -> LiveCatalogue:
        """Return the state after planned changes."""
        rows = self.places(plan.upserts)
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
        """Return the state after some changes.

        Args:
            upserts: added and changed items.
            rows: their rows; those from `size` on are new and in order.
            hidden: [new size] rows of deleted items.
            declared: attributes that items may have from then on.

        """
        state = LiveCatalogue.__new__(LiveCatalogue)
        state.base, state._columns, state._later = self.base, self._columns, self._later
        state.declared, state.overruled = self.declared, self.overruled
        for item, row in zip(upserts, rows, strict=True):
            if row >= len(self._later.ids):
                self._later.ids.append(item.item_id)
                self._later.added[item.item_id] = row
            self._later.items[row] = item
        state.size = len(self._later.ids)
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
            if len(state._changed_rows) > 2 * len(self._later.items) + _MAX_CHUNKS:
                state._forget_superseded()
            if state._changed.n_chunks() > _MAX_CHUNKS:
                state._changed = state._changed.rechunk()
        return state

    def _declare(self, declared: Mapping[str, AttributeKind]) -> None:
        """Give later items further columns; a column of the bundle stays what it is."""
        bundled = attribute_kinds(self.base.frame.schema)
        known = (schema.ITEM_ID, *self.base.attributes)
        new = {name: kind for name, kind in declared.items() if name not in known}
        other = {name: kind for name, kind in declared.items() if name in known and bundled.get(name) != kind}
        self.declared, self.overruled = {**self.declared, **new}, {**self.overruled, **other}
        self._columns = self.columns_with(new)
        empty = [
            pl.lit(None, dtype=self._columns[name]).alias(name) for name in new if name not in self._changed
        ]
        self._changed = self._changed.with_columns(empty).select(list(self._columns))

    def _forget_superseded(self) -> None:
        """Keep the last content of every changed row only."""
        _, last = np.unique(self._changed_rows[::-1], return_index=True)
        kept = np.sort(len(self._changed_rows) - 1 - last)
        self._changed, self._changed_rows = self._changed[kept], self._changed_rows[kept]
