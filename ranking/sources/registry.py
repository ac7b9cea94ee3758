"""The registry of candidate sources, where a source is added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from conf.schema import CandidateConfig, quota_names
from features.candidates.features import Candidates
from features.data.dataset import FloatArray
from ranking.retrieval.fusion import merge
from ranking.retrieval.unavailable import SearchUnavailableError, missed
from ranking.sources.co_purchase import CoPurchase
from ranking.sources.contract import CandidateSource, Proposal, SourceRequest
from ranking.sources.intent import Intent
from ranking.sources.neighbours import ItemToItem, TextNeighbours
from ranking.sources.new_items import NewItems
from ranking.sources.popular import Popular
from ranking.sources.repeat import Repeat
from ranking.sources.user_vector import UserVector

MAX_SOURCES: Final = 15
"""Most sources: the bits of a candidate's source mask but its sign."""


@dataclass(frozen=True)
class SourceRegistry:
    """Candidate sources, in the order of their bits in a source mask."""

    sources: tuple[CandidateSource, ...]

    def __post_init__(self) -> None:
        """Check that names are unique and quotas exist.

        Raises:
            ValueError: naming the source and what is wrong with it.

        """
        names = [source.name for source in self.sources]
        if len(names) > MAX_SOURCES:
            raise ValueError(f"{len(names)} candidate sources, at most {MAX_SOURCES} are possible")
        for source in self.sources:
            if names.count(source.name) > 1:
                raise ValueError(f"several candidate sources are called {source.name!r}")
            if isinstance(source.quota, str) and source.quota not in quota_names():
                known = ", ".join(quota_names())
                raise ValueError(f"source {source.name!r}: no quota is called {source.quota!r}, only {known}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the sources, in order."""
        return tuple(source.name for source in self.sources)

    @cached_property
    def personal(self) -> frozenset[str]:
        """Names of the sources that depend on the user's history."""
        return frozenset(source.name for source in self.sources if source.personal)

    def with_source(self, source: CandidateSource) -> SourceRegistry:
        """Return a registry with one more source, the last."""
        return SourceRegistry((*self.sources, source))

    def propose(self, request: SourceRequest) -> dict[str, Proposal]:
        """Return what every source with a quota proposes, by name.

        A source whose search another program did not answer is left out, see `retrieval.unavailable.missed`.
        """
        proposals = {}
        for source in self.sources:
            quota = quota_of(source, request.config)
            try:
                proposal = source.propose(request, quota) if quota else None
            except SearchUnavailableError as error:
                missed(source.name, error)
                continue
            if proposal is not None:
                proposals[source.name] = proposal
        return proposals

    def merge(self, proposals: Mapping[str, Proposal], queries: int) -> Candidates:
        """Fuse proposals into candidates, each with the mask of its sources."""
        bits = {name: bit for bit, name in enumerate(self.names)}
        return merge([(bits[name], proposal.rows) for name, proposal in proposals.items()], queries)

    def proposed_by(self, mask: int) -> tuple[str, ...]:
        """Return the names of the sources in a source mask, in order; the first one is credited."""
        found = self._by_mask.get(mask)
        if found is None:
            found = tuple(name for bit, name in enumerate(self.names) if mask >> bit & 1)
            self._by_mask[mask] = found
        return found

    @cached_property
    def _by_mask(self) -> dict[int, tuple[str, ...]]:
        """Cache of `proposed_by`, called for every item of every list."""
        return {}


def quota_of(source: CandidateSource, config: CandidateConfig) -> int:
    """Return the quota of a source: most candidates per query; 0 switches it off."""
    return source.quota if isinstance(source.quota, int) else config.quota(source.quota)


def best_score(proposals: Mapping[str, Proposal], name: str, queries: int) -> FloatArray:
    """Return a source's best score of each query, [queries]; 0 without a proposal."""
    best = proposals[name].best if name in proposals else None
    return np.zeros(queries, dtype=np.float32) if best is None else best


SOURCES: Final = SourceRegistry(
    (
        UserVector(),
        ItemToItem(),
        TextNeighbours(),
        Repeat(),
        Popular(),
        Intent(),
        CoPurchase(),
        NewItems(),
    )
)
"""In the order of the `source_NAME` columns of published ranking heads: a new source goes last."""
