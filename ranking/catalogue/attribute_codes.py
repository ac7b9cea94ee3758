"""Integer codes of attribute values, by which caps count equal ones."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import polars as pl

from features.data.dataset import IntArray
from ranking.catalogue.live_catalogue import LiveCatalogue

_MAX_CACHED = 8
"""Attributes whose codes are cached: a few bytes per item each."""


class _Attribute:
    """Codes of the bundle's items, and of the newest state requested."""

    def __init__(self, column: pl.Series) -> None:
        self._known = _numbered(column.drop_nulls().unique(), 0)
        self._base = self._coded(column)
        self.revision = 0
        self.codes = self._base

    def _coded(self, column: pl.Series) -> IntArray:
        """Return the code of each value, -1 for missing."""
        values_now = column.alias("value").to_frame()
        found = values_now.join(self._known, on="value", how="left", maintain_order="left")
        return found["code"].fill_null(-1).to_numpy().astype(np.int32)

    def update(self, catalogue: LiveCatalogue, name: str) -> None:
        """Update the codes to a state of the items."""
        rows, values = catalogue.changed_values(name)
        values_now = values.drop_nulls().unique().alias("value").to_frame()
        later = values_now.join(self._known, on="value", how="anti")["value"]
        self._known = self._known.vstack(_numbered(later, len(self._known)))
        codes = np.full(len(catalogue), -1, dtype=np.int32)
        codes[: len(self._base)] = self._base
        codes[rows] = self._coded(values)  # of a row changed twice the last assignment counts
        self.codes, self.revision = codes, catalogue.revision


def _numbered(values: pl.Series, first: int) -> pl.DataFrame:
    codes = pl.int_range(first, first + len(values), dtype=pl.Int32, eager=True)
    return pl.DataFrame({"value": values, "code": codes})


class ValueCodes:
    """Codes of one model's attributes by name; thread-safe.

    A value has the same code in every state of the items.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._attributes: OrderedDict[str, _Attribute] = OrderedDict()
        self._lock = threading.Lock()

    def cached(self, catalogue: LiveCatalogue, name: str) -> IntArray | None:
        """Return the cached codes of this state, None if there are none."""
        with self._lock:
            found = self._attributes.get(name)
            return found.codes if found is not None and found.revision == catalogue.revision else None

    def of(self, catalogue: LiveCatalogue, name: str) -> IntArray:
        """Return the code of each row's value of an attribute that is not a list, [items]; -1 for missing."""
        found = self.cached(catalogue, name)
        if found is not None:
            return found
        with self._lock:
            attribute = self._attributes.pop(name, None)
            if attribute is None:
                attribute = _Attribute(catalogue.bundled_values(name))
            if attribute.revision != catalogue.revision:
                attribute.update(catalogue, name)
            self._attributes[name] = attribute
            if len(self._attributes) > _MAX_CACHED:
                self._attributes.popitem(last=False)
            return attribute.codes
