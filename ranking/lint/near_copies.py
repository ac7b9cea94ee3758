"""Groups of nearly equal sets: histories of users, words of texts."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import sparse

from features.data.dataset import LongArray

_BANDS: Final = 12
_ROWS: Final = 4
"""Hash values per band: sets of Jaccard .9 share one of 12 bands of 4 in .99999 of cases, of .5 in .54."""
_PRIME: Final = (1 << 31) - 1
_SEED: Final = 7
_BLOCK: Final = 1 << 18
"""Candidate pairs that are compared at a time."""


def _signatures(sets: sparse.csr_matrix) -> LongArray:
    """Return MinHash signatures of sets that are not empty (Broder 1997), [sets, bands * rows]."""
    rng = np.random.default_rng(_SEED)
    hashes = _BANDS * _ROWS
    a = rng.integers(1, _PRIME, size=hashes)
    b = rng.integers(0, _PRIME, size=hashes)
    signed = np.empty((sets.shape[0], hashes), dtype=np.int64)
    elements = sets.indices.astype(np.int64)
    for i in range(hashes):
        signed[:, i] = np.minimum.reduceat((elements * a[i] + b[i]) % _PRIME, sets.indptr[:-1])
    return signed


def near_copies(sets: sparse.csr_matrix, least: int, jaccard: float) -> LongArray:
    """Return the row of an earlier set that each set nearly equals, or -1, [sets].

    Of the sets that share a band of MinHash values, each is compared exactly with the first and with the one
    before it. So the cost grows with the number of elements, not with that of pairs.

    Args:
        sets: membership, [sets, elements]; entries count as 1.
        least: smallest number of elements of a set that is compared.
        jaccard: smallest share of common elements among those of either.
    """
    original = np.full(sets.shape[0], -1, dtype=np.int64)
    binary = sparse.csr_matrix(sets)
    binary.sum_duplicates()
    sizes = np.diff(binary.indptr)
    large = np.flatnonzero(sizes >= max(least, 1))
    if len(large) < 2:
        return original
    binary = binary[large]
    binary.data = np.ones_like(binary.data)
    sizes = np.diff(binary.indptr)
    signed = _signatures(binary)
    pairs = []
    for band in range(0, _BANDS * _ROWS, _ROWS):
        key = np.zeros(len(signed), dtype=np.int64)
        for column in range(band, band + _ROWS):
            key = key * 1_000_003 + signed[:, column]  # overflow wraps: equal values have equal keys
        order = np.argsort(key, kind="stable")
        starts = np.ones(len(order), dtype=np.bool_)
        starts[1:] = key[order[1:]] != key[order[:-1]]
        first = order[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
        inside = ~starts
        later = order[inside]
        pairs += [np.stack([first[inside], later]), np.stack([order[np.flatnonzero(inside) - 1], later])]
    candidates = np.unique(np.concatenate(pairs, axis=1), axis=1)  # [2, pairs]
    for start in range(0, candidates.shape[1], _BLOCK):
        earlier, later = candidates[:, start : start + _BLOCK]
        common = np.asarray(binary[earlier].multiply(binary[later]).sum(axis=1)).ravel()
        near = common >= jaccard * (sizes[earlier] + sizes[later] - common)
        # The earliest original wins; candidates are sorted by it, so the last written is the first listed.
        original[large[later[near]][::-1]] = large[earlier[near]][::-1]
    return original
