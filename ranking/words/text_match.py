"""Hybrid relevance of items to a text query: lexical and by embedding.

Embeddings confuse names, codes and rare words; words miss synonyms. So relevance is the cosine of text and
query plus the share of the query's words that the item has, plus a bonus for items whose title or id equals
the query, which puts them first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.unavailable import SearchUnavailableError, missed
from ranking.words.live_words import LiveWords, WordMatches

WORDS_WEIGHT: Final = 1.0
"""Weight of having all words, in units of cosine."""
_NAME_BONUS: Final = np.array([0.0, 0.5, 2.0, 2.5, 6.0], dtype=np.float32)
"""Bonus of an exact name by its level, so that field values rank before words, titles and ids first."""
POOL: Final = 200
"""Candidates retrieved by embedding, and as many by words; more for longer lists."""
MATCH_SHARE: Final = 0.25
"""Smallest share of the words' weight for a match."""
_SAMPLE: Final = 1024
"""Items sampled to estimate the similarity of unrelated texts."""
_CHANCE_QUANTILE: Final = 0.99
"""Quantile of the similarity of unrelated texts that a match must exceed."""
_FILTERED_SEARCH_MIN: Final = 1000
"""Number of items without words from which on they are filtered inside the search and not after it."""


@dataclass(frozen=True)
class ChanceSimilarity:
    """Similarity of unrelated texts of a catalogue, the threshold of a match."""

    sample: FloatArray  # [sampled items, text dim] unit text vectors
    floor: float
    """The 99th percentile of the cosine of two items."""

    @classmethod
    def of(cls, text_vectors: FloatArray) -> ChanceSimilarity:
        """Estimate it from a seeded sample of unit text vectors [items, text dim]."""
        rng = np.random.default_rng(0)
        rows = np.sort(rng.permutation(len(text_vectors))[:_SAMPLE])
        sample: FloatArray = text_vectors[rows]
        pairs = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
        return cls(sample, float(np.quantile(pairs, _CHANCE_QUANTILE)) if len(pairs) else 1.0)

    def threshold(self, vector: FloatArray) -> float:
        """Return the smallest cosine of a match with a query [text dim]."""
        cosines = self.sample @ vector
        return max(self.floor, float(np.quantile(cosines, _CHANCE_QUANTILE))) if len(cosines) else self.floor


@dataclass(frozen=True)
class TextQuery:
    """A text query."""

    vector: FloatArray  # [text dim] unit vector of the words
    matches: WordMatches | None
    """Lexical matches; None without words or without a lexical index."""


