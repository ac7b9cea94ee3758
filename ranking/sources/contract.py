"""What a candidate source is given, what it returns, and the Protocol that it implements."""

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
    """A batch of queries, and what is known of the items."""

    batch: HistoryBatch
    """The histories, one per query."""
    users: UserVectors
    """Vectors of the histories."""
    limits: Limits
    """What may be proposed; a source proposes nothing else."""
    intents: Sequence[TextQuery | None] | None
    """What is looked for in words, per query; None where no query of the batch says anything."""
    arrays: ItemArrays
    """What is known of every item, by row."""
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
    """What one source proposes for a batch."""

    rows: IntArray
    """Best first, each once per query, padded with -1, [queries, at most the quota]."""
    best: FloatArray | None = None
    """The best score in the catalogue, of sources whose score is a feature of the ranking head; 0 where a
    query finds nothing, [queries]."""


class CandidateSource(Protocol):
    """Proposes candidates for a batch of queries; stateless, one object for all requests."""

    name: str
    """Lower case with underscores; in answers, reports and the column `source_NAME` of the ranking head."""
    quota: str | int
    """Most candidates per query: name of a setting in `conf.schema.CandidateConfig`, or a fixed number."""
    personal: bool = False
    """Whether it chooses by the shopper's history, so that an item may be explained by "for you"."""

    def propose(self, request: SourceRequest, quota: int) -> Proposal | None:
        """Return the candidates of every query.

        Args:
            request: the batch.
            quota: most rows per query, 1 or more.

        Returns:
            None where the model, or the kind of request, gives nothing to propose from.

        """
