"""The worth of a finding: recall@10 of a fast model with the data as they are, and with the finding removed.

The models are the project's baselines, run through the project's own evaluation code on the same test
queries, so that a worth is comparable with the tables of an evaluation. `item_knn` is the default: it is
sensitive to order, to copies and to counts, and fits in a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from features.data.splits import Queries
from ranking.baselines.items import FrozenText, ItemKnn
from ranking.baselines.registry import Baseline
from ranking.evaluation.metrics import ValueArray, recall_at
from ranking.evaluation.significance import bootstrap_intervals
from ranking.lint.findings import Worth
from ranking.lint.material import Material
from ranking.lint.word_vectors import word_vectors

K = 10
DEPTH = 100
"""Candidates that are re-ranked, where a worth is measured by re-ranking."""
LEVEL = 0.95


@dataclass(frozen=True)
class Measured:
    """Recall@10 per query; a user has one test query."""

    users: IntArray  # [queries] ascending
    values: ValueArray  # [queries]


def sampled(queries: Queries, most: int, seed: int) -> IntArray:
    """Return the users of `most` queries drawn without replacement, ascending; all for 0."""
    users = queries.user
    if 0 < most < len(users):
        users = np.random.default_rng(seed).choice(users, size=most, replace=False)
    return np.sort(users)


@dataclass(frozen=True)
class Yardstick:
    """Measures models on one sample of test users."""

    material: Material
    most: int
    """Queries in the sample; 0 is all."""
    seed: int
    resamples: int

    @cached_property
    def users(self) -> IntArray:
        """Users of the sampled test queries."""
        return sampled(self.material.split.test, self.most, self.seed)

    def queries(self, material: Material | None = None) -> Queries:
        """Return the test queries of the sampled users."""
        test = (material or self.material).split.test
        return test.select(np.isin(test.user, self.users))

    def knn(self) -> Baseline:
        """Return an item_knn that is not fitted."""
        return ItemKnn(kind_weights=self.material.dataset.kind_weights)

    @cached_property
    def plain(self) -> Measured:
        """item_knn on the data as they are."""
        return self.run(self.material)

    @cached_property
    def words(self) -> FloatArray:
        """Word vectors of the item texts, [items, dim]."""
        return word_vectors(self.material.dataset.catalogue.texts)

    def text(self, vectors: FloatArray) -> Baseline:
        """Return the baseline of nearest texts over word vectors, [items, dim]."""
        return FrozenText(vectors, kind_weights=self.material.dataset.kind_weights)

    def lists(
        self,
        material: Material,
        queries: Queries,
        baseline: Baseline | None = None,
        *,
        end: LongArray | None = None,
        depth: int = K,
        exclude_seen: bool | None = None,
        allowed: BoolArray | None = None,
    ) -> IntArray:
        """Fit a baseline and return its lists, [queries, depth].

        Args:
            material: the data to fit on.
            queries: of the same data.
            baseline: item_knn without one.
            end: [users] where the events end that are fitted on; as for test queries without it.
            depth: items per list.
            exclude_seen: leave out the history; as in the evaluation without it.
            allowed: [items] mask of the items to list; all without it.
        """
        model = baseline or self.knn()
        split, events = material.split, material.events
        model.fit(events, split.state_end if end is None else end, split.state_time, material.items)
        seen = self.material.exclude_seen if exclude_seen is None else exclude_seen
        return model.recommend(events, queries, depth, seen, allowed)[0]

    def run(
        self,
        material: Material,
        baseline: Baseline | None = None,
        *,
        end: LongArray | None = None,
        exclude_seen: bool | None = None,
    ) -> Measured:
        """Fit a baseline and measure it on the test queries of the sampled users; arguments as of `lists`."""
        queries = self.queries(material)
        found = self.lists(material, queries, baseline, end=end, exclude_seen=exclude_seen)
        return self.measure(found, queries)

    def measure(self, lists: IntArray, queries: Queries) -> Measured:
        """Return the recall@10 of lists."""
        return Measured(queries.user, recall_at(lists, queries, (K,))[0])

    def compare(self, model: str, as_is: Measured, without: Measured) -> Worth | None:
        """Return the paired worth over the users that have both values, or None without any."""
        _, left, right = np.intersect1d(as_is.users, without.users, return_indices=True)
        if not len(left):
            return None
        before, after = as_is.values[left], without.values[right]
        low, high = bootstrap_intervals((before - after)[:, None], self.resamples, self.seed, LEVEL)
        return Worth(
            model, before.mean().item(), after.mean().item(), float(low[0]), float(high[0]), len(left)
        )

    def changed(self, model: str, change: Callable[[Material], Material]) -> Worth | None:
        """Return the worth of a change of the data by item_knn."""
        return self.compare(model, self.plain, self.run(change(self.material)))

    def of_targets(self, model: str, left_out: Callable[[Queries], BoolArray]) -> Worth | None:
        """Return the worth of some targets by item_knn: recall on all queries against that on the others.

        The two differ in their queries, so the interval is that of the linearised difference of both means.

        Args:
            model: what is compared.
            left_out: returns the queries that are left out, [queries].
        """
        queries = self.queries()
        values, keep = self.plain.values, ~left_out(queries)
        if not keep.any() or keep.all():
            return None
        rest = values[keep].mean()
        influence = values - rest - keep / keep.mean() * (values - rest)  # mean: the difference
        low, high = bootstrap_intervals(influence[:, None], self.resamples, self.seed, LEVEL)
        return Worth(
            model, values.mean().item(), rest.item(), float(low[0]), float(high[0]), len(values), paired=False
        )

    def reranked(self, model: str, first: Callable[[Queries, IntArray], BoolArray]) -> Worth | None:
        """Return the worth of moving some of the 100 candidates of item_knn to the front, in their order.

        Args:
            model: what is compared.
            first: returns a mask of the candidates that move, [queries, 100], given queries and candidates.
        """
        queries = self.queries()
        found = self.lists(self.material, queries, depth=DEPTH)
        behind = ~(first(queries, found) & (found >= 0))
        moved = np.take_along_axis(found, np.argsort(behind, axis=1, kind="stable"), axis=1)
        return self.compare(model, self.measure(moved, queries), self.measure(found[:, :K], queries))
