"""The FAISS index over vectors: exact where that is fast, filters inside the search.

On a GPU `ranking.retrieval.device_index` takes its place, unless `index.factory` asks for a FAISS index.
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
from ranking.retrieval.faiss_masks import Selected, selected
from ranking.retrieval.searcher import VectorSearcher

_FAISS: Any = faiss  # its stubs describe the C++ constructors, not the Python ones
LOG = logging.getLogger(__name__)
FLAT_LIMIT = 10_000_000
"""Above this many numbers (items times width) the default index is approximate: exact search would take more
than a millisecond per query."""
PROBED = 4_000_000
"""Numbers (vectors times width) that a search of an inverted file looks at by default: about a quarter of a
millisecond, whatever the size of the catalogue."""
REFINED = 4
"""How many times the wanted rows are fetched from an index that knows vectors by 2 bits a number, to be put
in order by the vectors themselves; fetching those vectors from memory is most of what a search costs."""
CROWDED = 500_000
"""With so many items many more differ by less than the codes tell, and twice as many rows are fetched."""
_PROBES = 4
"""Queries, and rows of each, by which it is found out whether an index obeys filters."""
MOST_ON_GPU = 2048
"""Rows that FAISS finds for a query on a GPU, at most."""
_RESERVOIR = 11
"""Name of a way: the best of each list collected in a reservoir, one query after another."""
SAMPLED = 64
"""Vectors per list that the lists of an inverted file are found from; more cost minutes and change little."""
CHUNK = 1024
"""Vectors that an exact search fetches at a time, so that they stay in the processor's cache."""
SELECTIVE = 0.05
"""Below this share of allowed items a filtered search is exact: an approximate one would miss most."""
EXACT = 2_000_000
"""Numbers (allowed vectors times width) up to which it is: two milliseconds, as long as the lists take."""
WIDER = 8
"""How many times as many lists are looked into where few items are allowed, at most. So a filtered search
finds as much as any: of the nearest 112 of a million items .92 to .96, whatever is allowed, .94 without."""


def exact_by_default(items: int, width: int) -> bool:
    """Tell whether a catalogue is so small that its index is only the vectors."""
    return items * width < FLAT_LIMIT


