"""A snapshot of a served bundle's items, as a request sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encoders.device import describe_device
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.statistics import Neighbours
from ranking.bundle.bundle import Bundle
from ranking.catalogue.live_catalogue import LiveCatalogue
from ranking.recommender import Recommender
from ranking.text_search import search
from ranking.types import Recommendation, Request


class NewestRecommender:
    """Makes lists from the newest snapshot of the items, whichever one a request started with.

    Shared by all snapshots, without references to them: such a cycle would delay freeing the memory of a
    replaced model until the next garbage collection.
    """

    def __init__(self, recommender: Recommender) -> None:
        """Start with the first snapshot."""
        self.recommender = recommender
        """Of the newest snapshot; for the thread that runs the model."""

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Return a list for every request of any snapshot: rows are the same in all of them."""
        return self.recommender.recommend(self._with_current_size(requests))

    def search(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Return items by text query; see `ranking.text_search.search`."""
        return search(self.recommender, self._with_current_size(requests))

    def _with_current_size(self, requests: Sequence[Request]) -> list[Request]:
        size = self.recommender.items
        return [r if r.allowed is None else replace(r, allowed=_padded(r.allowed, size)) for r in requests]

    def similar(
        self, vectors: FloatArray, k: int, exclude: IntArray, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the items whose texts are nearest; see `Recommender.similar`."""
        allowed = None if allowed is None else _padded(allowed, self.recommender.items)
        return self.recommender.similar(vectors, k, exclude, allowed)

    def stored_neighbours(self, row: int) -> Neighbours:
        """Return the nearest texts of an item that the arrays hold, without deleted items, [found]."""
        near, hidden = self.recommender.arrays.text_near, self.recommender.hidden
        ids, cosines = near.ids[row], near.weights[row]
        shown = ids >= 0 if hidden is None else (ids >= 0) & ~hidden[np.maximum(ids, 0)]
        return Neighbours(ids[shown], cosines[shown])


@dataclass(frozen=True)
class LiveVersion:
    """A snapshot of a served bundle: what a request that starts now sees of the items."""

    bundle: Bundle
    catalogue: LiveCatalogue
    recommender: NewestRecommender
    """Shared by all snapshots: lists are made from the newest vectors, without items deleted by then."""

    @property
    def version(self) -> str:
        """Name of the bundle's version."""
        return self.bundle.version

    @property
    def manifest(self) -> dict[str, Any]:
        """Content of manifest.json."""
        return self.bundle.manifest

    @property
    def kinds(self) -> list[str]:
        """Event kinds, strongest first."""
        return self.bundle.kinds

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history are left out unless the request says otherwise."""
        return self.bundle.exclude_seen

    @property
    def data_end(self) -> int:
        """Unix seconds of the last event in the bundle's statistics."""
        return self.bundle.data_end

    @property
    def text_dim(self) -> int:
        """Width of the text vectors."""
        return int(self.text_vectors.shape[1])

    @property
    def device(self) -> str:
        """Where lists are made, for example `cpu` or `cuda:0 NVIDIA H100`."""
        return describe_device(self.bundle.device)

    @property
    def text_vectors(self) -> FloatArray:
        """Unit text vectors, [items, text dim]."""
        return self.recommender.recommender.text_vectors

    def encode_items(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of item texts, [texts, text dim]."""
        return self.bundle.encode_items(texts)

    def encode_queries(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of free text, [texts, text dim]."""
        return self.bundle.encode_queries(texts)


def _padded(allowed: BoolArray, size: int) -> BoolArray:
    """Return a mask padded to a grown catalogue, [size]; new rows are not allowed."""
    return allowed if len(allowed) == size else np.pad(allowed, (0, size - len(allowed)))
