"""How well items fit a text query: words and meaning together.

Meaning alone mistakes names, codes and rare words; words alone know no other wording. So what an item is
worth is the cosine of text and query plus the share of the query's words that it has, and before everything
else stand the items whose title or id the query is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.retrieval.searcher import VectorSearcher
from ranking.words.live_words import LiveWords, WordMatches

WORDS_WEIGHT: Final = 1.0
"""Worth of having all words, in units of cosine."""
_BONUS: Final = np.array([0.0, 0.5, 2.0, 2.5, 6.0], dtype=np.float32)
"""Worth of a name by its level: a field's value stands before what only has the words, title and id first."""
POOL: Final = 200
"""Items that meaning, and as many that words propose for a list; more for longer ones."""
SHARE: Final = 0.25
"""Share of what the words tell from which on an item is said to match them."""
_SAMPLE: Final = 1024
"""Items that tell how alike texts of the catalogue are by chance."""
_RARE: Final = 0.99
"""Share of pairs of items, and of items beside the query, that are less alike than what is said to match."""
_MANY: Final = 1000
"""Items without words from which on they are left out inside the search and not after it."""


@dataclass(frozen=True)
class Usual:
    """How alike texts of a catalogue are by chance; what goes beyond is no coincidence."""

    sample: FloatArray  # [sampled items, text dim] unit text vectors
    floor: float
    """Cosine that all but a hundredth of the pairs of items stay below."""

    @classmethod
    def of(cls, text_vectors: FloatArray) -> Usual:
        """Draw a sample of unit text vectors [items, text dim], the same each time."""
        rng = np.random.default_rng(0)
        rows = np.sort(rng.permutation(len(text_vectors))[:_SAMPLE])
        sample: FloatArray = text_vectors[rows]
        pairs = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
        return cls(sample, float(np.quantile(pairs, _RARE)) if len(pairs) else 1.0)

    def threshold(self, vector: FloatArray) -> float:
        """Return the cosine from which on a text is like a query [text dim] by more than chance."""
        cosines = self.sample @ vector
        return max(self.floor, float(np.quantile(cosines, _RARE))) if len(cosines) else self.floor


@dataclass(frozen=True)
class TextQuery:
    """A text that is searched with."""

    vector: FloatArray  # [text dim] unit vector of the words
    matches: WordMatches | None
    """Which items have its words; None without words, or without an index of them."""


@dataclass(frozen=True)
class TextMatch:
    """Compares text queries with the items of one state of a catalogue."""

    vectors: FloatArray  # [items, text dim] unit text vectors
    index: VectorSearcher
    """Over the vectors."""
    words: LiveWords | None
    popularity: FloatArray
    """[items] what of many equally good ones is proposed first."""
    hidden: BoolArray | None = None
    """[items] rows that must never appear; the index leaves them out itself."""
    known_usual: Usual | None = None
    """`usual`, where it has been worked out before."""

    @cached_property
    def usual(self) -> Usual:
        """How alike the texts are by chance."""
        return self.known_usual or Usual.of(self.vectors)

    def query(self, vector: FloatArray, text: str) -> TextQuery:
        """Return a query: its unit vector [text dim], and the items that have words of a text, if any."""
        return TextQuery(vector, self.words.find(text) if self.words is not None and text else None)

    def fit(self, query: TextQuery, rows: IntArray) -> FloatArray:
        """Return how well items fit, [rows]: cosine, share of the words, and what an exact name is worth.

        Items whose texts say nothing fit nothing by meaning, but may be named.
        """
        cosines = self.vectors[rows] @ query.vector
        if self.words is not None and len(self.words.silent):
            cosines = np.where(np.isin(rows, self.words.silent), -1.0, cosines)
        if query.matches is not None:
            found = query.matches
            cosines = cosines + WORDS_WEIGHT * _values(found.rows, found.shares, rows)
            cosines = cosines + _values(found.named, _BONUS[found.levels], rows)
        # Rounded: what BLAS rounds by batch size must not order equal items.
        fit: FloatArray = np.round(cosines, 4).astype(np.float32)
        return fit

    def matches(self, query: TextQuery, rows: IntArray) -> BoolArray:
        """Tell which items may be said to match, [rows]: by name, words, or unusual similarity."""
        cosines = self.vectors[rows] @ query.vector
        alike: BoolArray = cosines >= self.usual.threshold(query.vector)
        if self.words is not None and len(self.words.silent):
            alike &= ~np.isin(rows, self.words.silent)
        if query.matches is not None:
            alike |= _values(query.matches.rows, query.matches.shares, rows) >= SHARE
            alike |= np.isin(rows, query.matches.named)
        return alike

    def best(
        self, query: TextQuery, k: int, exclude: IntArray, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the k items that fit best, and how well; fewer where there are no more.

        Args:
            query: the text.
            k: how many.
            exclude: rows that must not appear.
            allowed: [items] mask of rows that may; None allows all.

        """
        depth = min(max(POOL, 2 * k), len(self.vectors))
        rows, matches = self._alike(query, depth, exclude, allowed), query.matches
        if matches is not None:
            for found, worth in ((matches.named, matches.levels), (matches.rows, matches.shares)):
                rows = np.union1d(rows, self._most(found, worth, depth, exclude, allowed))
        rows = rows.astype(np.int32)
        fit = self.fit(query, rows)
        order = np.lexsort((rows, -self.popularity[rows], -fit))[:k]
        return rows[order], fit[order]

    def _alike(self, query: TextQuery, depth: int, exclude: IntArray, allowed: BoolArray | None) -> IntArray:
        """Return the rows whose texts are nearest, without those that say nothing."""
        silent = self.words.silent if self.words is not None else exclude[:0]
        if len(silent) > _MANY:
            shown = np.ones(len(self.vectors), dtype=np.bool_)
            shown[silent] = False
            allowed = shown if allowed is None else shown & allowed
        elif len(silent):
            exclude = np.union1d(exclude, silent).astype(np.int32)
        found, _ = self.index.search(query.vector[None, :], depth + len(exclude), allowed)
        rows: IntArray = found[0][found[0] >= 0]
        nearest: IntArray = rows[~np.isin(rows, exclude)][:depth]
        return nearest

    def _most(
        self,
        rows: IntArray,
        worth: FloatArray | IntArray,
        depth: int,
        exclude: IntArray,
        allowed: BoolArray | None,
    ) -> IntArray:
        """Return the rows that are worth most; of many that are worth as much, the popular ones."""
        may = self._may(rows, exclude, allowed)
        rows, worth = rows[may], worth[may]
        if len(rows) <= depth:
            return rows
        least = np.partition(worth, len(rows) - depth)[len(rows) - depth]
        rows, worth = rows[worth >= least], worth[worth >= least]
        best: IntArray = rows[np.lexsort((rows, -self.popularity[rows], -worth))[:depth]]
        return best

    def _may(self, rows: IntArray, exclude: IntArray, allowed: BoolArray | None) -> BoolArray:
        may: BoolArray = ~np.isin(rows, exclude)
        if allowed is not None:
            may &= allowed[rows]
        if self.hidden is not None:
            may &= ~self.hidden[rows]
        return may


def _values(keys: IntArray, values: FloatArray | IntArray, rows: IntArray) -> FloatArray:
    """Return the values that rows have by their rising keys, [rows]; 0 for the others."""
    if len(keys) == 0:
        return np.zeros(len(rows), dtype=np.float32)
    places = np.minimum(np.searchsorted(keys, rows), len(keys) - 1)
    found: FloatArray = np.where(keys[places] == rows, values[places], 0).astype(np.float32)
    return found
