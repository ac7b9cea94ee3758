"""Exact brute-force search on a GPU, filters inside.

A first pass in half precision, which tensor cores multiply and which halves the memory traffic, keeps some
more rows than requested; these are re-ranked by products in single precision. A bound on the rounding error
decides whether a row that was not kept could belong to the top k; the few queries for which it could are
searched again in single precision. So results equal those of a search in single precision, ties by row.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from ranking.retrieval.faiss_masks import Selected, selected
from ranking.retrieval.searcher import QueryGroup, VectorSearcher

BYTES: Final = 6
"""Device memory per number of a vector, which is stored in half and in single precision."""
SCORES: Final = 1 << 27
"""Scores computed at a time, 2 bytes each; queries are processed in blocks of so many."""
FULL_SCORES: Final = 1 << 24
"""Likewise in single precision, with the keys by which they are sorted."""
_FULL_BYTES: Final = 40
"""Bytes per score of these."""
WORKING: Final = 1 << 30
"""Most working memory of a search in bytes, unless a single query needs more."""
_UPLOAD: Final = 1 << 16
"""Vectors copied and rounded at a time."""
_SPARE: Final = 32
"""Extra rows that the first pass keeps, at least; a quarter of those requested if that is more."""
_LONGEST: Final = 4.0
"""Length of a written vector, relative to the longest at the last scaling, that rescales all vectors."""
_SHORTEST: Final = 1e-30
"""Catalogues of shorter vectors are searched in single precision; scaling them would overflow."""
_HALF_ROUNDING: Final = 2.0**-11
_SUM_ERROR: Final = 2.0**-22
"""Bound on the relative error of a sum of products in single precision, per term."""

_DISALLOWED: weakref.WeakKeyDictionary[Selected, dict[torch.device, Tensor]] = weakref.WeakKeyDictionary()
"""Cache of inverted masks by device, for the lifetime of a mask."""


def disallowed_rows(mask: BoolArray, device: torch.device) -> Tensor:
    """Return the rows that a mask [items] does not allow, bool [items] on a device; copied there once."""
    cached = _DISALLOWED.setdefault(selected(mask), {})
    found = cached.get(device)
    if found is None:
        found = cached[device] = torch.from_numpy(~mask).to(device)
    return found


@dataclass(frozen=True)
class _BatchMasks:
    """Rows that the queries of a batch must not return."""

    masks: list[Tensor]
    """Disallowed rows of each filter, [rows] each."""
    which: LongArray | None
    """[queries] index into `masks`; None where no query has a filter."""
    hidden: Tensor | None
    """[rows] rows that no query may return."""

    def part(self, queries: LongArray | slice) -> _BatchMasks:
        """Return the masks of some of the queries."""
        return self if self.which is None else _BatchMasks(self.masks, self.which[queries], self.hidden)

    def apply(self, scores: Tensor) -> Tensor:
        """Set the scores [queries, rows] of disallowed rows to -inf, in place."""
        if self.which is not None:
            if (self.which == self.which[0]).all():
                disallowed = self.masks[self.which[0]]
            else:
                disallowed = torch.stack([self.masks[mask] for mask in self.which.tolist()])
            scores.masked_fill_(disallowed, -torch.inf)
        if self.hidden is not None:
            scores.masked_fill_(self.hidden, -torch.inf)
        return scores


class DeviceIndex(VectorSearcher):
    """Inner-product search over row-aligned vectors on a device; rows can be overwritten and appended.

    Threads may search concurrently. A row written during a search may or may not be seen by it.
    """

    def __init__(self, vectors: FloatArray, device: torch.device, room: int = 0) -> None:
        """Copy vectors to a device.

        Args:
            vectors: [rows, dim]; also retained for saving.
            device: where to search.
            room: how many rows may be appended.

        """
        self.vectors = vectors
        self.device = device
        self.size = len(vectors)
        """Rows that `search` covers."""
        if device.type == "cuda":  # else partial sums may be rounded to half precision, beyond the bound
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        capacity, width = len(vectors) + room, vectors.shape[1]
        self._full = torch.zeros((capacity, width), dtype=torch.float32, device=device)
        self._half = torch.zeros((capacity, width), dtype=torch.float16, device=device)
        for part in _parts(len(vectors)):
            self._full[part].copy_(torch.from_numpy(np.array(vectors[part], dtype=np.float32)))
        self._scale_vectors()

    def _scale_vectors(self) -> None:
        """Round all vectors to half precision, scaled so that the longest has length one."""
        parts = list(_parts(len(self._full))) if self._full.numel() else []
        # Squares of very long vectors overflow, so the largest number is scaled to one first.
        largest = max([float(self._full[part].abs().amax()) for part in parts], default=0.0)
        first = 1.0 / max(largest, _SHORTEST)
        longest = max([float((self._full[part] * first).norm(dim=1).amax()) for part in parts], default=0.0)
        self._scale = first / max(longest, 1.0)
        self._longest = 1.0  # length of the longest scaled vector
        rounded = []
        for part in parts:
            scaled = self._full[part] * self._scale
            self._half[part] = scaled.half()
            rounded.append(float((scaled - self._half[part].float()).norm(dim=1).amax()))
        # Largest rounding error of a scaled vector, as a length.
        self._rounded = max(rounded, default=0.0)

    def __len__(self) -> int:
        return self.size

    def put(self, rows: IntArray, vectors: FloatArray) -> None:
        """Write rows [rows, dim] in place, within the reserved memory; one transfer.

        To be called by the thread that runs the model, or while no search is running.
        """
        if len(rows) == 0:
            return
        positions = torch.from_numpy(rows.astype(np.int64)).to(self.device)
        values = torch.from_numpy(np.array(vectors, dtype=np.float32)).to(self.device)
        self._full.index_copy_(0, positions, values)
        scaled = vectors.astype(np.float64) * self._scale
        longest = float(np.linalg.norm(scaled, axis=1).max())
        if longest > _LONGEST:
            self._scale_vectors()
            return
        self._longest = max(self._longest, longest)
        rounded = float(np.linalg.norm(scaled - scaled.astype(np.float16), axis=1).max())
        self._rounded = max(self._rounded, rounded)
        self._half.index_copy_(0, positions, (values * self._scale).half())

    def state(self, size: int, shown: BoolArray | None = None) -> DeviceState:
        """Return a view of the first rows, of which those in `shown` [size] may be returned."""
        return DeviceState(self, size, shown)

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k]; see `VectorSearcher`."""
        return self.state(self.size).search(queries, k, allowed)

    def search_groups(
        self, queries: FloatArray, groups: Sequence[QueryGroup]
    ) -> list[tuple[IntArray, FloatArray]]:
        """Return what `search` returns for each group; see `VectorSearcher`."""
        return self.state(self.size).search_groups(queries, groups)

    def find(
        self,
        queries: FloatArray,
        k: int,
        masks: Sequence[BoolArray | None],
        which: LongArray,
        state: DeviceState,
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k], padded with -1 and -inf.

        The host synchronises with the device once, unless queries must be repeated in single precision.

        Args:
            queries: [queries, dim].
            k: rows per query.
            masks: allowed rows, [size of the state] each; None allows all.
            which: mask of each query, [queries].
            state: the rows to search.

        """
        found = np.full((len(queries), k), -1, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        depth = min(k, state.size)
        if depth == 0 or len(queries) == 0:
            return found, scores
        with torch.no_grad():
            searched = torch.from_numpy(np.array(queries, dtype=np.float32)).to(self.device)
            bars = self._bars(masks, which, state)
            kept = min(depth + max(_SPARE, depth // 4), state.size)
            step = max(SCORES // max(state.size, 4 * kept * self._full.shape[1]), 1)
            parts = [slice(start, start + step) for start in range(0, len(queries), step)]
            packed = torch.cat(
                [self.first_pass(searched[p], depth, kept, bars.part(p), state.size) for p in parts]
            )
            answers = packed.cpu().numpy()
            uncertain = np.flatnonzero(answers[:, -1] == 0)
            if len(uncertain):
                step = max(FULL_SCORES // state.size, 1)

                def repeat(which: LongArray) -> Tensor:
                    some = searched[torch.from_numpy(which).to(self.device)]
                    return self._full_pass(some, depth, kept, bars.part(which), state.size)

                blocks = np.split(uncertain, range(step, len(uncertain), step))
                with _single_precision():
                    answers[uncertain, :-1] = torch.cat([repeat(block) for block in blocks]).cpu().numpy()
        found[:, :depth] = answers[:, :depth]
        scores[:, :depth] = answers[:, depth : 2 * depth].view(np.float32)
        return found, scores

    def _bars(self, masks: Sequence[BoolArray | None], which: LongArray, state: DeviceState) -> _BatchMasks:
        hidden = None if state.shown is None else disallowed_rows(state.shown, self.device)
        if all(mask is None for mask in masks):
            return _BatchMasks([], None, hidden)
        none = torch.zeros(state.size, dtype=torch.bool, device=self.device)
        disallowed = [none if mask is None else disallowed_rows(mask, self.device) for mask in masks]
        return _BatchMasks(disallowed, which, hidden)

    def first_pass(self, queries: Tensor, k: int, kept: int, bars: _BatchMasks, size: int) -> Tensor:
        """Search in half precision, re-rank in single precision, and flag the queries whose result is exact.

        Args:
            queries: [queries, dim].
            k: rows per query.
            kept: rows that the pass keeps, `k` to `size`.
            bars: rows that must not be found.
            size: rows to search.

        Returns:
            int32 [queries, 2 k + 1]: rows, bits of their scores, and 1 where the result is exact.

        """
        lengths = queries.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        scaled = queries / lengths
        half = scaled.half()
        values, rows = torch.topk(bars.apply(half @ self._half[:size].T), kept, dim=1, sorted=False)
        best, scores = self._ordered(queries, rows, values == -torch.inf, k)
        least = values.float().amin(dim=1)
        # |q v - q' v'| <= |q - q'| |v| + |q'| |v - v'|, and the product is added up and rounded.
        rounded = (scaled - half.float()).norm(dim=1)
        error = rounded * self._longest + (1.0 + _HALF_ROUNDING) * self._rounded
        error += queries.shape[1] * _SUM_ERROR * self._longest + 2.0 * _HALF_ROUNDING * least.abs()
        # Disallowed rows are only kept where all allowed ones are.
        exhausted = (least == -torch.inf) | (kept == size)
        exact = exhausted | (scores[:, -1] * (self._scale / lengths[:, 0]) > least + error)
        return torch.cat([best, scores.view(torch.int32), exact[:, None].int()], dim=1)

    def _full_pass(self, queries: Tensor, k: int, kept: int, bars: _BatchMasks, size: int) -> Tensor:
        """Search in single precision; returns int32 [queries, 2 k], see `first_pass`."""
        scores = bars.apply(queries @ self._full[:size].T) + 0.0  # so that -0 is 0
        bits = scores.view(torch.int32)
        rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
        # A sort key: larger for a better score, and for a smaller row among equal scores.
        keys = (rising << 32) + torch.arange(size, 0, -1, device=self.device)
        rows = torch.topk(keys, kept, dim=1, sorted=False).indices
        disallowed = scores.gather(1, rows) == -torch.inf
        best, products = self._ordered(queries, rows, disallowed, k)
        return torch.cat([best, products.view(torch.int32)], dim=1)

    def _ordered(self, queries: Tensor, rows: Tensor, disallowed: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Rank rows [queries, any] by their products in single precision, ties by row.

        Args:
            queries: [queries, dim].
            rows: the candidates.
            disallowed: candidates to leave out.
            k: rows per query.

        Returns:
            int32 rows padded with -1, and products padded with -inf, each [queries, k].

        """
        rows, order = rows.sort(dim=1)
        vectors = self._full[rows]  # [queries, kept, dim]
        # Not a matrix product, which may be less precise and depends on the batch size.
        products = (vectors * queries[:, None, :]).sum(dim=2)
        products.masked_fill_(disallowed.gather(1, order), -torch.inf)
        products, order = products.sort(dim=1, descending=True, stable=True)
        products, rows = products[:, :k].contiguous(), rows.gather(1, order[:, :k]).int()
        return rows.masked_fill(products == -torch.inf, -1), products


