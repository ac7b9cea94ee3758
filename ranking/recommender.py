"""The Recommender: filter, sources, score, re-rank, explain. Arrays in, lists out, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from conf.schema import CandidateConfig
from encoders.factors.affinity import Affinity
from encoders.factors.co_purchase import Factors
from encoders.towers.towers import Towers
from features.candidates.features import (
    Candidates,
    FeatureLayout,
    ItemArrays,
    UserVectors,
    affinity_profiles,
    candidate_features,
    recency_weights,
)
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.histories import HistoryBatch, batch_histories
from ranking.answers import explain_lists
from ranking.assembly import unit
from ranking.filtering import filter_requests
from ranking.reasons import Evidence
from ranking.rerank.rules import Pin, with_pins
from ranking.rerank.slate import Slate, best_slate, fill_slate
from ranking.retrieval.index_choice import build_index
from ranking.retrieval.limits import Limits
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.source_indexes import SourceIndexes
from ranking.retrieval.unavailable import collecting_missed
from ranking.scoring.intent import with_intent
from ranking.scoring.novelty import Novelty
from ranking.scoring.ranker import Ranker
from ranking.sources import SOURCES, SourceRegistry, SourceRequest, best_score
from ranking.stage_timing import timed
from ranking.stages import Ranked, Retrieved, Stages, Watch
from ranking.types import Recommendation, Request
from ranking.words.live_words import LiveWords
from ranking.words.text_match import ChanceSimilarity, TextMatch, TextQuery

BLOCK = 256
"""Queries scored together; bounds the memory of candidate features."""
REFILLS = 8
"""Rounds of further retrieval for a list that caps have left too short."""


@dataclass(frozen=True)
class _Draft:
    """A list that further retrieval may extend."""

    answer: Recommendation
    capped: bool
    """Whether caps have left it too short."""


class Recommender:
    """Makes lists from histories with one bundle's arrays and models."""

    def __init__(
        self,
        arrays: ItemArrays,
        index: VectorSearcher,
        text_vectors: FloatArray,
        config: CandidateConfig,
        click_kinds: npt.NDArray[np.bool_],
        towers: Towers | None = None,
        ranker: Ranker | None = None,
        factors: Factors | None = None,
        affinity: Affinity | None = None,
        text_index: VectorSearcher | None = None,
        indexes: SourceIndexes | None = None,
        hidden: BoolArray | None = None,
        words: LiveWords | None = None,
        chance_similarity: ChanceSimilarity | None = None,
        kinds: Sequence[str] | None = None,
        novelty: Novelty | None = None,
        novelty_budget: float = 0.0,
        untrained: BoolArray | None = None,
        sources: SourceRegistry = SOURCES,
    ) -> None:
        """Wire up a model.

        Args:
            arrays: item-side inputs of the candidate features.
            index: index over `arrays.item_vectors`.
            text_vectors: unit text vectors [items, text dim], searched by `similar` and intents.
            config: quotas of the candidate sources.
            click_kinds: [kinds] True for kinds weaker than a purchase.
            towers: trained towers; None compares text vectors instead (a shop without history).
            ranker: trained ranking head; None keeps the fused order of the sources.
            factors: co-purchase factors; None where no event is known.
            affinity: the model behind `arrays.affinity_units`; None where they have no columns.
            text_index: index over `text_vectors`; None builds one.
            indexes: the candidate sources' indexes over the same arrays; None builds them.
            hidden: [items] mask of rows that must never appear; `index`, `text_index` and `indexes` leave
                them out too.
            words: lexical index of the items; None matches texts by embedding alone.
            chance_similarity: of texts; None computes it when it is first needed.
            kinds: names of the event kinds, for reasons; None names them view and purchase.
            novelty: score offsets of items without events; None for none.
            novelty_budget: default budget, see `ranking.scoring.novelty`; 0 adds nothing.
            untrained: [items] mask of items without training events; None: those without events now.
            sources: the candidate sources.

        """
        self.sources = sources
        self.layout = FeatureLayout(sources.names, arrays.statistics.attributes.shape[1])
        self.novelty = novelty
        self.novelty_budget = novelty_budget
        self.untrained = arrays.statistics.count == 0 if untrained is None else untrained
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
        self.indexes = indexes or SourceIndexes.build(index, arrays)
        # Without towers the retrieval index already holds the text vectors.
        if text_index is None:
            text_index = index if towers is None else build_index(text_vectors)
        self.text_index = text_index
        self.kinds = kinds or ["view" if click else "purchase" for click in click_kinds]
        self.texts = TextMatch(
            text_vectors, text_index, words, arrays.statistics.recent, hidden, chance_similarity
        )

    @property
    def items(self) -> int:
        """Catalogue size."""
        return len(self.text_vectors)

    @property
    def evidence(self) -> Evidence:
        """What reasons are derived from."""
        return Evidence(self.arrays, self.kinds, self.texts.popularity, self.sources.personal)

    def recommend(self, requests: Sequence[Request], watch: Watch | None = None) -> list[Recommendation]:
        """Return a list for every request; it does not depend on the other requests of the batch.

        Requests are processed in blocks; one longer than any source's quota is processed alone, and a list
        that caps have left too short is extended.

        Args:
            requests: any number.
            watch: called with the stages of each block; does not change the lists.

        """
        answers: dict[int, _Draft] = {}
        short = [i for i, r in enumerate(requests) if r.k <= self.config.popular]
        for start in range(0, len(short), BLOCK):
            chosen = short[start : start + BLOCK]
            answers.update(zip(chosen, self._lists([requests[i] for i in chosen], watch=watch), strict=True))
        for i, request in enumerate(requests):
            if request.k > self.config.popular:
                answers[i] = self._long(request, watch=watch)
        return [self._refilled(request, answers[i], watch) for i, request in enumerate(requests)]

    def _lists(
        self,
        requests: list[Request],
        config: CandidateConfig | None = None,
        final: bool = False,
        watch: Watch | None = None,
    ) -> list[_Draft]:
        """Return the lists of a block: the whole path, stage by stage.

        Args:
            requests: of the block.
            config: quotas in place of the model's.
            final: no further candidates will be retrieved, see `ranking.rerank.slate.fill_slate`.
            watch: as `recommend`.

        """
        filtered = filter_requests(requests, self.histories(requests), self.texts, self.hidden, self.items)
        users = self.encode(filtered.batch)
        with collecting_missed() as missed:
            retrieved = self.retrieve(
                filtered.batch, filtered.limits, users, filtered.intents, filtered.pins, config
            )
        novelty = [self.novelty_budget if r.novelty is None else r.novelty for r in requests]
        ranked = self.score(filtered.batch, users, retrieved, novelty, filtered.intents)
        slates = self.rerank(filtered.requests, ranked, final)
        if watch is not None:
            used = config or self.config
            watch(Stages(used, final, filtered, users, retrieved, novelty, ranked, slates))
        lists = explain_lists(
            filtered, ranked, slates, self.evidence, self.texts, self.sources, self.towers is not None,
            missed,
        )  # fmt: skip
        return [_Draft(answer, slate.capped) for answer, slate in zip(lists, slates, strict=True)]

    def rank(self, batch: HistoryBatch, limits: Limits, novelty: Sequence[float] | None = None) -> Ranked:
        """Retrieve and score the candidates of histories: the path without requests.

        Args:
            batch: the histories.
            limits: what may be proposed.
            novelty: budget of each query, see `ranking.scoring.novelty`; None takes the default.

        """
        users = self.encode(batch)
        return self.score(batch, users, self.retrieve(batch, limits, users), novelty)

    @timed("user_encoding")
    def encode(self, batch: HistoryBatch) -> UserVectors:
        """Return the vectors that candidate sources search with."""
        none = np.zeros((len(batch), 0), dtype=np.float32)
        return UserVectors(
            self.user_vectors(batch),
            none if self.factors is None else self.factors.users(batch),
            affinity_profiles(batch, self.arrays.affinity_units),
        )

    @timed("candidates")
    def retrieve(
        self,
        batch: HistoryBatch,
        limits: Limits,
        users: UserVectors,
        intents: Sequence[TextQuery | None] | None = None,
        pins: list[tuple[Pin, ...]] | None = None,
        config: CandidateConfig | None = None,
    ) -> Retrieved:
        """Return the fused proposals of all sources, and the pinned items."""
        proposals = self.sources.propose(self.source_request(batch, limits, users, intents, config))
        candidates = self.sources.merge(proposals, len(batch))
        if pins is not None:
            candidates = with_pins(candidates, pins)
        best = [best_score(proposals, name, len(batch)) for name in ("user_vector", "co_purchase")]
        rows = {name: proposal.rows for name, proposal in proposals.items()}
        return Retrieved(candidates, rows, np.stack(best, axis=1))

    def source_request(
        self,
        batch: HistoryBatch,
        limits: Limits,
        users: UserVectors,
        intents: Sequence[TextQuery | None] | None = None,
        config: CandidateConfig | None = None,
    ) -> SourceRequest:
        """Return what the candidate sources are given; arguments as of `retrieve`."""
        if intents is not None and all(intent is None for intent in intents):
            intents = None
        config = config or self.config
        return SourceRequest(batch, users, limits, intents, self.arrays, self.indexes, self.texts, config)

    @timed("features")
    def features(
        self, batch: HistoryBatch, candidates: Candidates, users: UserVectors, best: FloatArray
    ) -> FloatArray:
        """Return the candidate features, float32 [queries, candidates, features]."""
        return candidate_features(self.layout, batch, candidates, self.arrays, users, best, self.click_kinds)

    def head_features(
        self, batch: HistoryBatch, candidates: Candidates, users: UserVectors, best: FloatArray
    ) -> FloatArray:
        """Return the features that the ranking head was trained on, [queries, candidates, its features]."""
        features = self.features(batch, candidates, users, best)
        known = None if self.ranker is None else self.layout.selection(self.ranker.features)
        return features if known is None else np.ascontiguousarray(features[:, :, known])

    def score(
        self,
        batch: HistoryBatch,
        users: UserVectors,
        retrieved: Retrieved,
        novelty: Sequence[float] | None = None,
        intents: Sequence[TextQuery | None] = (),
    ) -> Ranked:
        """Return candidates scored by the ranking head, the novelty offset and the fit to an intent."""
        candidates = retrieved.candidates
        head, probabilities = self._head(batch, users, retrieved)
        scores = head
        if self.novelty is not None and self.ranker is not None:
            budgets = novelty or [self.novelty_budget] * len(scores)
            rows = np.maximum(candidates.rows, 0)
            added = self.novelty.added(budgets, self.arrays.statistics.count[rows])
            scores = scores + np.where(self.untrained[rows], added, 0.0)
        scores = np.where(candidates.rows < 0, -np.inf, scores).astype(np.float32)
        known = np.diff(batch.offsets) > 0
        for query, intent in enumerate(intents):
            if intent is not None:
                real = candidates.rows[query] >= 0
                fit = self.texts.fit(intent, candidates.rows[query, real])
                scores[query, real] = with_intent(scores[query, real], fit, bool(known[query]))
        return Ranked(retrieved.proposals, candidates, scores, probabilities, head)

    def _head(
        self, batch: HistoryBatch, users: UserVectors, retrieved: Retrieved
    ) -> tuple[FloatArray, FloatArray]:
        """Return scores and probabilities of the ranking head; without one the fusion scores, and NaN."""
        candidates = retrieved.candidates
        if self.ranker is None or candidates.rows.shape[1] == 0:
            return candidates.fused.copy(), np.full((*candidates.rows.shape, 2), np.nan, dtype=np.float32)
        features = self.head_features(batch, candidates, users, retrieved.best)
        with timed("ranking"):
            scores, probabilities = self.ranker.score(features)
        # BLAS rounds differently by batch size: that must neither order equal items nor show in an answer.
        return np.round(scores, 4), np.round(probabilities, 5)

    @timed("rerank")
    def rerank(self, requests: Sequence[Request], ranked: Ranked, final: bool = False) -> list[Slate]:
        """Return the slate of each list, by score, diversity and merchandising rules."""
        units, counts = self.arrays.text_units, self.arrays.statistics.count
        lists = []
        for query, request in enumerate(requests):
            rows, scores = ranked.candidates.rows[query], ranked.scores[query]
            if request.rules is None:
                lists.append(best_slate(rows, scores, units, request.k, request.diversity))
                continue
            real = np.flatnonzero(rows >= 0)
            own = rows[real]
            slate = fill_slate(
                own, scores[real], units[own], counts[own], request.k, request.diversity, request.rules, final
            )
            lists.append(slate.among(real))
        return lists

    def histories(self, requests: Sequence[Request]) -> HistoryBatch:
        """Return the requests' histories as one batch."""
        weakest = max(len(self.click_kinds), 1) - 1
        return batch_histories(
            [r.history.items for r in requests],
            [np.minimum(r.history.kinds, weakest) for r in requests],
            [r.history.times for r in requests],
            [r.now for r in requests],
            weakest,
        )

    def user_vectors(self, batch: HistoryBatch) -> FloatArray:
        """Return a vector per history, [queries, dim]; zero for an empty history."""
        if self.towers is not None:
            return self.towers.encode(batch, self.arrays.item_vectors)
        vectors = np.zeros((len(batch), self.arrays.item_vectors.shape[1]), dtype=np.float32)
        recent = batch.newest(self.config.recent_items)
        weighted = self.arrays.item_vectors[recent.items] * recency_weights(recent)[:, None]
        np.add.at(vectors, recent.owners(), weighted)
        return unit(vectors)

    def _long(self, request: Request, final: bool = False, watch: Watch | None = None) -> _Draft:
        """Return a list longer than any quota, filled up from the popularity order."""
        deep = replace(self.config, popular=min(request.k, self.items))
        return self._lists([request], deep, final, watch)[0]

    def _refilled(self, request: Request, draft: _Draft, watch: Watch | None) -> Recommendation:
        """Extend a list that caps have left too short, as its next page would."""
        if not draft.capped:
            return draft.answer
        assert request.rules is not None
        items = list(draft.answer.items)
        for attempt in range(REFILLS):
            if not draft.capped or len(items) >= request.k:
                break
            rows = np.array([item.row for item in items], dtype=np.int32)
            rest = replace(
                request,
                k=request.k - len(items),
                exclude=np.union1d(request.exclude, rows).astype(np.int32),
                rules=replace(
                    request.rules,
                    shown=np.concatenate([request.rules.shown, rows]),
                    before=request.rules.before + len(items),
                ),
            )
            final = attempt + 1 == REFILLS
            if rest.k > self.config.popular:
                draft = self._long(rest, final, watch)
            else:
                draft = self._lists([rest], None, final, watch)[0]
            items += draft.answer.items
        return Recommendation(tuple(items), draft.answer.degradation)

    def similar(
        self, vectors: FloatArray, k: int, exclude: IntArray, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the k items whose texts are nearest to unit vectors [queries, text dim].

        Returns:
            Rows [queries, k] padded with -1 and cosines [queries, k].

        """
        rows, cosines = self.text_index.search(vectors, k + len(exclude), allowed)
        dropped = np.isin(rows, exclude) | (rows < 0)
        order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(dropped, order, axis=1)
        found = np.where(kept, -1, np.take_along_axis(rows, order, axis=1)).astype(np.int32)
        return found, np.where(kept, -np.inf, np.take_along_axis(cosines, order, axis=1)).astype(np.float32)
