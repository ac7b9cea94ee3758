"""A searcher over one vector field of a collection.

Milvus proposes rows; this process decides. Every proposed row is checked against the masks of the search, and
scored by the newest vector, which the features of the ranking head need in memory anyway. Rows that changed a
moment ago are searched here. A filter of which little passes, and one that Milvus does not test and that
leaves too little of what it proposes, is searched exactly here: so no filter is ever obeyed in part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from ranking.kernels.topk import best_products
from ranking.milvus.collection import MOST_ROWS, Answers, Collection, RefusedError, VectorQuery
from ranking.milvus.pending import Pending
from ranking.retrieval.exact import exact_among, no_results
from ranking.retrieval.faiss_index import EXACT_BUDGET, SELECTIVE_SHARE
from ranking.retrieval.faiss_masks import selected
from ranking.retrieval.searcher import QueryGroup, VectorSearcher
from ranking.retrieval.unavailable import SearchUnavailableError

SPARE: Final = 32
"""Extra rows fetched in place of those that the masks leave out."""
DEEPEST_UNTESTED: Final = 2048
"""Most rows fetched per query under a mask that Milvus is not given; beyond, an exact search is cheaper."""


@dataclass(frozen=True)
class MilvusIndex(VectorSearcher):
    """One snapshot of a catalogue, searched by one vector field."""

    collection: Collection
    field_name: str
    vectors: FloatArray
    """[items, dim] the newest vectors of the snapshot's rows."""
    find: Callable[[Sequence[str]], Sequence[int | None]]
    """Row of each item id; None for an item that is not in the snapshot."""
    pending: Pending = field(default_factory=Pending)
    """Rows whose newest state Milvus has not confirmed."""
    hidden: BoolArray | None = None
    """[items] rows that must not appear."""
    only: str = ""
    """Milvus expression of the rows to search, all of them where it is empty; `hidden` has all others."""
    translate: Callable[[str], str] | None = None
    """A filter as a Milvus expression, see `ranking.milvus.expressions.translate`."""
    in_process: bool = False
    """Whether searches are exact and in this process while Milvus is away, instead of failing."""

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def exact(self) -> bool:
        """Whether a search compares a query with all allowed vectors."""
        return False

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k]; see `VectorSearcher`.

        Raises:
            SearchUnavailableError: Milvus did not answer.

        """
        [found] = self.search_groups(queries, [QueryGroup(np.arange(len(queries)), k, allowed)])
        return found

    def search_groups(
        self, queries: FloatArray, groups: Sequence[QueryGroup]
    ) -> list[tuple[IntArray, FloatArray]]:
        """Return what `search` returns for each group; all groups are sent to Milvus at a time.

        Raises:
            SearchUnavailableError: Milvus did not answer.

        """
        found: list[tuple[IntArray, FloatArray]] = []
        asked: list[int] = []
        for position, group in enumerate(groups):
            near = self._near(queries[group.members], group)
            found.append(near or no_results(len(group.members), group.k))
            if near is None:
                asked.append(position)
        try:
            for position, answer in zip(
                asked, self._ask(queries, [groups[position] for position in asked]), strict=True
            ):
                found[position] = answer
        except SearchUnavailableError:
            if not self.in_process:
                raise
            for position in asked:
                group = groups[position]
                found[position] = self._exactly(queries[group.members], group)
        return found

    def _near(self, queries: FloatArray, group: QueryGroup) -> tuple[IntArray, FloatArray] | None:
        """Return the result of a group that needs no Milvus; None for any other."""
        if group.k == 0 or len(queries) == 0 or len(self) == 0:
            return no_results(len(queries), group.k)
        count = len(self) if group.allowed is None else selected(group.allowed).count
        if self.only and self.hidden is not None:
            count = min(count, len(self) - int(np.count_nonzero(self.hidden)))
        narrow = count < SELECTIVE_SHARE * len(self) or count <= SPARE
        if narrow and count * self.vectors.shape[1] <= EXACT_BUDGET:
            return self._exactly(queries, group)
        untested = group.allowed is not None and not self._expression(group)
        if untested and _untested_depth(group.k, count, len(self)) > DEEPEST_UNTESTED:
            return self._exactly(queries, group)
        return None

    def _exactly(self, queries: FloatArray, group: QueryGroup) -> tuple[IntArray, FloatArray]:
        return exact_among(self.vectors, queries, group.k, np.flatnonzero(self._visible(group.allowed)))

    def _visible(self, allowed: BoolArray | None) -> BoolArray:
        """Return the rows that may be returned, [items]."""
        visible: BoolArray = np.ones(len(self), dtype=np.bool_) if allowed is None else allowed
        return visible if self.hidden is None else visible & ~self.hidden

    def _expression(self, group: QueryGroup) -> str:
        if self.translate is None or not group.expression:
            return ""
        made = self.translate(group.expression)
        return "" if made in self.collection.refused else made

    def _ask(self, queries: FloatArray, groups: Sequence[QueryGroup]) -> list[tuple[IntArray, FloatArray]]:
        """Return the results of groups by Milvus; filters that it refuses are left to the masks from then on.

        Raises:
            SearchUnavailableError: Milvus did not answer, or refuses every search.

        """
        try:
            return self._asked(queries, groups)
        except RefusedError as error:
            expressions = {made for group in groups if (made := self._expression(group))}
            refused = {made for made in sorted(expressions) if self._refuses(queries, made)}
            if not refused:
                raise self.collection.unusable(error) from error
        self.collection.refuse(refused)
        return self._ask(queries, groups)  # with fewer expressions each time

    def _refuses(self, queries: FloatArray, expression: str) -> bool:
        with_it, without = (
            VectorQuery(self.field_name, queries[:1], 1, _joined(self.only, made))
            for made in (expression, "")
        )
        return self.collection.refuses([with_it], [without])

    def _asked(self, queries: FloatArray, groups: Sequence[QueryGroup]) -> list[tuple[IntArray, FloatArray]]:
        """Return the results of groups by Milvus.

        Raises:
            RefusedError: it refuses an expression, or every search.
            SearchUnavailableError: it did not answer.

        """
        later = self.pending.rows  # before the search: a row that is confirmed meanwhile is searched here
        later = later[later < len(self)]
        made: list[tuple[IntArray, FloatArray] | None] = [None] * len(groups)
        expressions = [self._expression(group) for group in groups]
        depths = [
            min(self._depth(group, expression), MOST_ROWS, len(self) + SPARE)
            for group, expression in zip(groups, expressions, strict=True)
        ]
        members = [group.members for group in groups]
        open_groups = list(range(len(groups)))
        while open_groups:
            asked = [
                VectorQuery(
                    self.field_name, queries[members[g]], depths[g], _joined(self.only, expressions[g])
                )
                for g in open_groups
            ]
            answers: Answers = self.collection.search(asked)
            again = []
            for g, answer in zip(open_groups, answers, strict=True):
                group = groups[g]
                rows = self._rows(answer, later, group.allowed)
                found, scores = best_products(queries[members[g]], self.vectors, rows, group.k)
                result = made[g]
                if result is None:
                    result = made[g] = no_results(len(group.members), group.k)
                places = np.searchsorted(group.members, members[g])
                result[0][places], result[1][places] = found, scores
                short = self._short(found, group)
                if len(short) == 0:
                    continue
                full = np.array([len(ids) >= depths[g] for ids, _ in answer])[short]
                if depths[g] < min(MOST_ROWS, len(self)) and full.all():
                    members[g], depths[g] = members[g][short], min(8 * depths[g], MOST_ROWS)
                    again.append(g)
                else:
                    # Milvus has no more of them, or an approximate search has ended early.
                    one = QueryGroup(members[g][short], group.k, group.allowed)
                    found, scores = self._exactly(queries[one.members], one)
                    result[0][places[short]], result[1][places[short]] = found, scores
            open_groups = again
        return [result if result is not None else no_results(0, 0) for result in made]

    def _depth(self, group: QueryGroup, expression: str) -> int:
        """Return how many rows to fetch per query."""
        depth = group.k + (SPARE if self.hidden is not None or len(self.pending.rows) else 0)
        if group.allowed is not None and not expression:
            return _untested_depth(depth, selected(group.allowed).count, len(self))
        return depth

    def _rows(
        self,
        answer: Sequence[tuple[Sequence[str], Sequence[float]]],
        later: IntArray,
        allowed: BoolArray | None,
    ) -> LongArray:
        """Return the permitted rows of an answer, and the pending ones, unique, [queries, any]."""
        width = max((len(ids) for ids, _ in answer), default=0)
        rows = np.full((len(answer), width + len(later)), -1, dtype=np.int64)
        for query, (ids, _) in enumerate(answer):
            rows[query, : len(ids)] = [-1 if row is None else row for row in self.find(ids)]
        found = rows[:, :width]
        if len(later):
            place = np.minimum(np.searchsorted(later, found), len(later) - 1)
            found[later[place] == found] = -1
            rows[:, width:] = later
        clipped = np.maximum(rows, 0)
        permitted = rows >= 0
        if allowed is not None:
            permitted &= allowed[clipped]
        if self.hidden is not None:
            permitted &= ~self.hidden[clipped]
        return np.where(permitted, rows, -1)

    def _short(self, found: IntArray, group: QueryGroup) -> LongArray:
        """Return the queries with fewer rows than there are, [any]."""
        if len(found) == 0 or (found[:, -1] >= 0).all():
            return np.zeros(0, dtype=np.int64)
        expected = min(group.k, int(np.count_nonzero(self._visible(group.allowed))))
        return np.flatnonzero((found >= 0).sum(axis=1) < expected)


def _joined(*expressions: str) -> str:
    """Return the expression that demands all of some, those that are empty left out."""
    parts = [expression for expression in expressions if expression]
    return parts[0] if len(parts) == 1 else " and ".join(f"({part})" for part in parts)


def _untested_depth(k: int, count: int, items: int) -> int:
    """Return how many rows hold k of a random part of the catalogue, with a margin of a half."""
    return min(int(1.5 * k * items / max(count, 1)) + SPARE, items + SPARE)