def default_factory(items: int, width: int) -> str:
    """Return the index description for a catalogue: exact search where it is fast enough.

    Otherwise an inverted file of vectors at 2 bits a number, which are looked through in the processor's
    registers (Andre et al., VLDB 2015) and put in order by the vectors themselves.
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
            vectors: what it holds, for exact search under selective filters.
            config: how to search.
            device: where; on a GPU only an index that `config.factory` asks for.

        """
        self.cpu = index
        self.vectors = vectors
        inverted = _FAISS.try_extract_index_ivf(index)
        self.lists = 1 if inverted is None else int(inverted.nlist)
        self.nprobe = config.nprobe or _probes(inverted)
        coarse = inverted is not None and isinstance(_FAISS.downcast_index(inverted), faiss.IndexIVFFastScan)
        self.refined = (REFINED if len(vectors) < CROWDED else 2 * REFINED) if coarse else 1
        if coarse:
            # Of FAISS's ways to look through lists, the fastest for the few queries of a batch in serving.
            _FAISS.downcast_index(inverted).implem = _RESERVOIR
        self.probes = inverted is not None and self._accepts(_FAISS.SearchParametersIVF(nprobe=self.nprobe))
        if inverted is not None and not self.probes:
            inverted.nprobe = (
                self.nprobe
            )  # wrapped so that no parameters reach it: set once, before any search
        self._unfiltered = self._parameters(None)
        self.searcher = self._on_gpu(device) if device.type == "cuda" and config.factory else index
        """What searches without a filter."""
        obeying = [s for s in dict.fromkeys((self.searcher, index)) if self._obeys(s)]
        self.filters: Any = obeying[0] if obeying else None
        """What searches with a filter; None where nothing obeys one."""
        self._kept: weakref.WeakKeyDictionary[Selected, Any] = weakref.WeakKeyDictionary()
        if self.filters is not self.searcher:
            instead = "are exact" if self.filters is None else "run on the CPU"
            name = type(self.searcher).__name__
            LOG.warning("%s cannot filter inside its search; filtered searches %s", name, instead)

    def _accepts(self, parameters: Any) -> bool:  # noqa: ANN401
        """Tell whether the index searches with these parameters; FAISS only says so by failing."""
        try:
            self.cpu.search(np.zeros((1, self.cpu.d), dtype=np.float32), 1, params=parameters)
        except RuntimeError:
            return False
        return True

    def _on_gpu(self, device: torch.device) -> faiss.Index:
        """Return a copy of the index on a GPU; itself, with a warning, where FAISS cannot search it there."""
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

    def _obeys(self, searcher: Any) -> bool:  # noqa: ANN401
        """Tell whether filters hold: searched once more without its best rows, it must not find these.

        Some of FAISS's indexes refuse a selector; those on a GPU answer as if there were none.
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
                inverted.cp.min_points_per_centroid = 1  # few are enough, and need no warning
                inverted.cp.max_points_per_centroid = SAMPLED
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

    def _selective(self, allowed: int) -> bool:
        """Tell whether so few rows are allowed that they are best compared one by one."""
        if allowed >= SELECTIVE * len(self):
            return False
        return not self.probes or allowed * self.cpu.d <= EXACT

    def _filtered(self, rows: Selected) -> Any:  # noqa: ANN401
        """Return the parameters of a filtered search, kept for as long as the filter."""
        found = self._kept.get(rows)
        if found is None:
            # Where a quarter is allowed the usual lists do; the less there is, the more of them it takes.
            wider = min(max(round(len(self) / (4 * max(rows.count, 1))), 1), WIDER)
            found = self._kept[rows] = self._parameters(rows.selector, wider)
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
            return _nothing(len(queries), k)
        if allowed is not None and (self.filters is None or self._selective(selected(allowed).count)):
            return self._exact(queries, k, np.flatnonzero(allowed))
        fetched = min(depth * self.refined, len(self))
        searcher = self.searcher if allowed is None else self.filters
        scores, rows = (searcher if fetched <= MOST_ON_GPU else self.cpu).search(
            np.ascontiguousarray(queries, dtype=np.float32),
            fetched,
            params=self._unfiltered if allowed is None else self._filtered(selected(allowed)),
        )
        if self.refined > 1:
            found, scores = best_products(queries, self.vectors, rows, k)
        else:
            found, scores = _padded(rows, scores, k)
        if allowed is not None and (found[:, depth - 1] < 0).any():
            # The lists an approximate search looked into may hold too few of the allowed rows.
            wanted = min(depth, selected(allowed).count)
            short = np.flatnonzero((found >= 0).sum(axis=1) < wanted)
            if len(short):
                found[short], scores[short] = self._exact(queries[short], k, np.flatnonzero(allowed))
        return found, scores

    def _exact(self, queries: FloatArray, k: int, rows: np.ndarray) -> tuple[IntArray, FloatArray]:
        found, scores = _nothing(len(queries), k)
        if len(rows) == 0:
            return found, scores
        products = np.empty((len(queries), len(rows)), dtype=np.float32)
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            products[:, part] = queries @ self.vectors.take(rows[part], axis=0).T
        kept = min(k, len(rows))
        order = best_places(products, kept)
        found[:, :kept] = rows[order]
        scores[:, :kept] = np.take_along_axis(products, order, axis=1)
        return found, scores


def _nothing(queries: int, k: int) -> tuple[IntArray, FloatArray]:
    """Return rows and scores of nothing found, [queries, k]."""
    return np.full((queries, k), -1, dtype=np.int32), np.full((queries, k), -np.inf, dtype=np.float32)


def _padded(rows: LongArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return what FAISS has found in the way of `VectorSearcher`, [queries, k]."""
    found, best = _nothing(len(rows), k)
    found[:, : rows.shape[1]] = rows
    best[:, : rows.shape[1]] = np.where(rows >= 0, scores, -np.inf)
    return found, best


def best_places(scores: FloatArray, k: int) -> LongArray:
    """Return the places of the k largest scores of each row, [rows, k], best first, equals in order.

    The same as a stable sort of everything, without the sorting; k is at least 1 and at most the width.
    """
    width = scores.shape[1]
    if width <= 4 * k:
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]
    least = np.partition(scores, width - k, axis=1)[:, width - k]
    best = np.empty((len(scores), k), dtype=np.int64)
    for row, values in enumerate(scores):
        near = np.flatnonzero(values >= least[row])  # k, and what equals the last of them
        best[row] = near[np.argsort(-values[near], kind="stable")[:k]]
    return best


def _probes(inverted: Any) -> int:  # noqa: ANN401
    """Return how many lists of an inverted file hold as many vectors as a search should look at."""
    if inverted is None or inverted.ntotal == 0:
        return 1
    share = PROBED / (inverted.ntotal * inverted.d)
    return int(max(1, min(inverted.nlist, round(share * inverted.nlist))))
