"""Vectors of item texts from their words alone, made in a second: tf-idf through a random projection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse

from features.data.dataset import FloatArray
from features.text.words import content_words

DIM = 256
"""Width of the projection."""


def words_of(texts: Iterable[str]) -> tuple[sparse.csr_matrix, list[str]]:
    """Return the occurrence of words in texts, [texts, words], and the words in the order of the columns."""
    columns: dict[str, int] = {}
    indices: list[int] = []
    sizes = [0]
    for text in texts:
        indices += [columns.setdefault(word, len(columns)) for word in content_words(text)]
        sizes.append(len(indices))
    ones = np.ones(len(indices), dtype=np.float32)
    shape = (len(sizes) - 1, len(columns))
    return sparse.csr_matrix((ones, np.array(indices, dtype=np.int32), np.array(sizes)), shape=shape), list(
        columns
    )


def word_vectors(texts: Sequence[str]) -> FloatArray:
    """Return tf-idf vectors in 256 random dimensions, [texts, 256]; zero for a text without words.

    A random projection keeps cosines to about 1 / sqrt(256) (Johnson and Lindenstrauss 1984). A word's
    direction is drawn from the word itself, so that other texts do not change it.
    """
    occurrence, columns = words_of(texts)
    if not columns:
        return np.zeros((len(texts), DIM), dtype=np.float32)
    found = np.asarray(occurrence.sum(axis=0)).ravel()
    idf = np.log(1 + len(texts) / np.maximum(found, 1)).astype(np.float32)
    directions = np.stack([_direction(word) for word in columns])  # [words, 256]
    projected: FloatArray = (occurrence @ sparse.diags(idf) @ directions).astype(np.float32)
    return projected


def _direction(word: str) -> FloatArray:
    """Return random signs seeded by the word, [256]."""
    seed = int.from_bytes(word.encode(), "little") % (1 << 63)
    bits = np.random.default_rng(seed).integers(0, 2, size=DIM, dtype=np.int8)
    return (2 * bits - 1).astype(np.float32)


def without(texts: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    """Return the texts without the matches of a pattern."""
    return [pattern.sub(" ", text) for text in texts]
