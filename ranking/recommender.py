"""The Recommender: retrieve, filter, rank, re-rank. Pure: arrays in, lists out, no I/O and no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from conf.schema import CandidateConfig, IndexConfig
from encoders.affinity import Affinity
from encoders.factors import Factors
from encoders.sequences import SequenceBatch
from encoders.towers import Towers
from features.candidates import (
    Candidates,
    ItemArrays,
    UserVectors,
    affinity_profiles,
    candidate_features,
    recency_weights,
)
from features.dataset import BoolArray, FloatArray, IntArray
from features.histories import HistoryBatch, batch_histories
from ranking.assemble import unit
from ranking.explain import explain
from ranking.index import Searches, VectorIndex
from ranking.ranker import Ranker
from ranking.requests import Recommendation, Recommended, Request
from ranking.rerank import diversify
from ranking.sources import CandidateSources, Limits, banned_keys, merge, sources_of
from ranking.timing import timed

BLOCK = 256
"""Queries scored together; bounds the memory of candidate features."""


@dataclass(frozen=True)
class Ranked:
    """Candidates of a batch after the ranking head; everything [queries, candidates] unless said."""

    proposals: dict[str, IntArray]  # per source [queries, quota]
    candidates: Candidates
    scores: FloatArray  # -inf at padding
    probabilities: FloatArray  # [queries, candidates, 2] P(click), P(purchase); NaN without a ranking head


class Recommender:
    """Makes lists from histories with one bundle's arrays and models."""

    def __init__(
        self,
        arrays: ItemArrays,
        index: Searches,
        text_vectors: FloatArray,
        config: CandidateConfig,
        click_kinds: npt.NDArray[np.bool_],
        towers: Towers | None = None,
        ranker: Ranker | None = None,
        factors: Factors | None = None,
        affinity: Affinity | None = None,
        text_index: Searches | None = None,
        sources: CandidateSources | None = None,
        hidden: BoolArray | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            arrays: item-side inputs of the candidate features.
            index: index over `arrays.item_vectors`.
            text_vectors: unit text vectors [items, text dim]; the space of `similar` and of intents.
            config: quotas of the candidate sources.
            click_kinds: [kinds] True for kinds weaker than a purchase.
            towers: trained towers; None compares text vectors instead (a shop without history).
            ranker: trained ranking head; None keeps the fused order of the sources.
            factors: co-purchase factors; None where no event is known.
            affinity: what made `arrays.affinity_units`; None where they have no columns.
            text_index: index over `text_vectors`; None builds one.
            sources: candidate sources over the same arrays; None prepares them.
            hidden: [items] mask of rows that must never appear; `index`, `text_index` and `sources` leave
                them out too.

        """
        self.arrays = arrays
        self.index = index
        self.text_vectors = text_vectors
        self.config = config
        self.click_kinds = click_kinds
        self.towers = towers
        self.ranker = ranker
        self.factors = factors
        self.affinity = affinity
        self.hidden = hidden
        self.sources = sources or CandidateSources(index, arrays, config)
        # Without towers the retrieval index already holds the text vectors.
        if text_index is None:
            text_index = index if towers is None else VectorIndex.build(text_vectors, IndexConfig(gpu=False))
        self.text_index = text_index
        self._vectors = torch.from_numpy(arrays.item_vectors)

    @property
    def items(self) -> int:
        """Catalogue size."""
        return len(self.text_vectors)

    @torch.inference_mode()
    def user_vectors(self, batch: HistoryBatch) -> FloatArray:
        """Return a vector per history, [queries, dim]; zero where the history is empty."""
        vectors = np.zeros((len(batch), self.arrays.item_vectors.shape[1]), dtype=np.float32)
        sizes = np.diff(batch.offsets)
        filled = np.flatnonzero(sizes > 0)
        if len(filled) == 0:
            return vectors
        if self.towers is None:
            recent = batch.newest(self.config.recent_items)
            np.add.at(
                vectors,
                recent.owners(),
                self.arrays.item_vectors[recent.items] * recency_weights(recent)[:, None],
            )
            return unit(vectors)
        # The width is the tower's own, not the batch's longest: arithmetic does not depend on the neighbours.
        length = self.towers.max_length
        recent = batch.newest(length)
        valid = np.arange(length) >= (length - np.diff(recent.offsets))[:, None]
        first = recent.times[np.minimum(recent.offsets[:-1], max(len(recent.times) - 1, 0))]

        def place(
            values: npt.NDArray[np.integer], padding: npt.NDArray[np.integer] | int = 0
        ) -> torch.Tensor:
            block = np.broadcast_to(np.asarray(padding, dtype=np.int64).reshape(-1, 1), valid.shape).copy()
            block[valid] = values
            return torch.from_numpy(block[filled])

        sequences = SequenceBatch(
            place(recent.items),
            place(recent.kinds),
            place(recent.times, first),
            torch.from_numpy(valid[filled]),
        )
        vectors[filled] = self.towers.user_vectors(sequences, self._vectors).numpy()
        return vectors

    def encode(self, batch: HistoryBatch) -> UserVectors:
        """Return what the sources that search by vector are asked with."""
        none = np.zeros((len(batch), 0), dtype=np.float32)
        return UserVectors(
            self.user_vectors(batch),
            none if self.factors is None else self.factors.users(batch),
            affinity_profiles(batch, self.arrays.affinity_units),
        )

    def retrieve(
        self,
        batch: HistoryBatch,
        limits: Limits,
        users: UserVectors,
        intents: FloatArray | None = None,
        sources: CandidateSources | None = None,
    ) -> tuple[Candidates, dict[str, IntArray], FloatArray]:
        """Return merged candidates, the sources' proposals, best scores by tower and factors [queries, 2]."""
        sources = sources or self.sources
        proposals, best = sources.propose(batch, users, limits, intents, self.text_index)
        return merge(proposals, len(batch)), proposals, best

    def features(
        self, batch: HistoryBatch, candidates: Candidates, users: UserVectors, best: FloatArray
    ) -> FloatArray:
        """Return the candidate features, float32 [queries, candidates, features]."""
        return candidate_features(batch, candidates, self.arrays, users, best, self.click_kinds)

    def rank(
        self,
        batch: HistoryBatch,
        limits: Limits,
        intents: FloatArray | None = None,
        sources: CandidateSources | None = None,
    ) -> Ranked:
        """Retrieve and score the candidates of a batch; `sources` stands in for the usual ones."""
        with timed("user_encoding"):
            users = self.encode(batch)
        with timed("candidates"):
            candidates, proposals, best = self.retrieve(batch, limits, users, intents, sources)
        padding = candidates.rows < 0
        if self.ranker is None or candidates.rows.shape[1] == 0:
            scores = candidates.fused.copy()
            probabilities = np.full((*scores.shape, 2), np.nan, dtype=np.float32)
        else:
            with timed("features"):
                features = self.features(batch, candidates, users, best)
            with timed("ranking"):
                scores, probabilities = self.ranker.score(features)
            scores = np.round(scores, 4)  # what BLAS rounds by batch size must not order equal items
        return Ranked(
            proposals, candidates, np.where(padding, -np.inf, scores).astype(np.float32), probabilities
        )

    def histories(self, requests: Sequence[Request]) -> HistoryBatch:
        """Put the requests' histories together."""
        # An event of a kind that the model does not know counts as the weakest that it knows.
        weakest = max(len(self.click_kinds), 1) - 1
        return batch_histories(
            [r.history.items for r in requests],
            [np.where(r.history.kinds < 0, weakest, np.minimum(r.history.kinds, weakest)) for r in requests],
            [r.history.times for r in requests],
            [r.now for r in requests],
        )

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Make a list for every request; a request's list does not depend on the others beside it."""
        answers: list[Recommendation | None] = [None] * len(requests)
        usual = [i for i, r in enumerate(requests) if r.k <= self.config.popular]
        for start in range(0, len(usual), BLOCK):
            chosen = usual[start : start + BLOCK]
            for i, answer in zip(chosen, self._block([requests[i] for i in chosen]), strict=True):
                answers[i] = answer
        for i, request in enumerate(requests):
            if request.k > self.config.popular:
                # A list longer than any source is filled from as much of the popularity order as it takes.
                deep = replace(self.config, popular=min(request.k, self.items))
                answers[i] = self._block([request], self.sources.with_quotas(deep))[0]
        return [a for a in answers if a is not None]

    def _block(
        self, requests: list[Request], sources: CandidateSources | None = None
    ) -> list[Recommendation]:
        batch = self.histories(requests)
        limits = Limits(
            banned_keys(batch, [r.exclude for r in requests], [r.exclude_seen for r in requests], self.items),
            [r.allowed for r in requests],
            self.hidden,
        )
        intents = None
        if any(r.intent is not None for r in requests):
            intents = np.zeros((len(requests), self.text_vectors.shape[1]), dtype=np.float32)
            for query, request in enumerate(requests):
                if request.intent is not None:
                    intents[query] = request.intent
        ranked = self.rank(batch, limits, intents, sources)
        with timed("rerank"):
            return [self._answer(request, ranked, query) for query, request in enumerate(requests)]

    def _answer(self, request: Request, ranked: Ranked, query: int) -> Recommendation:
        rows, scores = ranked.candidates.rows[query], ranked.scores[query]
        real = int((rows >= 0).sum())
        order = np.lexsort((rows, -scores))[:real]
        if request.diversity > 0:
            order = order[
                diversify(scores[order], self.arrays.text_units[rows[order]], request.diversity, request.k)
            ]
        items = []
        for place in order[: request.k]:
            mask = int(ranked.candidates.sources[query, place])
            row = int(rows[place])
            reasons = explain(row, mask, request.history, self.arrays) if request.explain else ()
            click, purchase = ranked.probabilities[query, place]
            items.append(
                Recommended(
                    row, float(scores[place]), float(click), float(purchase), sources_of(mask)[0], reasons
                )
            )
        return Recommendation(tuple(items), self._degradation(request))

    def _degradation(self, request: Request) -> str:
        if len(request.history.items) == 0 and request.intent is None:
            return "popularity"
        return "text_only" if self.towers is None else "none"

    def observe_popularity(self, counts: FloatArray) -> None:
        """Order popular items by event counts [items] from now on.

        For a shop whose bundle has seen no event; the order is replaced in one step, so lists being made are
        not disturbed.
        """
        self.sources.by_popularity = np.argsort(-counts, kind="stable").astype(np.int32)

    def similar(
        self, vectors: FloatArray, k: int, exclude: IntArray, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the items whose texts are nearest to unit vectors [queries, text dim].

        Returns:
            Rows [queries, k] padded with -1 and cosines [queries, k].

        """
        rows, cosines = self.text_index.search(vectors, k + len(exclude), allowed)
        dropped = np.isin(rows, exclude) | (rows < 0)
        order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(dropped, order, axis=1)
        found = np.where(kept, -1, np.take_along_axis(rows, order, axis=1)).astype(np.int32)
        return found, np.where(kept, -np.inf, np.take_along_axis(cosines, order, axis=1)).astype(np.float32)
