"""Methods that draw the map of a catalogue, on the text vectors of published bundles.

    python -m benchmarks.item_map work/demo/artifacts work/beauty/artifacts

Each text counts once. `kept` is the share of a text's 10 nearest texts that are among its 10 nearest on the
map, `trust` the trustworthiness of these (Venna and Kaski 2001), on a sample of texts. Texts as near as the
tenth count as near. Seconds are of the CPU, one thread. UMAP is measured where umap-learn is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

import ranking.overview.layout as layout
from features.data import schema
from features.data.dataset import FloatArray, IntArray
from ranking.assembly import pca_units, text_neighbours
from ranking.bundle.bundle import TEXT_VECTORS
from ranking.bundle.catalogue_file import CATALOG
from ranking.bundle.store import VERSIONS, current_version
from ranking.overview.layout import lay_out, nearest_by_vectors, project

SAMPLE: Final = 1000
K: Final = 10
LANDMARKS: Final = 5000
Method = Callable[[FloatArray, IntArray], FloatArray]


def quality(
    vectors: FloatArray, positions: FloatArray, k: int = K, sample: int = SAMPLE
) -> tuple[float, float]:
    """Return trustworthiness and the share of the k nearest texts kept, on a seeded sample of the texts.

    Args:
        vectors: unit vectors, [texts, dim].
        positions: on the map, [texts, 2].
        k: neighbours.
        sample: texts looked at.

    """
    texts = len(vectors)
    chosen = np.random.default_rng(0).permutation(texts)[:sample]
    penalty, kept = 0.0, 0.0
    for row in chosen:
        cosines = vectors @ vectors[row]
        cosines[row] = -2.0
        distances = ((positions - positions[row]) ** 2).sum(axis=1)
        distances[row] = np.inf
        near = np.argpartition(distances, k - 1)[:k]
        ordered = np.sort(cosines)[::-1]
        # Rank of each by the vectors, from 1; the best rank of equal ones, rounding aside.
        ranks = np.searchsorted(-ordered, -(cosines[near] + 1e-6)) + 1
        kept += float((ranks <= k).mean())
        penalty += float(np.maximum(ranks - k, 0).sum())
    count = len(chosen)
    return 1 - 2 * penalty / (count * k * (2 * texts - 3 * k - 1)), kept / count


def iterations(early: int, late: int) -> Method:
    """Return t-SNE as published, with other numbers of iterations."""

    def method(vectors: FloatArray, near: IntArray) -> FloatArray:
        published = layout.EARLY, layout.LATE
        layout.EARLY, layout.LATE = early, late  # type: ignore[misc]
        try:
            return lay_out(vectors, near)
        finally:
            layout.EARLY, layout.LATE = published  # type: ignore[misc]

    return method


def landmarks(vectors: FloatArray, near: IntArray) -> FloatArray:
    """Return t-SNE of a seeded sample; every other text lies at the mean of its three nearest landmarks."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(vectors))[:LANDMARKS])
    own = vectors[chosen]
    positions = lay_out(own, text_neighbours(pca_units(own), 50).ids)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(own)
    cosines, nearest = index.search(vectors, 3)
    weights = np.exp(20 * (cosines - cosines[:, :1]))[..., None]
    placed: FloatArray = ((positions[nearest] * weights).sum(axis=1) / weights.sum(axis=1)).astype(np.float32)
    placed[chosen] = positions
    return placed


def umap(vectors: FloatArray, near: IntArray) -> FloatArray:
    """Return UMAP (McInnes et al. 2018) of the same neighbours, started from the principal components."""
    from umap import UMAP

    rows, cosines = nearest_by_vectors(vectors, near, 14)
    own = np.arange(len(vectors))[:, None]
    distances = np.sqrt(np.maximum(2 - 2 * cosines, 0))
    start = project(vectors)
    known = (
        np.concatenate([own, rows], axis=1).astype(np.int32),
        np.concatenate([np.zeros(own.shape), distances], axis=1).astype(np.float32),
    )
    start = (start - start.mean(axis=0)) / start.std()
    found: FloatArray = UMAP(
        n_neighbors=15, init=start, precomputed_knn=known, random_state=0, n_jobs=1
    ).fit_transform(vectors)
    return found


METHODS: Final[dict[str, Method]] = {
    "principal components": lambda vectors, _: project(vectors),
    f"t-SNE, {layout.EARLY} + {layout.LATE} iterations (published)": lay_out,
    "t-SNE, 50 + 150 iterations": iterations(50, 150),
    "t-SNE, 250 + 500 iterations": iterations(250, 500),
    "t-SNE, 30 neighbours": lambda vectors, near: lay_out(vectors, near[:, :30]),
    f"t-SNE of {LANDMARKS:,} landmarks": landmarks,
    "UMAP, 15 neighbours": umap,
}


def main() -> None:
    """Measure every method on every bundle."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stores", nargs="+", type=Path, help="artifact stores")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    console = Console()
    for store in options.stores:
        folder = store / VERSIONS / current_version(store)
        texts = pl.read_parquet(folder / CATALOG, columns=[schema.TEXT])[schema.TEXT]
        rows = np.sort(texts.arg_unique().to_numpy())
        vectors: FloatArray = np.load(folder / TEXT_VECTORS)[rows]
        begin = time.process_time()
        near = text_neighbours(pca_units(vectors), 50).ids
        seconds = time.process_time() - begin
        title = f"{store}: {len(texts):,} items, {len(rows):,} texts, neighbours {seconds:.1f} s"
        table = Table("method", "trust", "kept", "CPU s", title=title)
        for name, method in METHODS.items():
            needs_more = method is landmarks and len(rows) <= LANDMARKS
            if needs_more or (method is umap and importlib.util.find_spec("umap") is None):
                continue
            begin = time.process_time()
            positions = method(vectors, near)
            seconds = time.process_time() - begin
            trust, kept = quality(vectors, positions)
            table.add_row(name, f"{trust:.3f}", f"{kept:.3f}", f"{seconds:.1f}")
        console.print(table)


if __name__ == "__main__":
    main()
