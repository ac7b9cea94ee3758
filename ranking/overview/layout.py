"""Positions in two dimensions: items whose texts are alike lie near each other.

t-SNE (van der Maaten and Hinton 2008) of the fine-tuned text vectors, computed by openTSNE with interpolated
forces (Linderman et al. 2019), started from the two principal components, which makes it reproducible and its
coarse layout meaningful (Kobak and Berens 2019). The figures behind the settings are in
benchmarks/experiments.md.
"""

from __future__ import annotations

import importlib.util
from typing import Final

import numpy as np

from features.data.dataset import FloatArray, IntArray
from ranking.assembly import PcaProjection

PAIRS: Final = 20_000_000
"""Most pairs of neighbours; a larger catalogue takes fewer per item, which bounds memory to about 2 GB."""
SMALLEST: Final = 10
"""Texts from which on the layout is computed; fewer are shown by their principal components."""
INTERPOLATED: Final = 2000
"""Texts from which on repulsion is interpolated on a grid; below, a tree (Barnes-Hut) is faster."""
EARLY: Final = 100
"""Iterations in which attraction is exaggerated, so that clusters form."""
LATE: Final = 250
_BLOCK: Final = 512
"""Texts whose neighbours are compared at a time: 40 MB of vectors."""
_GOLDEN_ANGLE: Final = np.pi * (3 - np.sqrt(5))


def can_lay_out() -> bool:
    """Return whether the library that computes a layout is installed."""
    return importlib.util.find_spec("openTSNE") is not None


def lay_out(vectors: FloatArray, near: IntArray, seed: int = 0, threads: int = 1) -> FloatArray:
    """Return a position for each text; the same for the same input, whatever the number of threads.

    Args:
        vectors: unit vectors of distinct texts, [texts, dim].
        near: the nearest other texts of each, [texts, any], padded with -1.
        seed: of the layout.
        threads: CPU threads.

    Returns:
        Positions within the unit square, [texts, 2].

    """
    texts = len(vectors)
    start = project(vectors)
    count = min(near.shape[1], texts - 1, max(PAIRS // max(texts, 1), 5))
    if texts < SMALLEST or count < 1 or np.ptp(start[:, 0]) == 0:
        return start
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.initialization import rescale
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    rows, cosines = nearest_by_vectors(vectors, near, count)
    distances = np.sqrt(np.maximum(2.0 - 2.0 * cosines.astype(np.float64), 0.0))
    affinities = PerplexityBasedNN(
        knn_index=PrecomputedNeighbors(rows.astype(np.int64), distances),
        perplexity=max(count / 3, 1.0),  # what that many neighbours carry, the library's own rule
        n_jobs=threads,
    )
    embedding = TSNEEmbedding(
        rescale(start.astype(np.float64)), affinities, n_jobs=threads, random_state=seed,
        negative_gradient_method="bh" if texts < INTERPOLATED else "fft",
    )  # fmt: skip
    embedding = embedding.optimize(EARLY, exaggeration=12, momentum=0.8).optimize(LATE, momentum=0.8)
    return within_square(np.asarray(embedding))


def nearest_by_vectors(vectors: FloatArray, near: IntArray, count: int) -> tuple[IntArray, FloatArray]:
    """Return the nearest of proposed neighbours by the vectors themselves, nearest first.

    Args:
        vectors: unit vectors, [texts, dim].
        near: neighbours found in fewer dimensions, [texts, any], padded with -1.
        count: how many to return; at most as many as there are.

    Returns:
        Rows and cosines, [texts, count] each. Where a text has fewer neighbours, its nearest one is repeated;
        without any it is the following text, at cosine -1.

    """
    rows = np.empty((len(near), count), dtype=np.int32)
    cosines = np.empty((len(near), count), dtype=np.float32)
    for start in range(0, len(near), _BLOCK):
        ids = near[start : start + _BLOCK]
        own = vectors[start : start + _BLOCK]
        found = np.einsum("ikd,id->ik", vectors[np.maximum(ids, 0)], own)
        found = np.where(ids < 0, -1.0, found)
        order = np.argsort(-found, axis=1, kind="stable")[:, :count]
        best, cosine = np.take_along_axis(ids, order, axis=1), np.take_along_axis(found, order, axis=1)
        following = (np.arange(start, start + len(ids), dtype=np.int32) + 1) % len(near)
        missing = best < 0
        first = np.where(missing[:, 0], following, best[:, 0])
        rows[start : start + _BLOCK] = np.where(missing, first[:, None], best)
        cosines[start : start + _BLOCK] = np.where(missing, cosine[:, :1], cosine)
    return rows, cosines


def project(vectors: FloatArray) -> FloatArray:
    """Return positions by the two principal components alone, within the unit square, [texts, 2].

    Coarse, but immediate. The sign of a component is fixed by its largest loading.
    """
    texts, width = vectors.shape
    positions = np.zeros((texts, 2), dtype=np.float32)
    if texts and width:
        pca = PcaProjection.fit(vectors)
        directions = pca.directions[:, :2]
        signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
        directions = directions * np.where(signs == 0, 1.0, signs)
        for start in range(0, texts, _BLOCK * 64):
            block = (vectors[start : start + _BLOCK * 64] - pca.mean) @ directions
            positions[start : start + len(block), : directions.shape[1]] = block
    return within_square(positions)


def fan_out(positions: FloatArray, text_of: IntArray) -> FloatArray:
    """Return a position for every item: items of one text around their text's position, [items, 2].

    They lie on a sunflower spiral, one in the centre, so that each can be seen and pointed at. Its spacing is
    three tenths of the mean distance of texts that fill the square evenly.

    Args:
        positions: of the texts, within the unit square, [texts, 2].
        text_of: the text of each item, [items].

    """
    order = np.argsort(text_of, kind="stable")
    sorted_texts = text_of[order]
    starts = np.flatnonzero(np.diff(sorted_texts, prepend=-1))
    number = np.empty(len(text_of), dtype=np.int64)
    sizes = np.diff(np.append(starts, len(text_of)))
    number[order] = np.arange(len(text_of)) - np.repeat(starts, sizes)
    radius = 0.3 / np.sqrt(max(len(positions), 1)) * np.sqrt(number)
    angle = number * _GOLDEN_ANGLE
    moved = positions[text_of] + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return within_square(moved) if len(positions) < len(text_of) else positions[text_of]


def within_square(positions: np.ndarray) -> FloatArray:
    """Return positions moved and scaled into the unit square, both axes alike, centred, [any, 2]."""
    if not len(positions):
        return np.zeros((0, 2), dtype=np.float32)
    low, high = positions.min(axis=0), positions.max(axis=0)
    span = float((high - low).max())
    centred = (positions - (low + high) / 2) / (span if span > 0 else 1.0)
    scaled: FloatArray = np.clip(centred + 0.5, 0.0, 1.0).astype(np.float32)
    return scaled
