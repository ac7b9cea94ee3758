"""Exact search on a GPU: the whole catalogue is compared with every query, filters inside.

A first pass compares in half precision, which tensor cores multiply and which is half as much to read, and
keeps some rows more than are requested. These are put in order by products in single precision. Whether a row
that was not kept could belong among the best is decided by a bound on what half precision rounds away; the
few queries for which the bound does not rule it out are compared once more, all in single precision. So the
answer is that of a search in single precision, where equals come in the order of their rows.
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
"""Of device memory per number of a vector: it lies there in half and in single precision."""
SCORES: Final = 1 << 27
"""Scores that are worked out at a time, 2 bytes each; the other queries follow in blocks."""
FULL_SCORES: Final = 1 << 24
"""Likewise in single precision, with the keys by which they are sorted."""
_FULL_BYTES: Final = 40
"""Bytes that these take each."""
WORKING: Final = 1 << 30
"""Bytes that a search takes beside the vectors, at most, unless one query takes more."""
_UPLOAD: Final = 1 << 16
"""Vectors that are copied and rounded at a time."""
_SPARE: Final = 32
"""Rows that the first pass keeps beyond those requested, at least; a quarter of them if that is more."""
_LONGEST: Final = 4.0
"""Length of a vector, in units of the longest at the last scaling, beyond which all are scaled anew."""
_SHORTEST: Final = 1e-30
"""Catalogues of shorter vectors are compared in single precision; scaling them would overflow."""
_HALF_ROUNDING: Final = 2.0**-11
_ADDING_UP: Final = 2.0**-22
"""Bound on the relative error of a sum of products in single precision, per number added up."""

_FORBIDDEN: weakref.WeakKeyDictionary[Selected, dict[torch.device, Tensor]] = weakref.WeakKeyDictionary()
"""What a mask forbids, on the devices where it has been searched with, for as long as the mask."""


def forbidden(mask: BoolArray, device: torch.device) -> Tensor:
    """Return the rows that a mask [items] does not allow, bool [items] on a device; copied there once."""
    kept = _FORBIDDEN.setdefault(selected(mask), {})
    found = kept.get(device)
    if found is None:
        found = kept[device] = torch.from_numpy(~mask).to(device)
    return found


@dataclass(frozen=True)
class _Bars:
    """What the queries of a batch may not be given."""

    masks: list[Tensor]
    """Forbidden rows [rows], of each filter."""
    which: LongArray | None
    """[queries] places among the masks; None where no query has a filter."""
    hidden: Tensor | None
    """[rows] rows that no query is given."""

    def part(self, queries: LongArray | slice) -> _Bars:
        """Return what holds for some of the queries."""
        return self if self.which is None else _Bars(self.masks, self.which[queries], self.hidden)

    def apply(self, scores: Tensor) -> Tensor:
        """Set forbidden scores [queries, rows] to -inf, in place."""
        if self.which is not None:
            if (self.which == self.which[0]).all():
                barred = self.masks[self.which[0]]
            else:
                barred = torch.stack([self.masks[place] for place in self.which.tolist()])
            scores.masked_fill_(barred, -torch.inf)
        if self.hidden is not None:
            scores.masked_fill_(self.hidden, -torch.inf)
        return scores


class DeviceIndex(VectorSearcher):
    """Inner-product search over row-aligned vectors on a device; rows can be overwritten and appended.

    Threads may search at the same time. A row is written while no search is under way, or shows in it.
    """

    def __init__(self, vectors: FloatArray, device: torch.device, room: int = 0) -> None:
        """Copy vectors to a device.

        Args:
            vectors: [rows, dim]; also kept, to be saved.
            device: where to search.
            room: how many rows may be appended.

        """
        self.vectors = vectors
        self.device = device
        self.size = len(vectors)
        """Rows that are searched where no state says otherwise."""
        if device.type == "cuda":  # or sums of parts might be rounded to half precision, beyond the bound
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
        # Length of the longest difference between a scaled vector and what it is rounded to.
        self._rounded = max(rounded, default=0.0)

    def __len__(self) -> int:
        return self.size

    def put(self, rows: IntArray, vectors: FloatArray) -> None:
        """Write rows [rows, dim] in place, within the room; one transfer.

        To be called by the thread that makes lists, or where no search runs at the same time.
        """
        if len(rows) == 0:
            return
        places = torch.from_numpy(rows.astype(np.int64)).to(self.device)
        values = torch.from_numpy(np.array(vectors, dtype=np.float32)).to(self.device)
        self._full.index_copy_(0, places, values)
        scaled = vectors.astype(np.float64) * self._scale
        longest = float(np.linalg.norm(scaled, axis=1).max())
        if longest > _LONGEST:
            self._scale_vectors()
            return
        self._longest = max(self._longest, longest)
        rounded = float(np.linalg.norm(scaled - scaled.astype(np.float16), axis=1).max())
        self._rounded = max(self._rounded, rounded)
        self._half.index_copy_(0, places, (values * self._scale).half())

    def state(self, size: int, shown: BoolArray | None = None) -> DeviceState:
        """Return a state of the index: its first rows, of which `shown` [size] may be found at all."""
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

        The device is waited for once, unless queries have to be compared in single precision.

        Args:
            queries: [queries, dim].
            k: rows per query.
            masks: allowed rows, [size of the state] each; None allows all.
            which: mask of each query, [queries].
            state: which rows there are.

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
            unsure = np.flatnonzero(answers[:, -1] == 0)
            if len(unsure):
                step = max(FULL_SCORES // state.size, 1)

                def again(places: LongArray) -> Tensor:
                    some = searched[torch.from_numpy(places).to(self.device)]
                    return self._full_pass(some, depth, kept, bars.part(places), state.size)

                blocks = np.split(unsure, range(step, len(unsure), step))
                with _single_precision():
                    answers[unsure, :-1] = torch.cat([again(block) for block in blocks]).cpu().numpy()
        found[:, :depth] = answers[:, :depth]
        scores[:, :depth] = answers[:, depth : 2 * depth].view(np.float32)
        return found, scores

    def _bars(self, masks: Sequence[BoolArray | None], which: LongArray, state: DeviceState) -> _Bars:
        hidden = None if state.shown is None else forbidden(state.shown, self.device)
        if all(mask is None for mask in masks):
            return _Bars([], None, hidden)
        nothing = torch.zeros(state.size, dtype=torch.bool, device=self.device)
        barred = [nothing if mask is None else forbidden(mask, self.device) for mask in masks]
        return _Bars(barred, which, hidden)

    def first_pass(self, queries: Tensor, k: int, kept: int, bars: _Bars, size: int) -> Tensor:
        """Search in half precision, order what is found in single precision, and say whether that is exact.

        Args:
            queries: [queries, dim].
            k: rows per query.
            kept: rows that the pass keeps, `k` to `size`.
            bars: what may not be found.
            size: rows to look at.

        Returns:
            int32 [queries, 2 k + 1]: rows, bits of their scores, and 1 where no other row can be better.

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
        error += queries.shape[1] * _ADDING_UP * self._longest + 2.0 * _HALF_ROUNDING * least.abs()
        # Of forbidden rows only those are kept for which there are no others.
        nothing_left = (least == -torch.inf) | (kept == size)
        sure = nothing_left | (scores[:, -1] * (self._scale / lengths[:, 0]) > least + error)
        return torch.cat([best, scores.view(torch.int32), sure[:, None].int()], dim=1)

    def _full_pass(self, queries: Tensor, k: int, kept: int, bars: _Bars, size: int) -> Tensor:
        """Search in single precision; returns int32 [queries, 2 k], see `first_pass`."""
        scores = bars.apply(queries @ self._full[:size].T) + 0.0  # so that -0 is 0
        bits = scores.view(torch.int32)
        rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
        # One number that is larger the better the score, and of equal scores the smaller the row.
        keys = (rising << 32) + torch.arange(size, 0, -1, device=self.device)
        rows = torch.topk(keys, kept, dim=1, sorted=False).indices
        barred = scores.gather(1, rows) == -torch.inf
        best, products = self._ordered(queries, rows, barred, k)
        return torch.cat([best, products.view(torch.int32)], dim=1)

    def _ordered(self, queries: Tensor, rows: Tensor, barred: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Put rows [queries, any] in order of their products in single precision, equals in order of rows.

        Args:
            queries: [queries, dim].
            rows: among which to choose.
            barred: those that do not count.
            k: how many to return.

        Returns:
            int32 rows padded with -1, and products padded with -inf, each [queries, k].

        """
        rows, order = rows.sort(dim=1)
        vectors = self._full[rows]  # [queries, kept, dim]
        # Not a matrix product: that may be less exact than single precision, and depends on the batch.
        products = (vectors * queries[:, None, :]).sum(dim=2)
        products.masked_fill_(barred.gather(1, order), -torch.inf)
        products, order = products.sort(dim=1, descending=True, stable=True)
        products, rows = products[:, :k].contiguous(), rows.gather(1, order[:, :k]).int()
        return rows.masked_fill(products == -torch.inf, -1), products


@dataclass(frozen=True)
class DeviceState(VectorSearcher):
    """An index as of one state of a catalogue."""

    index: DeviceIndex
    size: int
    """Rows of the state; those that came later are not looked at."""
    shown: BoolArray | None = None
    """[size] rows that may be found at all; None: every one."""

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k]; see `VectorSearcher`."""
        return self.index.find(queries, k, [allowed], np.zeros(len(queries), dtype=np.int64), self)

    def search_groups(
        self, queries: FloatArray, groups: Sequence[QueryGroup]
    ) -> list[tuple[IntArray, FloatArray]]:
        """Return what `search` returns for each group, all of them searched at once."""
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
    """Tell whether an index of so many vectors, and searches in it, fit into a device's free memory."""
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return BYTES * rows * width + max(WORKING, _FULL_BYTES * rows) <= free


def _parts(rows: int) -> Iterator[slice]:
    """Return slices of at most `_UPLOAD` rows."""
    return (slice(start, min(start + _UPLOAD, rows)) for start in range(0, rows, _UPLOAD))


@contextmanager
def _single_precision() -> Iterator[None]:
    """Have matrix products of single-precision numbers exact to single precision (no TF32) in the block."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
