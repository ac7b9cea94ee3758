"""The words of a bundle's items: BM25 (Robertson and Walker, TREC-3 1994) by the library bm25s, and names.

Scores are precomputed by word, so that every item is scored: filters are exact, and lexical scores can be
added to those of embeddings item by item. The library makes and writes them; adding up those of a query's
words needs no library, so a server does not import it, nor SciPy, which it imports.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from conf.errors import InputError
from features.data.dataset import BoolArray, Catalogue, FloatArray, IntArray, LongArray
from features.text.item_text import TextTemplate
from ranking.words.item_words import ItemReader, ItemWords

WORDS: Final = "words"
"""Folder in a bundle."""
NAMES: Final = "names.safetensors"
_VOCABULARY: Final = "vocab.index.json"
_ARRAYS: Final = {name: f"{name}.csc.index.npy" for name in ("data", "indices", "indptr")}
"""Files of bm25s: the scores of words and items as a sparse matrix by columns, which are words."""
K1: Final = 0.6
"""Saturation of a word's frequency; titles and texts of items are short."""
B: Final = 0.3
"""Normalisation by text length."""
MAX_COMPLETIONS: Final = 20
"""Completions of a prefix, the most frequent ones."""


@dataclass(frozen=True)
class Names:
    """An index of rows by name."""

    keys: LongArray  # [names] ascending
    offsets: LongArray  # [names + 1] start of each name's rows
    rows: IntArray  # [pairs of name and item]
    levels: npt.NDArray[np.int8]  # [pairs]

    @classmethod
    def of_items(cls, items: Sequence[ItemWords]) -> Names:
        """Index the names of items."""
        keys = np.array([key for item in items for key in item.names], dtype=np.int64)
        levels = np.array([level for item in items for level in item.names.values()], dtype=np.int8)
        rows = np.repeat(np.arange(len(items), dtype=np.int32), [len(item.names) for item in items])
        order = np.argsort(keys, kind="stable")
        unique, starts = np.unique(keys[order], return_index=True)
        return cls(unique, np.append(starts, len(keys)).astype(np.int64), rows[order], levels[order])

    def of(self, key: int) -> tuple[IntArray, npt.NDArray[np.int8]]:
        """Return the rows of a name, and its level in each."""
        position = int(np.searchsorted(self.keys, key))
        if position == len(self.keys) or self.keys[position] != key:
            return self.rows[:0], self.levels[:0]
        part = slice(int(self.offsets[position]), int(self.offsets[position + 1]))
        return self.rows[part], self.levels[part]


@dataclass(frozen=True)
class WordIndex:
    """Words and names of a catalogue."""

    vocabulary: dict[str, int]
    """Number of each word."""
    data: FloatArray  # [words of items] BM25 scores, word by word
    indices: IntArray  # [words of items] row of each score's item
    indptr: LongArray  # [words + 1] start of each word's scores
    names: Names
    silent: BoolArray  # [items] items whose texts have no words
    average: float
    """Words of an item."""
    built: Any = None
    """The bm25s.BM25 that made it, which writes its files; None of a loaded index."""

    @classmethod
    def build(cls, catalogue: Catalogue, template: TextTemplate) -> WordIndex:
        """Index every item of a catalogue whose texts were made by a template."""
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index that it builds
        import bm25s

        items = ItemReader(template, catalogue.attributes).catalogue(catalogue)
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(word, len(vocabulary)) for word in item.words] for item in items]
        vocabulary.setdefault("", len(vocabulary))  # an index needs a word
        lengths = np.array([len(item.words) for item in items], dtype=np.int64)
        bm25 = bm25s.BM25(k1=K1, b=B, method="lucene", csc_backend="auto")
        with np.errstate(invalid="ignore"):  # without any word, the mean length is 0
            bm25.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        average = float(lengths.mean()) if len(lengths) else 0.0
        scores, names = bm25.scores, Names.of_items(items)
        data, indices, indptr = (scores[name] for name in _ARRAYS)
        return cls(vocabulary, data, indices, indptr, names, lengths == 0, average, bm25)

    def save(self, folder: Path) -> None:
        """Write an index that was built here into a folder: NumPy arrays, JSON and one safetensors file."""
        self.built.save(folder, show_progress=False)
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
            InputError: when a file is damaged.

        """
        try:
            vocabulary: dict[str, int] = json.loads((folder / _VOCABULARY).read_text())
            data, indices, indptr = (np.load(folder / file) for file in _ARRAYS.values())
            arrays = load_file(folder / NAMES)
            names = Names(arrays["keys"], arrays["offsets"], arrays["rows"], arrays["levels"])
            silent, average = arrays["silent"], float(arrays["average"][0])
            return cls(vocabulary, data, indices, indptr, names, silent, average)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{folder}: not an index of words; roll back or publish again") from error

    def __len__(self) -> int:
        return len(self.silent)

    @cached_property
    def weights(self) -> FloatArray:
        """Inverse document frequency of each word, [words + 1]; the last is that of an unknown word."""
        frequencies = np.append(np.diff(self.indptr), 0)
        odds = (len(self) - frequencies + 0.5) / (frequencies + 0.5)
        weights: FloatArray = np.log1p(odds).astype(np.float32)
        return weights

    def weight(self, word: str) -> float:
        """Return the inverse document frequency of a word."""
        return float(self.weights[self.vocabulary.get(word, -1)])

    def scores(self, words: list[str]) -> FloatArray:
        """Return the BM25 scores of all items for known words, [items]."""
        found: FloatArray = np.zeros(len(self), dtype=np.float32)
        for word in words:
            number = self.vocabulary[word]
            part = slice(int(self.indptr[number]), int(self.indptr[number + 1]))
            found[self.indices[part]] += self.data[part]  # a word has an item once
        return found

    def later_score(self, word: str, count: int, length: int) -> float:
        """Return the BM25 score of a word of an item that is not in the index.

        Args:
            word: the word.
            count: its frequency in the item.
            length: number of words of the item.

        """
        usual = 1.0 - B + B * length / self.average if self.average else 1.0
        return self.weight(word) * count / (count + K1 * usual)

    def completions(self, start: str) -> list[str]:
        """Return the most frequent words with a prefix."""
        first = bisect_left(self._sorted, start)
        last = bisect_left(self._sorted, start + "\U0010ffff")
        found = self._sorted[first:last]
        found.sort(key=lambda word: (self.weight(word), word))
        return found[:MAX_COMPLETIONS]

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.vocabulary)
