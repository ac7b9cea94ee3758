"""Lexical index of a changing catalogue: the bundle's index and an overlay of later items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from features.text.words import content_words
from ranking.words.item_words import ItemWords, id_key, title_key, written_key
from ranking.words.word_index import MAX_COMPLETIONS, WordIndex

_MIN_PREFIX: Final = 3
"""Shortest last word that is completed as a prefix."""


@dataclass(frozen=True)
class WordMatches:
    """The items that match the words of a query."""

    rows: IntArray  # [found], ascending
    shares: FloatArray
    """[found] BM25 score over its maximum for the query, 0 to 1."""
    named: IntArray  # [named] rows whose name equals the query, ascending
    levels: IntArray  # [named] the highest level of that name


class LiveWords:
    """Words and names of all items; written by one thread, while no other reads."""

    def __init__(self, base: WordIndex) -> None:
        """Start with a bundle's items, unchanged."""
        self._base = base
        self._stale: BoolArray = np.zeros(len(base), dtype=np.bool_)
        """[base rows] rows whose words in the bundle are outdated."""
        self._later: dict[int, ItemWords] = {}
        self._by_word: dict[str, dict[int, float]] = {}
        """Scores of later items by word."""
        self._by_name: dict[int, dict[int, int]] = {}
        """Levels of later items by the key of the name."""
        self._arrays: dict[str, tuple[IntArray, FloatArray]] = {}
        """Cache: rows and scores of later items by word, as arrays."""
        self._silent: set[int] = set(np.flatnonzero(base.silent).tolist())
        self.silent: IntArray = _sorted(self._silent)
        """Rows whose texts have no words."""

    def put(self, items: Iterable[tuple[int, ItemWords]]) -> None:
        """Upsert items by row."""
        for row, item in items:
            self._remove(row)
            self._later[row] = item
            for word, count in Counter(item.words).items():
                score = self._base.later_score(word, count, len(item.words))
                self._by_word.setdefault(word, {})[row] = score
                self._arrays.pop(word, None)
            for key, level in item.names.items():
                self._by_name.setdefault(key, {})[row] = level
            if not item.words:
                self._silent.add(row)
        self.silent = _sorted(self._silent)

    def _remove(self, row: int) -> None:
        if row < len(self._base):
            self._stale[row] = True
        self._silent.discard(row)
        former = self._later.pop(row, None)
        if former is None:
            return
        for word in set(former.words):
            self._arrays.pop(word, None)
            self._by_word[word].pop(row)
            if not self._by_word[word]:
                del self._by_word[word]
        for key in former.names:
            self._by_name[key].pop(row, None)
            if not self._by_name[key]:
                del self._by_name[key]

    def find(self, text: str) -> WordMatches:
        """Return the items that match words of a text; an unknown last word is completed as a prefix."""
        tokens = content_words(text)
        complete = tokens and (self._knows(tokens[-1]) or len(tokens[-1]) < _MIN_PREFIX)
        completions = [] if complete or not tokens else self._completions(tokens[-1])
        most = sum(self._base.weight(word) for word in tokens)
        terms = [*(tokens[:-1] if completions else tokens), *completions]
        rows, scores = self._scored([word for word in terms if self._knows(word)])
        shares = np.minimum(scores / max(most, 1e-9), 1.0).astype(np.float32)
        named, levels = self._named(text)
        return WordMatches(rows, shares, named, levels)

    def _knows(self, word: str) -> bool:
        return word in self._by_word or word in self._base.vocabulary

    def _completions(self, prefix: str) -> list[str]:
        later = [word for word in self._by_word if word.startswith(prefix)]
        return list(dict.fromkeys([*self._base.completions(prefix), *later]))[: 2 * MAX_COMPLETIONS]

    def _scored(self, words: list[str]) -> tuple[IntArray, FloatArray]:
        """Return the rows that have some of the words, ascending, and their scores."""
        known = [word for word in words if word in self._base.vocabulary]
        parts = [self._later_scores(word) for word in words if word in self._by_word]
        if known:
            every = self._base.scores(known)
            rows = np.flatnonzero(every > 0).astype(np.int32)
            rows = rows[~self._stale[rows]]
            if not parts:
                return rows, every[rows]
            parts.append((rows, every[rows]))
        if not parts:
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        rows, positions = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
        sums = np.bincount(positions, weights=np.concatenate([scores for _, scores in parts]))
        return rows, sums.astype(np.float32)

    def _later_scores(self, word: str) -> tuple[IntArray, FloatArray]:
        """Return the later items that have a word, and their scores."""
        found = self._arrays.get(word)
        if found is None:
            table = self._by_word[word]
            rows = np.fromiter(table, dtype=np.int32, count=len(table))
            found = rows, np.fromiter(table.values(), dtype=np.float32, count=len(table))
            self._arrays[word] = found
        return found

    def _named(self, text: str) -> tuple[IntArray, IntArray]:
        """Return the rows that have a text as a name, ascending, and the names' levels."""
        rows, levels = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
        folded_key = title_key(text)
        for key in (id_key(text), written_key(text), *(() if folded_key is None else (folded_key,))):
            found, of_found = self._base.names.of(key)
            current = ~self._stale[found]
            later = self._by_name.get(key, {})
            rows += [found[current], np.fromiter(later, dtype=np.int32, count=len(later))]
            levels += [
                of_found[current].astype(np.int32),
                np.fromiter(later.values(), dtype=np.int32, count=len(later)),
            ]
        every, level = np.concatenate(rows), np.concatenate(levels)
        order = np.lexsort((level, every))
        every, level = every[order], level[order]
        highest = np.ones(len(every), dtype=np.bool_)  # the last of each row
        highest[:-1] = every[1:] != every[:-1]
        return every[highest], level[highest]


def _sorted(rows: set[int]) -> IntArray:
    return np.array(sorted(rows), dtype=np.int32)
