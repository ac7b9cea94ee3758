"""The FAISS index over vectors: exact by default, on a GPU when there is one, filters inside the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from conf.errors import InputError
from conf.schema import IndexConfig
from features.dataset import BoolArray, FloatArray, IntArray

_FAISS: Any = faiss  # its stubs describe the C++ constructors, not the Python ones
FLAT_LIMIT = 200_000
"""Above this many items the default index is approximate."""
SELECTIVE = 0.05
"""Below this share of allowed items a filtered search is exact: an approximate one would miss most."""


def default_factory(items: int) -> str:
    """Return the index description for a catalogue: exact search where it is fast enough."""
    if items < FLAT_LIMIT:
        return "Flat"
    lists = int(2 ** np.round(np.log2(4 * np.sqrt(items))))
    return f"IVF{lists},SQ8"


class VectorIndex:
    """Inner-product search over row-aligned vectors.

    Search parameters (`nprobe`, the filter) are passed per call; a search never changes the index.
    """

    def __init__(self, index: faiss.Index, vectors: FloatArray, config: IndexConfig) -> None:
        """Wrap a trained CPU index and the vectors it holds (for exact search under selective filters)."""
        self.cpu = index
        self.vectors = vectors
        self.nprobe = config.nprobe
        self.gpu = faiss.get_num_gpus() > 0 if config.gpu is None else config.gpu
        self.searcher = index
        if self.gpu:
            if faiss.get_num_gpus() == 0:
                raise InputError(
                    "index.gpu=true but FAISS sees no GPU; install the gpu extra or set index.gpu=false"
                )
            self.searcher = faiss.index_cpu_to_all_gpus(index)

    @classmethod
    def build(cls, vectors: FloatArray, config: IndexConfig) -> VectorIndex:
        """Train and fill an index.

        Raises:
            InputError: when `index.factory` is not a description FAISS understands.

        """
        description = config.factory or default_factory(len(vectors))
        try:
            index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors)
            index.add(vectors)
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1]
            raise InputError(f"index.factory: FAISS rejects '{description}' ({line})") from error
        return cls(index, vectors, config)

    def save(self, path: Path) -> None:
        """Write the CPU index."""
        faiss.write_index(self.cpu, str(path))

    @classmethod
    def load(cls, path: Path, vectors: FloatArray, config: IndexConfig) -> VectorIndex:
        """Read an index written by `save`."""
        return cls(faiss.read_index(str(path)), vectors, config)

    def __len__(self) -> int:
        return int(self.cpu.ntotal)

    def _parameters(self, selector: faiss.IDSelector | None) -> Any:  # noqa: ANN401
        if isinstance(self.cpu, faiss.IndexIVF):
            return _FAISS.SearchParametersIVF(sel=selector, nprobe=self.nprobe)
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
        k = min(k, len(self))
        if k == 0 or len(queries) == 0:
            return np.full((len(queries), k), -1, dtype=np.int32), np.full(
                (len(queries), k), -np.inf, np.float32
            )
        if allowed is not None and (self.gpu or allowed.mean() < SELECTIVE):
            return self._exact(queries, k, np.flatnonzero(allowed))
        selector = None
        if allowed is not None:
            bitmap = np.packbits(allowed, bitorder="little")
            selector = _FAISS.IDSelectorBitmap(bitmap)
        scores, rows = self.searcher.search(
            np.ascontiguousarray(queries, dtype=np.float32), k, params=self._parameters(selector)
        )
        return rows.astype(np.int32), np.where(rows >= 0, scores, -np.inf).astype(np.float32)

    def _exact(self, queries: FloatArray, k: int, rows: np.ndarray) -> tuple[IntArray, FloatArray]:
        found = np.full((len(queries), k), -1, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        if len(rows) == 0:
            return found, scores
        products = queries @ self.vectors[rows].T
        kept = min(k, len(rows))
        order = np.argsort(-products, axis=1, kind="stable")[:, :kept]
        found[:, :kept] = rows[order]
        scores[:, :kept] = np.take_along_axis(products, order, axis=1)
        return found, scores
