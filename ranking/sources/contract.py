"""The Protocol of a candidate source, its input and its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from conf.schema import CandidateConfig
from features.candidates.features import ItemArrays, UserVectors
from features.data.dataset import FloatArray, IntArray
from features.data.histories import HistoryBatch
from ranking.retrieval.limits import Limits
from ranking.retrieval.source_indexes import SourceIndexes
from ranking.words.text_match import TextMatch, TextQuery


@dataclass(frozen=True)
class SourceRequest:
    """A batch of queries, and the item-side data to search."""

    batch: HistoryBatch
    """The histories, one per query."""
    users: UserVectors
    """Vectors of the histories."""
    limits: Limits
    """Rows that may be proposed; a source proposes no others."""
    intents: Sequence[TextQuery | None] | None
    """Text query of each query; None where no query of the batch has one."""
    arrays: ItemArrays
    """Item-side arrays, by row."""
    indexes: SourceIndexes
    texts: TextMatch
    config: CandidateConfig

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def items(self) -> int:
        """Catalogue size."""
        return len(self.arrays.statistics.count)


class Proposal(NamedTuple):
    """The candidates of one source for a batch."""

    rows: IntArray
    """Best first, each once per query, padded with -1, [queries, at most the quota]."""
    best: FloatArray | None = None
    """Best score of each query, [queries], 0 where nothing is found; only of sources whose score is a feature
    of the ranking head."""


class CandidateSource(Protocol):
    """Proposes candidates for a batch of queries; stateless, one object for all requests."""

    name: str
    """Lower case with underscores; in answers, reports and the column `source_NAME` of the ranking head."""
    quota: str | int
    """Most candidates per query: name of a setting in `conf.schema.CandidateConfig`, or a fixed number."""
    personal: bool = False
    """Whether it depends on the user's history, so that an item may be explained by "for you"."""

    def propose(self, request: SourceRequest, quota: int) -> Proposal | None:
        """Return the candidates of every query.

        Args:
            request: the batch.
            quota: most rows per query, 1 or more.

        Returns:
            None where the model or the request has no input for this source.

        """
