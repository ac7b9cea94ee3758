"""The words of a bundle's items: BM25 (Robertson and Walker, TREC-3 1994) by the library bm25s, and names.

Scores are worked out when the index is built and lie in arrays by word, so that every item has one at once:
filters are obeyed exactly, and words can be weighed against meaning item by item.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import bm25s
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from conf.errors import InputError
from features.data.dataset import BoolArray, Catalogue, FloatArray, IntArray, LongArray
from features.text.item_text import TextTemplate
from ranking.words.item_words import ItemReader, ItemWords

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of every index that it builds
WORDS: Final = "words"
"""Folder in a bundle."""
NAMES: Final = "names.safetensors"
K1: Final = 0.6
"""How soon further mentions of a word count for nothing; titles and texts of items are short."""
B: Final = 0.3
"""How much a word counts for less in a longer text."""
LIKELIEST: Final = 20
"""Words that the beginning of a word may stand for, the most frequent ones."""


@dataclass(frozen=True)
class Names:
    """Which rows answer to which names."""

    keys: LongArray  # [names] rising
    offsets: LongArray  # [names + 1] where the rows of each begin
    rows: IntArray  # [pairs of name and item]
    levels: npt.NDArray[np.int8]  # [pairs]

    @classmethod
    def of_items(cls, items: Sequence[ItemWords]) -> Names:
        """Put the names of items together."""
        keys = np.array([key for item in items for key in item.names], dtype=np.int64)
        levels = np.array([level for item in items for level in item.names.values()], dtype=np.int8)
        rows = np.repeat(np.arange(len(items), dtype=np.int32), [len(item.names) for item in items])
        order = np.argsort(keys, kind="stable")
        unique, starts = np.unique(keys[order], return_index=True)
        return cls(unique, np.append(starts, len(keys)).astype(np.int64), rows[order], levels[order])

    def of(self, key: int) -> tuple[IntArray, npt.NDArray[np.int8]]:
        """Return the rows that have a name, and its levels."""
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key:
            return self.rows[:0], self.levels[:0]
        part = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        return self.rows[part], self.levels[part]


@dataclass(frozen=True)
class WordIndex:
    """Words and names of a catalogue."""

    bm25: Any  # bm25s.BM25, which has no stubs
    names: Names
    silent: BoolArray  # [items] whose texts have no word of their own
    average: float
    """Words of an item."""

    @classmethod
    def build(cls, catalogue: Catalogue, template: TextTemplate) -> WordIndex:
        """Index every item of a catalogue whose texts were made by a template."""
        items = ItemReader(template, catalogue.attributes).catalogue(catalogue)
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(word, len(vocabulary)) for word in item.words] for item in items]
        vocabulary.setdefault("", len(vocabulary))  # an index needs a word
        lengths = np.array([len(item.words) for item in items], dtype=np.int64)
        bm25 = bm25s.BM25(k1=K1, b=B, method="lucene", csc_backend="scipy")
        with np.errstate(invalid="ignore"):  # where there is no word at all, their mean length is 0
            bm25.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        average = float(lengths.mean()) if len(lengths) else 0.0
        return cls(bm25, Names.of_items(items), lengths == 0, average)

    def save(self, folder: Path) -> None:
        """Write the index into a folder of its own: NumPy arrays, JSON and one safetensors file."""
        self.bm25.save(folder, show_progress=False)
        arrays: dict[str, npt.NDArray[Any]] = {
            "keys": self.names.keys,
            "offsets": self.names.offsets,
            "rows": self.names.rows,
            "levels": self.names.levels,
            "silent": self.silent,
            "average": np.array([self.average], dtype=np.float64),
        }
        save_file(arrays, folder / NAMES)

    @classmethod
    def load(cls, folder: Path) -> WordIndex:
        """Read an index written by `save`.

        Raises:
            InputError: when a file is not what it should be.

        """
        try:
            bm25 = bm25s.BM25.load(folder, show_progress=False)
            arrays = load_file(folder / NAMES)
            names = Names(arrays["keys"], arrays["offsets"], arrays["rows"], arrays["levels"])
            return cls(bm25, names, arrays["silent"], float(arrays["average"][0]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{folder}: not an index of words; roll back or publish again") from error

    def __len__(self) -> int:
        return len(self.silent)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Number of each word."""
        numbers: dict[str, int] = self.bm25.vocab_dict
        return numbers

    @cached_property
    def weights(self) -> FloatArray:
        """How much each word tells (inverse document frequency), and at the end one that no item has."""
        frequencies = np.append(np.diff(self.bm25.scores["indptr"]), 0)
        odds = (len(self) - frequencies + 0.5) / (frequencies + 0.5)
        weights: FloatArray = np.log1p(odds).astype(np.float32)
        return weights

    def weight(self, word: str) -> float:
        """Return how much a word tells, in the units of the scores."""
        return float(self.weights[self.vocabulary.get(word, -1)])

    def scores(self, words: list[str]) -> FloatArray:
        """Return the BM25 scores of all items for words that the index has, [items]."""
        numbers = [self.vocabulary[word] for word in words]
        found: FloatArray = self.bm25.get_scores_from_ids(numbers)
        return found

    def later_score(self, word: str, count: int, length: int) -> float:
        """Return the score of a word of an item that came after the index, as the index would have it.

        Args:
            word: one of its words.
            count: how often it has it.
            length: how many words it has.

        """
        usual = 1.0 - B + B * length / self.average if self.average else 1.0
        return self.weight(word) * count / (count + K1 * usual)

    def beginning_with(self, start: str) -> list[str]:
        """Return the most frequent words that begin so."""
        first = bisect_left(self._sorted, start)
        last = bisect_left(self._sorted, start + "\U0010ffff")
        found = self._sorted[first:last]
        found.sort(key=lambda word: (self.weight(word), word))
        return found[:LIKELIEST]

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.vocabulary)
