"""The Recommender: retrieve, filter, rank, re-rank. Pure: arrays in, lists out, no I/O and no clock."""

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
    ItemArrays,
    UserVectors,
    affinity_profiles,
    candidate_features,
    recency_weights,
)
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.histories import HistoryBatch, batch_histories
from ranking.assembly import unit
from ranking.reasons import Evidence, explain
from ranking.rerank.mmr import POOL, best_first, diversify
from ranking.rerank.rules import Pin, open_rows, pending, with_pins
from ranking.rerank.slate import Place, arrange
from ranking.retrieval.fusion import merge
from ranking.retrieval.index_choice import build_index
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.sources import CandidateSources, Limits, banned_keys, first_source
from ranking.scoring.intent import fitting, with_intent
from ranking.scoring.novelty import Novelty
from ranking.scoring.ranker import Ranker
from ranking.stage_timing import timed
from ranking.types import Reason, Recommendation, Recommended, Request
from ranking.words.live_words import LiveWords
from ranking.words.text_match import Asked, TextMatch, Usual

BLOCK = 256
"""Queries scored together; bounds the memory of candidate features."""
REFILLS = 8
"""How often further candidates are looked for when caps leave a list too short."""


@dataclass(frozen=True)
class Ranked:
    """Candidates of a batch after the ranking head; everything [queries, candidates] unless said."""

    proposals: dict[str, IntArray]  # per source [queries, quota]
    candidates: Candidates
    scores: FloatArray  # -inf at padding
    probabilities: FloatArray  # [queries, candidates, 2] P(click), P(purchase); NaN without a ranking head


