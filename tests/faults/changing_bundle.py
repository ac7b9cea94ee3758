"""The fake bundle with mutable items, for processes that must start quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from features.data.dataset import BoolArray
from ranking.catalogue.item_values import patched, typed_values
from ranking.catalogue.live_catalogue import Change, Declaration, ItemChange, LiveItem, PreparedItemChanges
from ranking.types import Recommendation, Request
from serving.model.interfaces import Model
from tests.serving.fake_bundle import ITEMS, FakeBundle, FakeRecommender


class ChangingRecommender(FakeRecommender):
    """Recommends the initial items only; similarity covers all items."""

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        return super().recommend([_first(request) for request in requests])


def _first(request: Request) -> Request:
    """Return the request with masks cut to the initial catalogue."""
    exclude = request.exclude[request.exclude < ITEMS]
    allowed: BoolArray | None = None if request.allowed is None else request.allowed[:ITEMS]
    return replace(request, exclude=exclude, allowed=allowed)


class ChangingBundle(FakeBundle):
    """Takes upserts and deletes; an item's text is its title."""

    def __init__(self, version: str = "v1") -> None:
        super().__init__(version)
        self.recommender: Any = ChangingRecommender(self.text_vectors)

    def plan(self, changes: Sequence[Change]) -> PreparedItemChanges:
        upserts: dict[str, LiveItem] = {}
        deletes: dict[str, bool] = {}
        declared = {c.name: c.kind for c in changes if isinstance(c, Declaration)}
        columns = self.catalogue.columns_with(declared)
        for change in (c for c in changes if isinstance(c, ItemChange)):
            upserts.pop(change.item_id, None)
            deletes.pop(change.item_id, None)
            if change.attributes is None:
                deletes[change.item_id] = True
            else:
                values, _ = typed_values(change.attributes, columns)
                row = self.catalogue.base.row(change.item_id)
                if change.partial and row is not None:
                    values = patched(self.catalogue.bundled([row])[0], change.attributes, columns)
                upserts[change.item_id] = LiveItem(change.item_id, str(values["title"]), values)
        vectors = (
            self.encode_items([i.text for i in upserts.values()]) if upserts else np.zeros((0, 0), np.float32)
        )
        encode = list(range(len(upserts)))
        return PreparedItemChanges(list(upserts.values()), list(deletes), encode, vectors, declared=declared)

    def apply(self, plan: PreparedItemChanges) -> Model:
        before, rows, size = self.catalogue, [], self.catalogue.size
        for item in plan.upserts:
            row = before.row(item.item_id)
            rows.append(size if row is None else row)
            size += row is None
        hidden = np.zeros(size, dtype=np.bool_)
        if before.hidden is not None:
            hidden[: before.size] = before.hidden
        hidden[rows] = False
        hidden[before.rows(plan.deletes)] = True
        texts = np.zeros((size, self.text_vectors.shape[1]), dtype=np.float32)
        texts[: before.size] = self.text_vectors
        if rows:
            texts[rows] = plan.vectors
        self.catalogue = before.next(plan.upserts, rows, hidden, plan.declared)
        self.text_vectors = texts
        self.recommender.vectors = texts
        return self
