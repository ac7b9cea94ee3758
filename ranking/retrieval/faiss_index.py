"""A FAISS index over vectors: exact where that is fast, filters inside the search.

On a GPU `ranking.retrieval.device_index` is used instead, unless `index.factory` is set.
"""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from conf.errors import InputError
from conf.schema import IndexConfig
from encoders.device import CPU
from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from ranking.kernels.topk import best_products
from ranking.retrieval.exact import exact_among, no_results
from ranking.retrieval.faiss_masks import Selected, selected
from ranking.retrieval.searcher import VectorSearcher

_FAISS: Any = faiss  # its stubs describe the C++ constructors, not the Python ones
LOG = logging.getLogger(__name__)
FLAT_LIMIT = 10_000_000
"""Above this many numbers (items times width) the default index is approximate: exact search would take more
than a millisecond per query."""
PROBE_BUDGET = 4_000_000
"""Numbers (vectors times width) that a search of an inverted file scans by default: about a quarter of a
millisecond, whatever the size of the catalogue."""
REFINE_FACTOR = 4
"""Rows fetched per requested row from an index of 2-bit codes, to be re-ranked by the vectors themselves;
fetching those vectors from memory is most of the cost of a search."""
LARGE_CATALOGUE = 500_000
"""Catalogue size from which the codes separate neighbours less well, and twice as many rows are fetched."""
_PROBES = 4
"""Queries, and rows of each, that test whether an index supports filters."""
GPU_MAX_K = 2048
"""Most rows per query that FAISS returns on a GPU."""
_RESERVOIR = 11
"""FAISS's `implem` that collects the best codes of the lists in a reservoir, query by query."""
TRAIN_POINTS_PER_LIST = 64
"""Training vectors per list of an inverted file; more cost minutes and change little."""
SELECTIVE_SHARE = 0.05
"""Below this share of allowed items a filtered search is exact: an approximate one would miss most."""
EXACT_BUDGET = 2_000_000
"""Most numbers (allowed vectors times width) of such an exact search: two milliseconds, as for the lists."""
MAX_PROBE_FACTOR = 8
"""Largest factor by which a selective filter raises `nprobe`. It keeps the recall of filtered searches: of
the nearest 112 of a million items .92 to .96 under any filter, .94 without."""


def exact_by_default(items: int, width: int) -> bool:
    """Return whether the default index of a catalogue is exact."""
    return items * width < FLAT_LIMIT


def default_factory(items: int, width: int) -> str:
    """Return the index description for a catalogue: exact search where it is fast enough.

    Otherwise an inverted file of 2-bit codes, scanned in SIMD registers (Andre et al., VLDB 2015) and
    re-ranked by the vectors themselves.
    """
    if exact_by_default(items, width):
        return "Flat"
    lists = int(2 ** np.round(np.log2(4 * np.sqrt(items))))
    return f"IVF{lists},SQ8" if width % 2 else f"IVF{lists},PQ{width // 2}x4fs"


