"""Neighbours of the newest items of a history, by co-occurrence or by text."""

from __future__ import annotations

from features.data.dataset import IntArray
from features.data.statistics import Neighbours
from ranking.kernels.topk import NeighbourWeights, best_sums
from ranking.sources.contract import CandidateSource, Proposal, SourceRequest


def _strongest(request: SourceRequest, near: Neighbours, quota: int) -> IntArray:
    """Return the strongest neighbours of the histories' newest items, [queries, quota] padded with -1."""
    batch, limits = request.batch, request.limits
    weights = NeighbourWeights(
        batch.items, batch.offsets, request.config.recent_items, 1.0, near.ids, near.weights
    )
    return best_sums(weights, quota, *limits.bits, limits.excluded, request.items)


class ItemToItem(CandidateSource):
    """Co-occurrence neighbours of the newest items in other histories, damped for popularity."""

    name = "item_to_item"
    quota = "item_to_item"
    personal = True

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        """Add up the co-occurrence neighbours of the newest items."""
        return Proposal(_strongest(request, request.arrays.statistics.together, quota))


class TextNeighbours(CandidateSource):
    """Items whose texts are similar to the newest items' texts."""

    name = "text_neighbours"
    quota = "text_neighbours"
    personal = True

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        """Add up the text neighbours of the newest items."""
        return Proposal(_strongest(request, request.arrays.text_near, quota))
