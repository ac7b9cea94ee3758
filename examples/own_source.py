"""A custom candidate source, tried on a finished run before a model is trained with it.

    python examples/own_source.py work/own

proposes the best-selling items of the category of a shopper's newest item, and prints how many of its
candidates no other source proposed. To keep it, put the class into a module of `ranking/sources/`, add a line
to its registry, and train again: the ranking head gets a column for every source.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from features.data.dataset import IntArray, load_dataset
from features.data.histories import HistoryBatch
from ranking.bundle.bundle import load_bundle
from ranking.retrieval.limits import Limits
from ranking.retrieval.nearest import most_popular
from ranking.sources import SOURCES, CandidateSource, Proposal, SourceRequest


class SameCategory(CandidateSource):
    """Best-selling items of the newest item's category."""

    name = "same_category"
    quota = 20
    personal = True

    def __init__(self, categories: IntArray) -> None:
        """Take a category number per item, [items]."""
        self.categories = categories

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        """Return rows [queries, quota], padded with -1; none for a shopper without history."""
        batch, order = request.batch, request.indexes.by_popularity
        rows = np.full((len(request), quota), -1, dtype=np.int32)
        known = np.flatnonzero(np.diff(batch.offsets))
        newest = self.categories[batch.items[batch.offsets[known + 1] - 1]]
        for category in np.unique(newest):
            queries = known[newest == category]
            best = order[self.categories[order] == category]
            rows[queries] = most_popular(best, quota, request.limits, request.items)[queries]
        return Proposal(rows)


def main() -> None:
    """Add the source to a finished run and print the number of candidates of each source."""
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/own_source.py WORK_DIR")
    folder = Path(sys.argv[1])
    recommender = load_bundle(folder / "artifacts").recommender
    dataset = load_dataset(folder / "dataset")
    names, categories = np.unique(dataset.catalogue.frame["category"].to_numpy(), return_inverse=True)
    recommender.sources = SOURCES.with_source(SameCategory(categories.astype(np.int32)))
    events, now = dataset.events, int(dataset.events.time.max()) + 1
    times = np.full(events.users, now)
    batch = HistoryBatch(events.offsets, events.item, events.kind, events.time, times)
    limits = Limits(np.zeros(0, np.int64), [None] * len(batch))
    candidates, proposals, _ = recommender.retrieve(batch, limits, recommender.encode(batch))
    own = [recommender.sources.proposed_by(int(mask)) for mask in candidates.sources[candidates.rows >= 0]]
    proposed = sum(SameCategory.name in sources for sources in own)
    alone = sum(sources == (SameCategory.name,) for sources in own)
    print(f"{len(names)} categories, {len(batch)} shoppers")
    for name, proposal in proposals.items():
        print(f"{name:<16} {(proposal >= 0).sum(axis=1).mean():6.1f} candidates a shopper")
    print(f"{proposed} candidates of {SameCategory.name}, {alone} of them proposed by no other source")


if __name__ == "__main__":
    main()