class VectorIndex(VectorSearcher):
    """Inner-product search over row-aligned vectors.

    Search parameters (`nprobe`, the filter) are passed per call; a search never changes the index.
    """

    def __init__(
        self, index: faiss.Index, vectors: FloatArray, config: IndexConfig, device: torch.device = CPU
    ) -> None:
        """Wrap a trained CPU index.

        Args:
            index: the index.
            vectors: its vectors, for re-ranking and for exact search under selective filters.
            config: how to search.
            device: where; on a GPU only an index that `config.factory` asks for.

        """
        self.cpu = index
        self.vectors = vectors
        inverted = _FAISS.try_extract_index_ivf(index)
        self.lists = 1 if inverted is None else int(inverted.nlist)
        self.nprobe = config.nprobe or _probes(inverted)
        coarse = inverted is not None and isinstance(_FAISS.downcast_index(inverted), faiss.IndexIVFFastScan)
        self.refined = (
            (REFINE_FACTOR if len(vectors) < LARGE_CATALOGUE else 2 * REFINE_FACTOR) if coarse else 1
        )
        if coarse:
            # The fastest of FAISS's list scanners for the small batches of serving.
            _FAISS.downcast_index(inverted).implem = _RESERVOIR
        self.probes = inverted is not None and self._accepts(_FAISS.SearchParametersIVF(nprobe=self.nprobe))
        if inverted is not None and not self.probes:
            inverted.nprobe = (
                self.nprobe
            )  # wrapped so that no parameters reach it: set once, before any search
        self._unfiltered = self._parameters(None)
        self.searcher = self._on_gpu(device) if device.type == "cuda" and config.factory else index
        """The index for unfiltered searches."""
        filtering = [s for s in dict.fromkeys((self.searcher, index)) if self._supports_filters(s)]
        self.filters: Any = filtering[0] if filtering else None
        """The index for filtered searches; None where neither supports them."""
        self._cached: weakref.WeakKeyDictionary[Selected, Any] = weakref.WeakKeyDictionary()
        if self.filters is not self.searcher:
            instead = "are exact" if self.filters is None else "run on the CPU"
            name = type(self.searcher).__name__
            LOG.warning("%s cannot filter inside its search; filtered searches %s", name, instead)

    def _accepts(self, parameters: Any) -> bool:  # noqa: ANN401
        """Return whether the index accepts search parameters, which FAISS only shows by raising."""
        try:
            self.cpu.search(np.zeros((1, self.cpu.d), dtype=np.float32), 1, params=parameters)
        except RuntimeError:
            return False
        return True

    def _on_gpu(self, device: torch.device) -> faiss.Index:
        """Return a copy of the index on a GPU; the CPU index, with a warning, where that is unsupported."""
        if _FAISS.get_num_gpus() == 0:
            LOG.warning("index.factory is searched on the CPU: this build of FAISS sees no GPU")
            return self.cpu
        try:
            copy = _FAISS.index_cpu_to_gpu(_FAISS.StandardGpuResources(), device.index or 0, self.cpu)
            copy.search(np.zeros((1, self.cpu.d), dtype=np.float32), 1, params=self._unfiltered)
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1]
            LOG.warning("index.factory is searched on the CPU: FAISS cannot on a GPU (%s)", line)
            return self.cpu
        found: faiss.Index = copy
        return found

    def _supports_filters(self, searcher: Any) -> bool:  # noqa: ANN401
        """Return whether an index applies filters: with its best rows masked, it must not find them.

        Some FAISS indexes reject a selector; those on a GPU ignore it.
        """
        queries = np.random.default_rng(0).standard_normal((_PROBES, self.cpu.d)).astype(np.float32)
        depth = min(_PROBES, len(self))
        if depth == 0:
            return True
        best = searcher.search(queries, depth, params=self._unfiltered)[1]
        allowed = np.ones(len(self), dtype=np.bool_)
        allowed[best[best >= 0]] = False
        try:
            rows = searcher.search(queries, depth, params=self._parameters(selected(allowed).selector))[1]
        except RuntimeError:
            return False
        return bool(allowed[rows[rows >= 0]].all())

    @classmethod
    def build(cls, vectors: FloatArray, config: IndexConfig, device: torch.device = CPU) -> VectorIndex:
        """Train and fill an index.

        Raises:
            InputError: when `index.factory` is not a description FAISS understands.

        """
        description = config.factory or default_factory(*vectors.shape)
        try:
            index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
            inverted = _FAISS.try_extract_index_ivf(index)
            if inverted is not None and config.factory is None:
                inverted.cp.min_points_per_centroid = 1  # silences a warning
                inverted.cp.max_points_per_centroid = TRAIN_POINTS_PER_LIST
            index.train(vectors)
            index.add(vectors)
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1]
            raise InputError(f"index.factory: FAISS rejects '{description}' ({line})") from error
        return cls(index, vectors, config, device)

    def save(self, path: Path) -> None:
        """Write the CPU index."""
        faiss.write_index(self.cpu, str(path))

    @classmethod
    def load(
        cls, path: Path, vectors: FloatArray, config: IndexConfig, device: torch.device = CPU
    ) -> VectorIndex:
        """Read an index written by `save`.

        Raises:
            InputError: when the file is not an index.

        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: not a FAISS index; roll back or publish again") from error
        return cls(index, vectors, config, device)

    def __len__(self) -> int:
        return int(self.cpu.ntotal)

    @property
    def exact(self) -> bool:
        """Whether every search compares a query with all allowed vectors."""
        return isinstance(_FAISS.downcast_index(self.cpu), faiss.IndexFlat)

    def _selective(self, allowed: int) -> bool:
        """Return whether a filter allows so few rows that exact search is best."""
        if allowed >= SELECTIVE_SHARE * len(self):
            return False
        return not self.probes or allowed * self.cpu.d <= EXACT_BUDGET

    def _filtered(self, rows: Selected) -> Any:  # noqa: ANN401
        """Return the parameters of a filtered search, cached for the lifetime of the filter."""
        found = self._cached.get(rows)
        if found is None:
            # From a quarter of the rows on the default `nprobe` suffices; below it grows with selectivity.
            wider = min(max(round(len(self) / (4 * max(rows.count, 1))), 1), MAX_PROBE_FACTOR)
            found = self._cached[rows] = self._parameters(rows.selector, wider)
        return found

    def _parameters(self, selector: faiss.IDSelector | None, wider: int = 1) -> Any:  # noqa: ANN401
        if self.probes:
            nprobe = min(self.nprobe * wider, self.lists)
            return _FAISS.SearchParametersIVF(sel=selector, nprobe=nprobe)
        return _FAISS.SearchParameters(sel=selector) if selector is not None else None

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k], padded with -1 and -inf.

        Args:
            queries: [queries, dim].
            k: rows per query.
            allowed: [items] mask; rows outside are not considered, inside the search and not after it.

        """
        depth = min(k, len(self))
        if depth == 0 or len(queries) == 0:
            return no_results(len(queries), k)
        if allowed is not None and (self.filters is None or self._selective(selected(allowed).count)):
            return exact_among(self.vectors, queries, k, np.flatnonzero(allowed))
        fetched = min(depth * self.refined, len(self))
        searcher = self.searcher if allowed is None else self.filters
        scores, rows = (searcher if fetched <= GPU_MAX_K else self.cpu).search(
            np.ascontiguousarray(queries, dtype=np.float32),
            fetched,
            params=self._unfiltered if allowed is None else self._filtered(selected(allowed)),
        )
        if self.refined > 1:
            found, scores = best_products(queries, self.vectors, rows, k)
        else:
            found, scores = _padded(rows, scores, k)
        if allowed is not None and (found[:, depth - 1] < 0).any():
            # The probed lists may hold too few of the allowed rows.
            expected = min(depth, selected(allowed).count)
            short = np.flatnonzero((found >= 0).sum(axis=1) < expected)
            if len(short):
                found[short], scores[short] = exact_among(
                    self.vectors, queries[short], k, np.flatnonzero(allowed)
                )
        return found, scores


def _padded(rows: LongArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return results of FAISS padded as `VectorSearcher` does, [queries, k] each."""
    found, best = no_results(len(rows), k)
    found[:, : rows.shape[1]] = rows
    best[:, : rows.shape[1]] = np.where(rows >= 0, scores, -np.inf)
    return found, best


def _probes(inverted: Any) -> int:  # noqa: ANN401
    """Return the default `nprobe` of an inverted file, see `PROBE_BUDGET`."""
    if inverted is None or inverted.ntotal == 0:
        return 1
    share = PROBE_BUDGET / (inverted.ntotal * inverted.d)
    return int(max(1, min(inverted.nlist, round(share * inverted.nlist))))
