"""Item-aligned arrays that grow without being copied, and the initial values of new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from encoders.factors.affinity import Affinity, imputation_neighbours
from encoders.factors.co_purchase import IMPUTATION_NEIGHBOURS, Factors
from encoders.towers.towers import Towers
from features.candidates.features import ItemArrays
from features.data import schema
from features.data.dataset import BoolArray, Catalogue, FloatArray, IntArray
from features.data.statistics import Neighbours, Statistics, attribute_codes
from ranking.assembly import DEMAND_NEIGHBOURS, PcaProjection, near_recent, unit
from ranking.catalogue.live_catalogue import LiveItem
from ranking.kernels.growable import GrowableArray
from ranking.live.listed import ListedIn

_NOT_OF_ITEMS = {"now", "demand_keys", "demand_totals", "demand_calendar"}
"""Statistics without a row per item; the keys of demand ascend by row, so new rows do not change them."""


class LiveStatistics:
    """Statistics that take rows for new items."""

    def __init__(self, base: Statistics, room: int) -> None:
        """Reserve memory for `room` new items."""
        self._columns: dict[str, GrowableArray[Any]] = {}
        self._fresh: dict[str, Any] = {}
        for field in fields(base):
            if field.name not in _NOT_OF_ITEMS:
                values = getattr(base, field.name)
                self._columns[field.name] = GrowableArray(values, room)
                self._fresh[field.name] = _fresh_row(field.name, values, base)
        self._base = replace(base, **{name: column.view(0) for name, column in self._columns.items()})
        # The demand columns as of a day are cached, so that no snapshot recomputes them.
        unsold = base.demand.unsold()
        self._unsold = unsold.present[0], unsold.previous_day[0]
        self._demand = GrowableArray(base.demand.present, room), GrowableArray(base.demand.previous_day, room)

    def view(self, size: int) -> Statistics:
        """Return the statistics of the first rows."""
        columns = {name: column.view(size) for name, column in self._columns.items()}
        statistics = replace(self._base, **columns)
        present, previous_day = (block.view(size) for block in self._demand)
        return statistics.with_demand(
            self._base.demand.extended(statistics.demand_first, present, previous_day)
        )

    def add(self, rows: IntArray) -> None:
        """Initialise new rows with the statistics of an item without events."""
        for name, column in self._columns.items():
            column.put(rows, self._fresh[name])
        for block, values in zip(self._demand, self._unsold, strict=True):
            block.put(rows, values)

    def describe(self, rows: IntArray, log_prices: FloatArray, codes: IntArray) -> None:
        """Set prices [rows] and attribute codes [rows, attributes]."""
        self._columns["log_price"].put(rows, log_prices)
        self._columns["attributes"].put(rows, codes)


def _fresh_row(name: str, values: npt.NDArray[Any], base: Statistics) -> npt.NDArray[Any]:
    """Return a statistic's value for an item without events, that of the bundle's first such item if any."""
    if name == "demand_first":
        return np.array(base.demand.unsold().first[0])
    cold = np.flatnonzero(base.count == 0)
    if len(cold):
        return np.array(values[cold[0]])
    if name in ("repeat_rate", "gap_days"):
        return np.array(np.median(values, axis=0), dtype=values.dtype)
    empty = -1 if np.issubdtype(values.dtype, np.integer) else 0
    return np.full(values.shape[1:], empty, dtype=values.dtype)


class AttributeCodes:
    """The codes of attribute values that the ranking head was trained on."""

    def __init__(self, catalogue: Catalogue, codes: IntArray) -> None:
        """Recover the coding from a bundle's catalogue.

        Args:
            catalogue: the bundle's items.
            codes: their codes, [items, attributes], made by `features.data.statistics.attribute_codes`.

        """
        self._numbers: list[tuple[str, dict[str, int]]] = []
        for name in catalogue.attributes:
            column = len(self._numbers)
            if column == codes.shape[1]:
                break
            alone = catalogue.frame.select(schema.ITEM_ID, schema.TEXT, name)
            if catalogue.frame.schema[name] != pl.String:
                continue
            if np.array_equal(attribute_codes(Catalogue(alone)), codes[:, column : column + 1]):
                values = alone[name].to_list()
                numbered = zip(values, codes[:, column].tolist(), strict=True)
                self._numbers.append((name, {v: code for v, code in numbered if v is not None}))
        self._width = codes.shape[1]

    def of(self, items: Sequence[LiveItem]) -> IntArray:
        """Return the codes of new or changed items, [items, attributes]; -1 for values not in the bundle."""
        codes = np.full((len(items), self._width), -1, dtype=np.int32)
        for position, item in enumerate(items):
            for column, (name, numbers) in enumerate(self._numbers):
                codes[position, column] = numbers.get(str(item.values.get(name)), -1)
        return codes


def log_prices(items: Sequence[LiveItem]) -> FloatArray:
    """Return log(1 + price) of added or changed items, [items]; 0 without a price."""
    prices = [item.values.get(schema.PRICE) for item in items]
    known = [p if isinstance(p, (int, float)) and p > 0 else 0.0 for p in prices]
    return np.log1p(np.array(known, dtype=np.float64)).astype(np.float32)


class LiveArrays:
    """All arrays of the Recommender, growable; for the one thread that runs the model.

    Writes are visible in earlier views, too. That is intended (an item's newest vector is the right one) and
    safe, because reads and writes happen in the same thread.
    """

    def __init__(
        self,
        arrays: ItemArrays,
        text_vectors: FloatArray,
        factors: Factors | None,
        affinity: Affinity | None,
        room: int,
    ) -> None:
        """Take over a bundle's arrays; those without reserved memory for new items are copied."""
        self._text = GrowableArray(text_vectors, room)
        self._item = GrowableArray(arrays.item_vectors, room)
        self._item_units = GrowableArray(arrays.item_units, room)
        self._text_units = GrowableArray(arrays.text_units, room)
        self._affinity = affinity
        self._affinity_units = GrowableArray(arrays.affinity_units, room)
        self._near_ids = GrowableArray(arrays.text_near.ids, room)
        self._near_weights = GrowableArray(arrays.text_near.weights, room)
        self._near_recent = GrowableArray(arrays.text_near_recent, room)
        self._listed_in = ListedIn(arrays.text_near.ids[:, :DEMAND_NEIGHBOURS])
        self._factors = GrowableArray(arrays.factor_vectors, room)
        self._dual = GrowableArray(arrays.factor_vectors if factors is None else factors.dual, room)
        # Without references to the loaded arrays, so that these can be freed.
        none = {"vectors": self._factors.view(0), "dual": self._dual.view(0)}
        self._solver = None if factors is None else replace(factors, **none)
        self.statistics = LiveStatistics(arrays.statistics, room)
        self.base_size = len(text_vectors)
        """Rows of the bundle."""
        self._has_factors: BoolArray = arrays.statistics.count > 0
        """[base rows] items with trained factors; only these are imputed from, whatever is recorded later."""

    def _trained(self, size: int) -> BoolArray:
        """Return the mask of the items with trained factors, [size]."""
        trained: BoolArray = np.pad(self._has_factors, (0, size - len(self._has_factors)))
        return trained

    def text_vectors(self, size: int) -> FloatArray:
        """Return the unit text vectors of the first rows, [size, text dim]."""
        return self._text.view(size)

    def factors(self, size: int) -> Factors | None:
        """Return the co-purchase factors of the first rows; None where there are none."""
        if self._solver is None:
            return None
        return replace(self._solver, vectors=self._factors.view(size), dual=self._dual.view(size))

    def view(self, size: int) -> ItemArrays:
        """Return the arrays of the first rows."""
        return ItemArrays(
            statistics=self.statistics.view(size),
            item_vectors=self._item.view(size),
            item_units=self._item_units.view(size),
            text_units=self._text_units.view(size),
            affinity_units=self._affinity_units.view(size),
            text_near=Neighbours(self._near_ids.view(size), self._near_weights.view(size)),
            text_near_recent=self._near_recent.view(size),
            factor_vectors=self._factors.view(size),
        )

    def write_texts(
        self,
        rows: IntArray,
        text_vectors: FloatArray,
        sketch: PcaProjection,
        towers: Towers | None,
        base_size: int,
    ) -> None:
        """Write the vectors derived from new texts; items of the bundle keep their trained id residuals.

        Args:
            rows: rows with new texts.
            text_vectors: their unit text vectors, [rows, text dim].
            sketch: the bundle's projection of text vectors.
            towers: the bundle's towers; None compares text vectors.
            base_size: rows of the bundle.

        """
        vectors = text_vectors if towers is None else tower_vectors(towers, text_vectors, rows, base_size)
        self._text.put(rows, text_vectors)
        self._item.put(rows, vectors)
        self._item_units.put(rows, unit(vectors))
        self._text_units.put(rows, sketch.units(text_vectors))
        if self._affinity is not None:
            self._affinity_units.put(rows, self._affinity.units(text_vectors))
        self._near_ids.put(rows, -1)
        self._near_weights.put(rows, 0.0)

    def write_neighbours(self, row: int, candidates: IntArray, size: int) -> IntArray:
        """Insert a row into the text neighbour lists: its own, and those of its neighbours.

        Args:
            row: row with a new text.
            candidates: nearest rows by text, [any]; padding of -1 and the row itself are ignored.
            size: rows of the catalogue.

        Returns:
            Rows whose lists may have changed.

        """
        units, ids, weights = (
            self._text_units.view(size),
            self._near_ids.view(size),
            self._near_weights.view(size),
        )
        near = candidates[(candidates >= 0) & (candidates != row)]
        cosines = np.maximum(units[near] @ units[row], 0.0)
        order = np.argsort(-cosines, kind="stable")[: ids.shape[1]]
        near, cosines = near[order], cosines[order].astype(np.float32)
        ids[row, : len(near)], weights[row, : len(near)] = near, cosines
        for other, cosine in zip(near.tolist(), cosines.tolist(), strict=True):
            _insert(ids[other], weights[other], row, cosine)
        return np.append(near, row).astype(np.int32)

    def lenders(self, text_vectors: FloatArray, size: int) -> Neighbours | None:
        """Return the items that factors for these texts are imputed from; writes nothing.

        Args:
            text_vectors: unit text vectors, [texts, text dim].
            size: rows of the catalogue.

        Returns:
            Neighbours of the texts; None where factors are imputed from text neighbours, or not at all.

        """
        if self._affinity is None or self.factors(size) is None:
            return None
        units = self._affinity_units.view(size)
        return imputation_neighbours(
            self._affinity.units(text_vectors), units, self._trained(size), IMPUTATION_NEIGHBOURS
        )

    def write_imputed(self, rows: IntArray, near: Neighbours | None, touched: IntArray, size: int) -> None:
        """Write the factors and demand of items that are imputed from neighbours.

        Args:
            rows: rows with new texts; factors of those without training events are imputed.
            near: `lenders` of the rows' texts.
            touched: rows whose neighbour lists have changed.
            size: rows of the catalogue.

        """
        ids, weights = self._near_ids.view(size), self._near_weights.view(size)
        self._listed_in.changed(touched)
        self.refresh_near_recent(touched, size)
        factors = self.factors(size)
        if factors is None:
            return
        known = self._trained(size)
        imputed = ~known[rows]
        near = near or Neighbours(ids[rows], weights[rows])
        rows, near = rows[imputed], Neighbours(near.ids[imputed], near.weights[imputed])
        vectors, dual = factors.imputed(near, known)
        self._factors.put(rows, vectors)
        self._dual.put(rows, dual)

    def refresh_near_recent_of(self, sold: IntArray, size: int) -> None:
        """Write the recent demand for the text neighbours of all rows that rows with new events are among."""
        ids = self._near_ids.view(size)[:, :DEMAND_NEIGHBOURS]
        self.refresh_near_recent(self._listed_in.find(sold, ids), size)

    def refresh_near_recent(self, rows: IntArray, size: int) -> None:
        """Write the recent demand for the text neighbours of rows, see `ranking.assembly.near_recent`."""
        ids = self._near_ids.view(size)
        self._near_recent.put(rows, near_recent(ids[rows], self.statistics.view(size)))

    def remove_neighbour(self, row: int, size: int) -> IntArray:
        """Remove a row from the lists of its former neighbours, and return these."""
        ids, weights = self._near_ids.view(size), self._near_weights.view(size)
        former: IntArray = ids[row][ids[row] >= 0]
        for other in former.tolist():
            kept = ids[other] != row
            count = int(kept.sum())
            if count < len(kept):
                ids[other, :count], weights[other, :count] = ids[other][kept], weights[other][kept]
                ids[other, count:], weights[other, count:] = -1, 0.0
        return former


def _insert(ids: IntArray, weights: FloatArray, row: int, weight: float) -> None:
    """Insert a neighbour into a list sorted by weight, in place; a full list drops its last."""
    if len(ids) == 0 or (ids[-1] >= 0 and weights[-1] >= weight) or row in ids:
        return
    filled = int((ids >= 0).sum())
    position = int(np.searchsorted(-weights[:filled], -weight, side="right"))
    ids[position + 1 :], weights[position + 1 :] = ids[position:-1].copy(), weights[position:-1].copy()
    ids[position], weights[position] = row, weight


@torch.inference_mode()
def tower_vectors(towers: Towers, text_vectors: FloatArray, rows: IntArray, base_size: int) -> FloatArray:
    """Return item tower vectors of new texts, [rows, dim].

    Rows of the bundle keep their trained residual; new ones are represented by text alone, as the tower is
    trained for cold items. Zero for a tower without text input.
    """
    tower = towers.item_tower
    device = tower.seen.device
    trained = rows < base_size
    known = torch.from_numpy(np.where(trained, rows, 0).astype(np.int64)).to(device)
    whitened = tower.whitened(torch.from_numpy(np.ascontiguousarray(text_vectors)).to(device))
    vectors: FloatArray = tower(whitened, known, torch.from_numpy(trained).to(device)).cpu().numpy()
    if tower.project is None:
        vectors[~trained] = 0.0
    return vectors