@dataclass(frozen=True)
class TextMatch:
    """Matches text queries with the items of one snapshot of a catalogue."""

    vectors: FloatArray  # [items, text dim] unit text vectors
    index: VectorSearcher
    """Over the vectors."""
    words: LiveWords | None
    popularity: FloatArray
    """[items] breaks ties."""
    hidden: BoolArray | None = None
    """[items] rows that must never appear; the index leaves them out, too."""
    cached_chance: ChanceSimilarity | None = None
    """`chance_similarity`, if it has been computed before."""

    @cached_property
    def chance_similarity(self) -> ChanceSimilarity:
        """Similarity of unrelated texts."""
        return self.cached_chance or ChanceSimilarity.of(self.vectors)

    def query(self, vector: FloatArray, text: str) -> TextQuery:
        """Return a query of a text and its unit vector [text dim]."""
        return TextQuery(vector, self.words.find(text) if self.words is not None and text else None)

    def fit(self, query: TextQuery, rows: IntArray) -> FloatArray:
        """Return the relevance of items, [rows]: cosine, share of the words, and bonus of an exact name.

        Items without words have a cosine of -1, but may match by name.
        """
        cosines = self.vectors[rows] @ query.vector
        if self.words is not None and len(self.words.silent):
            cosines = np.where(np.isin(rows, self.words.silent), -1.0, cosines)
        if query.matches is not None:
            found = query.matches
            cosines = cosines + WORDS_WEIGHT * _values(found.rows, found.shares, rows)
            cosines = cosines + _values(found.named, _NAME_BONUS[found.levels], rows)
        # Rounded: BLAS rounds differently by batch size, which must not order equal items.
        fit: FloatArray = np.round(cosines, 4).astype(np.float32)
        return fit

    def matches(self, query: TextQuery, rows: IntArray) -> BoolArray:
        """Return which items match, [rows]: by name, words, or significant similarity."""
        cosines = self.vectors[rows] @ query.vector
        alike: BoolArray = cosines >= self.chance_similarity.threshold(query.vector)
        if self.words is not None and len(self.words.silent):
            alike &= ~np.isin(rows, self.words.silent)
        if query.matches is not None:
            alike |= _values(query.matches.rows, query.matches.shares, rows) >= MATCH_SHARE
            alike |= np.isin(rows, query.matches.named)
        return alike

    def best(
        self, query: TextQuery, k: int, exclude: IntArray, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the k most relevant items and their relevance, [at most k] each.

        Args:
            query: the text query.
            k: most items.
            exclude: rows that must not appear.
            allowed: [items] mask of allowed rows; None allows all.

        """
        depth = min(max(POOL, 2 * k), len(self.vectors))
        rows, matches = self._nearest(query, depth, exclude, allowed), query.matches
        if matches is not None:
            for found, score in ((matches.named, matches.levels), (matches.rows, matches.shares)):
                rows = np.union1d(rows, self._highest(found, score, depth, exclude, allowed))
        rows = rows.astype(np.int32)
        fit = self.fit(query, rows)
        order = np.lexsort((rows, -self.popularity[rows], -fit))[:k]
        return rows[order], fit[order]

    def _nearest(
        self, query: TextQuery, depth: int, exclude: IntArray, allowed: BoolArray | None
    ) -> IntArray:
        """Return the rows whose texts are nearest, without those without words.

        None where the search is not answered: what the words match is found nevertheless.
        """
        silent = self.words.silent if self.words is not None else exclude[:0]
        if len(silent) > _FILTERED_SEARCH_MIN:
            shown = np.ones(len(self.vectors), dtype=np.bool_)
            shown[silent] = False
            allowed = shown if allowed is None else shown & allowed
        elif len(silent):
            exclude = np.union1d(exclude, silent).astype(np.int32)
        try:
            found, _ = self.index.search(query.vector[None, :], depth + len(exclude), allowed)
        except SearchUnavailableError as error:
            missed("intent", error)
            return exclude[:0]
        rows: IntArray = found[0][found[0] >= 0]
        nearest: IntArray = rows[~np.isin(rows, exclude)][:depth]
        return nearest

    def _highest(
        self,
        rows: IntArray,
        score: FloatArray | IntArray,
        depth: int,
        exclude: IntArray,
        allowed: BoolArray | None,
    ) -> IntArray:
        """Return the allowed rows of the highest scores, ties by popularity, [at most depth]."""
        permitted = self._permitted(rows, exclude, allowed)
        rows, score = rows[permitted], score[permitted]
        if len(rows) <= depth:
            return rows
        least = np.partition(score, len(rows) - depth)[len(rows) - depth]
        rows, score = rows[score >= least], score[score >= least]
        best: IntArray = rows[np.lexsort((rows, -self.popularity[rows], -score))[:depth]]
        return best

    def _permitted(self, rows: IntArray, exclude: IntArray, allowed: BoolArray | None) -> BoolArray:
        permitted: BoolArray = ~np.isin(rows, exclude)
        if allowed is not None:
            permitted &= allowed[rows]
        if self.hidden is not None:
            permitted &= ~self.hidden[rows]
        return permitted


def _values(keys: IntArray, values: FloatArray | IntArray, rows: IntArray) -> FloatArray:
    """Return the values of rows from sorted keys, [rows]; 0 where there is no key."""
    if len(keys) == 0:
        return np.zeros(len(rows), dtype=np.float32)
    positions = np.minimum(np.searchsorted(keys, rows), len(keys) - 1)
    found: FloatArray = np.where(keys[positions] == rows, values[positions], 0).astype(np.float32)
    return found
