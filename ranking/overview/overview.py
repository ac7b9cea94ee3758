"""The overview of a catalogue that a bundle holds: a map of its items, and pairs that say nearly the same.

Equal texts have equal vectors: hundreds of items of a supermarket may share one. So texts are compared, each
once, and items follow their texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import save_file
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from features.data.arrays import load_arrays
from features.data.dataset import FloatArray, IntArray
from features.data.statistics import Neighbours
from ranking.assembly import pca_units, text_neighbours
from ranking.overview.layout import can_lay_out, fan_out, lay_out, nearest_by_vectors, project

OVERVIEW: Final = "overview.safetensors"
NEIGHBOURS: Final = 50
"""Nearest texts by which a text is placed."""
COMPARED: Final = 10
"""Nearest texts that are considered as near duplicates."""
LEAST: Final = 0.9
"""Least cosine of a stored pair."""
NEARLY_EQUAL: Final = 0.98
"""Cosine from which on two texts count as nearly the same.

Among the pairs of Online Retail and Amazon Beauty from here on are spellings, sizes, counts and numbers of
one product ("60cm", "120cm"); from 0.95 to 0.98 colours and variants follow, below 0.93 other products of one
kind.
"""


@dataclass(frozen=True)
class Overview:
    """Positions of the items, and pairs of items with nearly equal texts."""

    positions: FloatArray
    """Within the unit square, [items, 2]."""
    pairs: IntArray
    """Rows, the smaller first, [pairs, 2]. Of items with one text, each is paired with the first."""
    cosines: FloatArray
    """Of the texts of each pair, at least `LEAST`; 1 for equal ones, [pairs]."""
    is_layout: bool = True
    """False where the positions are only the principal components."""

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        vectors: FloatArray,
        near: Neighbours | None = None,
        seed: int = 0,
        threads: int = 1,
    ) -> Overview:
        """Return the overview of a catalogue; without openTSNE the map is of principal components.

        Args:
            texts: of the items.
            vectors: their unit vectors, [items, dim].
            near: the nearest other items of each by text, used where no two texts are equal; None searches.
            seed: of the layout.
            threads: CPU threads.

        """
        numbers: dict[str, int] = {}
        text_of = np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int32)
        rows = np.zeros(len(numbers), dtype=np.int32)
        rows[text_of[::-1]] = np.arange(len(texts), dtype=np.int32)[::-1]  # the first item of each text
        every = len(rows) == len(texts)
        distinct = vectors if every else vectors[rows]
        if not every or near is None:
            near = _search(distinct)
        able = can_lay_out()
        positions = lay_out(distinct, near.ids[:, :NEIGHBOURS], seed, threads) if able else project(distinct)
        a, b, cosines = _pairs(distinct, near.ids)
        others = np.flatnonzero(rows[text_of] != np.arange(len(texts)))
        pairs = np.concatenate(
            [np.stack([rows[text_of[others]], others], axis=1), np.stack([rows[a], rows[b]], axis=1)]
        ).astype(np.int32)
        cosines = np.concatenate([np.ones(len(others), dtype=np.float32), cosines])
        order = np.lexsort((pairs[:, 1], pairs[:, 0], -cosines))
        return cls(fan_out(positions, text_of), pairs[order], cosines[order], able)

    def groups(self, least: float = NEARLY_EQUAL) -> list[IntArray]:
        """Return groups of rows that are connected by pairs of at least this cosine, largest first.

        Two items of a group may be less alike than each is like a third.
        """
        kept = self.pairs[self.cosines >= least]
        items = len(self.positions)
        ones = np.ones(len(kept), dtype=np.bool_)
        graph = sparse.coo_matrix((ones, (kept[:, 0], kept[:, 1])), shape=(items, items))
        _, labels = connected_components(graph, directed=False)
        members = np.unique(kept)
        order = members[np.argsort(labels[members], kind="stable")]
        found = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
        return sorted(
            (group.astype(np.int32) for group in found), key=lambda group: (-len(group), int(group[0]))
        )

    def save(self, folder: Path) -> None:
        """Write the overview of a version into its folder."""
        arrays = {
            "positions": self.positions, "pairs": self.pairs, "cosines": self.cosines,
            "is_layout": np.array([self.is_layout]),
        }  # fmt: skip
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / OVERVIEW)

    @classmethod
    def load(cls, folder: Path, items: int) -> Overview | None:
        """Return what `save` wrote; None where there is none, or one of another number of items."""
        if not (folder / OVERVIEW).is_file():
            return None
        arrays = load_arrays(folder / OVERVIEW)
        found = cls(arrays["positions"], arrays["pairs"], arrays["cosines"], bool(arrays["is_layout"][0]))
        return found if found.positions.shape == (items, 2) else None


def _search(vectors: FloatArray) -> Neighbours:
    if len(vectors) < 2:
        return Neighbours(np.zeros((len(vectors), 0), np.int32), np.zeros((len(vectors), 0), np.float32))
    return text_neighbours(pca_units(vectors), min(NEIGHBOURS, len(vectors) - 1))


def _pairs(vectors: FloatArray, near: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Return pairs of texts of at least the stored cosine, the smaller first, each once."""
    count = min(COMPARED, near.shape[1], len(vectors) - 1)
    if count < 1:
        none = np.zeros(0, dtype=np.int32)
        return none, none, np.zeros(0, dtype=np.float32)
    ids, cosines = nearest_by_vectors(vectors, near, count)
    a = np.repeat(np.arange(len(vectors), dtype=np.int64), count)
    b, cosine = ids.ravel().astype(np.int64), cosines.ravel()
    close = cosine >= LEAST
    a, b, cosine = a[close], b[close], cosine[close]
    keys = np.minimum(a, b) * len(vectors) + np.maximum(a, b)
    keys, first = np.unique(keys, return_index=True)
    low, high = (keys // len(vectors)).astype(np.int32), (keys % len(vectors)).astype(np.int32)
    return low, high, np.minimum(cosine[first], 1.0).astype(np.float32)
