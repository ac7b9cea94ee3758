"""The interface of every vector index over a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray


@dataclass(frozen=True)
class QueryGroup:
    """Queries of a batch that share a filter."""

    members: LongArray
    """Their positions in the batch."""
    k: int
    """Rows per query."""
    allowed: BoolArray | None
    """[items] mask; None allows all."""
    expression: str = ""
    """A filter that every allowed row passes, in the project's language; the mask alone decides."""


class VectorSearcher(Protocol):
    """Maximum inner product search over row-aligned vectors."""

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k], padded with -1 and -inf.

        Args:
            queries: [queries, dim].
            k: rows per query.
            allowed: [items] mask; rows outside are not considered, inside the search and not after it.

        """

    def search_groups(
        self, queries: FloatArray, groups: Sequence[QueryGroup]
    ) -> list[tuple[IntArray, FloatArray]]:
        """Return what `search` returns for the queries of each group, [members, k of the group] each.

        Args:
            queries: [queries, dim].
            groups: which of them to search with, and how.

        """
        return [self.search(queries[group.members], group.k, group.allowed) for group in groups]