@dataclass(frozen=True)
class _Made:
    """A list, and whether caps have left it too short."""

    answer: Recommendation
    capped: bool


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
        sources: CandidateSources | None = None,
        hidden: BoolArray | None = None,
        words: LiveWords | None = None,
        usual: Usual | None = None,
        kinds: Sequence[str] | None = None,
        novelty: Novelty | None = None,
        novelty_budget: float = 0.0,
        unlearnt: BoolArray | None = None,
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
            words: the items' words; without them texts are compared by meaning alone.
            usual: how alike texts are by chance; None works it out when it is asked for.
            kinds: names of the event kinds, for reasons; None says view and purchase.
            novelty: what may be added to the scores of items without behaviour; None adds nothing.
            novelty_budget: of lists that ask for none, see `ranking.scoring.novelty`; 0 adds nothing.
            unlearnt: [items] items without any event at training; None: those without any now.

        """
        self.novelty = novelty
        self.novelty_budget = novelty_budget
        self.unlearnt = arrays.statistics.count == 0 if unlearnt is None else unlearnt
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
            text_index = index if towers is None else build_index(text_vectors)
        self.text_index = text_index
        self.kinds = kinds or ["view" if click else "purchase" for click in click_kinds]
        self.texts = TextMatch(text_vectors, text_index, words, arrays.statistics.recent, hidden, usual)

    @property
    def items(self) -> int:
        """Catalogue size."""
        return len(self.text_vectors)

    @property
    def evidence(self) -> Evidence:
        """What reasons are read from."""
        return Evidence(self.arrays, self.kinds, self.texts.popularity)

    def user_vectors(self, batch: HistoryBatch) -> FloatArray:
        """Return a vector per history, [queries, dim]; zero where the history is empty."""
        if self.towers is not None:
            return self.towers.encode(batch, self.arrays.item_vectors)
        vectors = np.zeros((len(batch), self.arrays.item_vectors.shape[1]), dtype=np.float32)
        recent = batch.newest(self.config.recent_items)
        weighted = self.arrays.item_vectors[recent.items] * recency_weights(recent)[:, None]
        np.add.at(vectors, recent.owners(), weighted)
        return unit(vectors)

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
        intents: Sequence[Asked | None] | None = None,
        sources: CandidateSources | None = None,
    ) -> tuple[Candidates, dict[str, IntArray], FloatArray]:
        """Return merged candidates, the sources' proposals, best scores by tower and factors [queries, 2]."""
        sources = sources or self.sources
        proposals, best = sources.propose(batch, users, limits)
        if intents is not None:
            proposals["intent"] = fitting(self.texts, intents, limits, sources.config.user_vector)
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
        intents: Sequence[Asked | None] | None = None,
        sources: CandidateSources | None = None,
        pins: list[tuple[Pin, ...]] | None = None,
        novelty: Sequence[float] | None = None,
    ) -> Ranked:
        """Retrieve and score the candidates of a batch, and pinned items with them.

        Args:
            batch: the histories.
            limits: what may be proposed.
            intents: what is looked for in words, per query.
            sources: stands in for the usual ones.
            pins: of each query.
            novelty: budget of each query for moving up items without behaviour; None takes the usual one.

        """
        with timed("user_encoding"):
            users = self.encode(batch)
        with timed("candidates"):
            candidates, proposals, best = self.retrieve(batch, limits, users, intents, sources)
            if pins is not None:
                candidates = with_pins(candidates, pins)
        padding = candidates.rows < 0
        if self.ranker is None or candidates.rows.shape[1] == 0:
            scores = candidates.fused.copy()
            probabilities = np.full((*scores.shape, 2), np.nan, dtype=np.float32)
        else:
            with timed("features"):
                features = self.features(batch, candidates, users, best)
            with timed("ranking"):
                scores, probabilities = self.ranker.score(features)
            # What BLAS rounds by batch size must neither order equal items nor show in an answer.
            scores, probabilities = np.round(scores, 4), np.round(probabilities, 5)
            if self.novelty is not None:
                budgets = novelty or [self.novelty_budget] * len(scores)
                rows = np.maximum(candidates.rows, 0)
                given = self.novelty.given(budgets, self.arrays.statistics.count[rows])
                scores = scores + np.where(self.unlearnt[rows], given, 0.0)
        return Ranked(
            proposals, candidates, np.where(padding, -np.inf, scores).astype(np.float32), probabilities
        )

    def histories(self, requests: Sequence[Request]) -> HistoryBatch:
        """Put the requests' histories together."""
        weakest = max(len(self.click_kinds), 1) - 1
        return batch_histories(
            [r.history.items for r in requests],
            [np.minimum(r.history.kinds, weakest) for r in requests],
            [r.history.times for r in requests],
            [r.now for r in requests],
            weakest,
        )

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Make a list for every request; a request's list does not depend on the others beside it."""
        answers: list[_Made | None] = [None] * len(requests)
        usual = [i for i, r in enumerate(requests) if r.k <= self.config.popular]
        for start in range(0, len(usual), BLOCK):
            chosen = usual[start : start + BLOCK]
            for i, answer in zip(chosen, self._block([requests[i] for i in chosen]), strict=True):
                answers[i] = answer
        for i, request in enumerate(requests):
            if request.k > self.config.popular:
                answers[i] = self._long(request)
        return [
            self._refilled(r, a) if a.capped else a.answer
            for r, a in zip(requests, answers, strict=True)
            if a is not None
        ]

    def _long(self, request: Request, final: bool = False) -> _Made:
        """Make a list longer than any source, from as much of the popularity order as it takes."""
        deep = replace(self.config, popular=min(request.k, self.items))
        return self._block([request], self.sources.with_quotas(deep), final)[0]

    def _refilled(self, request: Request, made: _Made) -> Recommendation:
        """Go on with a list whose candidates were used up by caps, as its next page would."""
        assert request.rules is not None
        items = list(made.answer.items)
        for attempt in range(REFILLS):
            if not made.capped or len(items) >= request.k:
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
            long = rest.k > self.config.popular
            made = self._long(rest, final) if long else self._block([rest], final=final)[0]
            items += made.answer.items
        return Recommendation(tuple(items), made.answer.degradation)

    def _block(
        self, requests: list[Request], sources: CandidateSources | None = None, final: bool = False
    ) -> list[_Made]:
        batch = self.histories(requests)
        pins = None
        if any(r.rules is not None for r in requests):
            pins = [
                () if r.rules is None else pending(r.rules, r.exclude, r.allowed, self.hidden)
                for r in requests
            ]
            requests = [
                r if r.rules is None else self._within_rules(r, p)
                for r, p in zip(requests, pins, strict=True)
            ]
        limits = Limits(
            banned_keys(batch, [r.exclude for r in requests], [r.exclude_seen for r in requests], self.items),
            [r.allowed for r in requests],
            self.hidden,
        )
        intents = [None if r.intent is None else self.texts.ask(r.intent, r.said) for r in requests]
        said = any(asked is not None for asked in intents)
        novelty = [self.novelty_budget if r.novelty is None else r.novelty for r in requests]
        ranked = self.rank(batch, limits, intents if said else None, sources, pins, novelty)
        for query, (request, asked) in enumerate(zip(requests, intents, strict=True)):
            if asked is not None:
                real = ranked.candidates.rows[query] >= 0
                fit = self.texts.fit(asked, ranked.candidates.rows[query, real])
                known = len(request.history.items) > 0
                ranked.scores[query, real] = with_intent(ranked.scores[query, real], fit, known)
        with timed("rerank"):
            return [
                self._answer(request, ranked, query, final, asked)
                for query, (request, asked) in enumerate(zip(requests, intents, strict=True))
            ]

    def _within_rules(self, request: Request, pins: tuple[Pin, ...]) -> Request:
        """Keep what rules settle beforehand out of retrieval: pinned items, and values that are used up."""
        assert request.rules is not None
        return replace(
            request,
            rules=replace(request.rules, pins=pins),
            exclude=np.union1d(request.exclude, [pin.row for pin in pins]).astype(np.int32),
            allowed=open_rows(request.rules, pins, request.allowed, self.items),
        )

    def _answer(
        self, request: Request, ranked: Ranked, query: int, final: bool, asked: Asked | None
    ) -> _Made:
        rows, scores = ranked.candidates.rows[query], ranked.scores[query]
        capped = False
        if request.rules is None:
            order = best_first(rows, scores, request.k if request.diversity == 0 else POOL * request.k)
            if request.diversity > 0:
                units = self.arrays.text_units[rows[order]]
                order = order[diversify(scores[order], units, request.diversity, request.k)]
            places = [Place(int(place)) for place in order[: request.k]]
        else:
            there = np.flatnonzero(rows >= 0)
            arranged = arrange(
                rows[there],
                scores[there],
                self.arrays.text_units[rows[there]],
                self.arrays.statistics.count[rows[there]],
                request.k,
                request.diversity,
                request.rules,
                final,
            )
            places = [Place(int(there[place.candidate]), place.rule) for place in arranged.places]
            capped = arranged.capped
        chosen = [place.candidate for place in places]
        matches = [False] * len(chosen)
        if request.explain and asked is not None:
            matches = self.texts.matches(asked, rows[chosen]).tolist()
        values = zip(
            places,
            rows[chosen].tolist(),
            scores[chosen].tolist(),
            ranked.candidates.sources[query, chosen].tolist(),
            ranked.probabilities[query, chosen].tolist(),
            matches,
            strict=True,
        )
        items, evidence = [], self.evidence
        for place, row, score, mask, (click, purchase), fits in values:
            reasons = explain(row, mask, request.history, evidence, fits) if request.explain else ()
            if request.explain and place.rule:
                reasons = (Reason(place.rule), *reasons)
            source = place.rule or first_source(mask)
            items.append(Recommended(row, score, click, purchase, source, reasons))
        return _Made(Recommendation(tuple(items), self._degradation(request)), capped)

    def _degradation(self, request: Request) -> str:
        if len(request.history.items) == 0 and request.intent is None:
            return "popularity"
        return "text_only" if self.towers is None else "none"

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