@dataclass(frozen=True)
class DeviceState(VectorSearcher):
    """A view of an index as of one state of a catalogue."""

    index: DeviceIndex
    size: int
    """Rows of the state; later ones are not searched."""
    shown: BoolArray | None = None
    """[size] rows that may be returned; None allows all."""

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k]; see `VectorSearcher`."""
        return self.index.find(queries, k, [allowed], np.zeros(len(queries), dtype=np.int64), self)

    def search_groups(
        self, queries: FloatArray, groups: Sequence[QueryGroup]
    ) -> list[tuple[IntArray, FloatArray]]:
        """Return what `search` returns for each group, in one search."""
        if not groups:
            return []
        members = np.concatenate([group.members for group in groups])
        which = np.repeat(np.arange(len(groups)), [len(group.members) for group in groups])
        rows, scores = self.index.find(
            queries[members], max(g.k for g in groups), [g.allowed for g in groups], which, self
        )
        ends = np.cumsum([len(group.members) for group in groups])
        return [
            (rows[end - len(g.members) : end, : g.k], scores[end - len(g.members) : end, : g.k])
            for g, end in zip(groups, ends.tolist(), strict=True)
        ]


def fits(rows: int, width: int, device: torch.device) -> bool:
    """Return whether an index of so many vectors and its working memory fit into a device's free memory."""
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return BYTES * rows * width + max(WORKING, _FULL_BYTES * rows) <= free


def _parts(rows: int) -> Iterator[slice]:
    """Return slices of at most `_UPLOAD` rows."""
    return (slice(start, min(start + _UPLOAD, rows)) for start in range(0, rows, _UPLOAD))


@contextmanager
def _single_precision() -> Iterator[None]:
    """Compute matrix products of float32 in full precision (no TF32) inside the block."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
