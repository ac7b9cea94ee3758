"""Whether explanations are true on a real bundle, what they cost, and how Shapley values agree with deletion.

    python -m benchmarks.explanations work/demo/artifacts --pairs 300 --output explanations.json

Questions about random shoppers and items, half of them near the end of a list, under several sorts of
requests. The stage that a trace names is compared with a brute-force computation of limits and candidates
in plain NumPy; every change that is claimed to move the item is written down as a scenario, resolved from
its strings and carried out in a list of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from scipy.stats import spearmanr

from explorer.model import LoadedModel, load_model
from features.data.dataset import FloatArray
from features.data.statistics import Neighbours
from ranking.bundle.store import current_version
from ranking.insight.attribution import shapley
from ranking.insight.explanation import Explanation, explain_item, source_mask
from ranking.insight.history_effect import part, scores_and_places
from ranking.insight.question import Question
from ranking.insight.scenario import Resolved, Scenario, changed, resolve, without_obstacles
from ranking.insight.trace import Stage, place_in
from ranking.sources.repeat import HALF_LIFE_EVENTS
from ranking.types import History

NEAR: Final = 60
"""Places of a list from which half of the items are drawn."""
CLOSE: Final = 1e-4
"""Scores closer to a quota's last one than this are not judged: they are rounded differently."""
EVENTS: Final = 7
"""Newest distinct items of a history whose exact Shapley values are computed; older events always count."""


@dataclass(frozen=True)
class Asked:
    """One question, as it was written."""

    user: str
    history: History
    item: str
    scenario: Scenario
    resolved: Resolved


def scenarios(model: LoadedModel) -> list[Scenario]:
    """Return requests of several sorts for a catalogue."""
    frame = model.bundle.catalogue.frame
    asked = [Scenario(), Scenario(exclude_seen=True), Scenario(diversity=0.4), Scenario(novelty=0.05)]
    if "price" in frame.columns:
        middle = float(str(frame["price"].median()))
        asked += [
            Scenario(filter=f"price < {middle:g} AND price > {middle / 10:g}"),
            Scenario(boosts=((0.3, f"price > {middle:g}"),), exploration=0.2, seed=3),
        ]
    return asked


def questions(model: LoadedModel, pairs: int, seed: int) -> Iterator[Asked]:
    """Draw shoppers, items and requests."""
    rng, asked = np.random.default_rng(seed), scenarios(model)
    ids = model.bundle.catalogue.ids
    for n in range(pairs):
        user = model.shoppers.ids[int(rng.integers(len(model.shoppers)))]
        history, scenario = model.shoppers.history(user), asked[n % len(asked)]
        item = ids[int(rng.integers(len(ids)))]
        resolved = resolve(model.bundle, history, model.now, item, scenario)
        if n // len(asked) % 2:
            [near] = model.recommender.recommend([replace(resolved.question.request, k=NEAR, explain=False)])
            if near.items:
                row = near.items[int(rng.integers(len(near.items)))].row
                item = ids[row]
                resolved = Resolved(resolved.recommender, replace(resolved.question, row=row))
        yield Asked(user, history, item, scenario, resolved)


class BruteForce:
    """The candidates of a request by plain sums and sorts, without an index or a compiled loop."""

    def __init__(self, model: LoadedModel, question: Question) -> None:
        """Compute what the sources search with."""
        recommender, request = model.recommender, question.request
        self._model, self._request = model, request
        batch = recommender.histories([request])
        self._users = recommender.encode(batch)
        self._allowed = np.ones(recommender.items, dtype=np.bool_)
        if request.allowed is not None:
            self._allowed &= request.allowed
        self._allowed[request.exclude] = False
        if request.exclude_seen:
            self._allowed[request.history.items] = False

    def allows(self, row: int) -> bool:
        """Return whether the limits of the request let a row pass."""
        return bool(self._allowed[row])

    def proposed(self, row: int) -> bool | None:
        """Return whether a source proposes a row; None where it is too close to a quota's end to say."""
        config, arrays = self._model.recommender.config, self._model.recommender.arrays
        statistics = arrays.statistics
        new = statistics.count == 0
        tower, factors = self._users.tower[0], self._users.factors[0]
        popular = np.empty(len(new))
        popular[self._model.recommender.indexes.by_popularity] = -np.arange(len(new))
        given = [
            (arrays.item_vectors @ tower, config.user_vector, bool(tower.any()), None),
            (arrays.factor_vectors @ factors, config.co_purchase, bool(factors.any()), None),
            (arrays.affinity_units @ self._users.affinity[0], config.new_items, bool(new.any()), new),
            (self._neighbours(statistics.together), config.item_to_item, True, None),
            (self._neighbours(arrays.text_near), config.text_neighbours, True, None),
            (self._own(), config.repeat, True, None),
            (popular, config.popular, True, None),
        ]
        answers = [
            self._within(scores, quota, row, among) for scores, quota, searched, among in given if searched
        ]
        if any(answer is True for answer in answers):
            return True
        return None if any(answer is None for answer in answers) else False

    def _within(
        self, scores: FloatArray, quota: int, row: int, among: np.ndarray[Any, np.dtype[np.bool_]] | None
    ) -> bool | None:
        open_rows = self._allowed & np.isfinite(scores)
        if among is not None:
            open_rows &= among
        if not open_rows[row] or quota == 0:
            return False
        others = np.sort(scores[open_rows])[::-1]
        if len(others) <= quota:
            return True
        if abs(float(scores[row]) - float(others[quota - 1])) < CLOSE * max(abs(float(others[0])), 1e-3):
            return None
        return bool(scores[row] > others[quota - 1])

    def _neighbours(self, near: Neighbours) -> FloatArray:
        """Return the summed weights of each row as a neighbour of the newest events; -inf without any."""
        items = self._request.history.items[-self._model.recommender.config.recent_items :]
        sums: dict[int, float] = defaultdict(float)
        for age, item in enumerate(items[::-1].tolist()):
            for row, weight in zip(near.ids[item].tolist(), near.weights[item].tolist(), strict=True):
                if row >= 0:
                    sums[row] += weight / (1.0 + age)
        return self._scattered(sums)

    def _own(self) -> FloatArray:
        sums: dict[int, float] = defaultdict(float)
        for age, item in enumerate(self._request.history.items[::-1].tolist()):
            sums[item] += 1.0 / (1.0 + age / HALF_LIFE_EVENTS)
        return self._scattered(sums)

    def _scattered(self, sums: dict[int, float]) -> FloatArray:
        scores = np.full(len(self._allowed), -np.inf, dtype=np.float32)
        scores[list(sums)] = list(sums.values())
        return scores


def faults_of_stage(model: LoadedModel, asked: Asked, found: Explanation) -> list[str]:
    """Return what a trace says that is not so."""
    trace, question = found.trace, asked.resolved.question
    [answer] = model.recommender.recommend([question.request])
    listed = [item.row for item in answer.items]
    brute, row = BruteForce(model, question), question.row
    proposed = brute.proposed(row)
    faults = []
    if trace.place != (listed.index(row) + 1 if row in listed else None):
        faults.append("place")
    if bool(trace.obstacles) == brute.allows(row):
        faults.append("limits")
    if brute.allows(row) and proposed is not None and trace.candidate != proposed:
        faults.append("candidate")
    plain = not question.request.rules and question.request.diversity == 0
    lowest = min((item.score for item in answer.items), default=-np.inf)
    expected: dict[Stage | None, bool] = {
        None: row in listed,
        Stage.limits: not brute.allows(row),
        Stage.sources: proposed is not True,
        Stage.ranking: proposed is not False and (not plain or trace.standing.score <= lowest + CLOSE),
        Stage.offsets: proposed is not False,
        Stage.rerank: proposed is not False and not plain,
    }
    if not expected[trace.lost]:
        faults.append(f"lost at {trace.lost}")
    return faults


def faults_of_changes(model: LoadedModel, asked: Asked, found: Explanation) -> tuple[Counter[str], int]:
    """Carry out every claimed change from its written form; return the kinds claimed, and how many fail."""
    kinds: Counter[str] = Counter()
    failed, changes, ids = 0, found.changes, model.bundle.catalogue.ids
    written: list[tuple[str, Scenario, int | None]] = []
    question = asked.resolved.question
    if changes.lifted_place is not None:
        lifted = without_obstacles(asked.scenario, changes.lifted, question, ids)
        written.append(("lifted", lifted, changes.lifted_place))
    for outcome in changes.outcomes:
        scenario = changed(asked.scenario, outcome.change, changes.lifted, question, ids)
        written.append((outcome.change.kind.value, scenario, outcome.place))
    for kind, scenario, place in written:
        again = resolve(model.bundle, asked.history, model.now, asked.item, scenario)
        kinds[kind] += 1
        failed += place_in(again.recommender, again.question) != place
    return kinds, failed


def history_agreement(model: LoadedModel, asked: Asked, found: Explanation) -> float | None:
    """Return the rank correlation of deletion with the exact Shapley values of a history's items.

    The value of a coalition is the item's final score with the events of these of the newest items, and all
    older events. None for a history of fewer than 3 items, and for an item that is not allowed.
    """
    history, question = asked.resolved.question.request.history, asked.resolved.question
    effects = found.effects[:EVENTS]
    if len(effects) < 3 or found.trace.obstacles:
        return None
    rows = [effect.row for effect in effects]
    members = [
        ~np.isin(history.items, [row for n, row in enumerate(rows) if not coalition >> n & 1])
        for coalition in range(1 << len(rows))
    ]
    requests = [replace(question.request, history=part(history, keep)) for keep in members]
    mask = source_mask(model.recommender, found.trace)
    scores, _ = scores_and_places(model.recommender, requests, question.row, mask)
    return correlation(shapley(np.array(scores)).tolist(), [effect.points for effect in effects])


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None where one side is constant."""
    if len(np.unique(first)) < 2 or len(np.unique(second)) < 2:
        return None
    return float(spearmanr(first, second).statistic)


def measure(model: LoadedModel, pairs: int, agreements: int, seed: int) -> dict[str, Any]:
    """Return the figures of the module."""
    stages: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    faults: list[str] = []
    seconds, additive, groups, events, first_same = [], 0.0, list[float](), list[float](), list[bool]()
    failed = nothing = claims = 0
    for n, asked in enumerate(questions(model, pairs, seed)):
        started = time.process_time()
        found = explain_item(asked.resolved.recommender, asked.resolved.question, model.bundle.kinds)
        if n:  # the first compiles
            seconds.append(time.process_time() - started)
        stages["listed" if found.trace.lost is None else found.trace.lost.value] += 1
        faults += [f"{asked.item}: {fault}" for fault in faults_of_stage(model, asked, found)]
        made, wrong = faults_of_changes(model, asked, found)
        kinds.update(made)
        claims, failed = claims + sum(made.values()), failed + wrong
        nothing += found.trace.place is None and not made
        shares = found.trace.attribution
        if shares is not None and n < agreements:
            gap = shares.score - shares.baseline - sum(share.points for share in shares.shares)
            additive = max(additive, abs(gap))
            points, deleted = [s.points for s in shares.shares], [s.deleted for s in shares.shares]
            groups += [value] if (value := correlation(points, deleted)) is not None else []
            first_same.append(int(np.abs(points).argmax()) == int(np.abs(deleted).argmax()))
            events += [value] if (value := history_agreement(model, asked, found)) is not None else []
    return {
        "items": len(model.bundle.catalogue),
        "pairs": pairs,
        "stages": dict(stages),
        "faults": faults,
        "changes": {"claimed": claims, "failed": failed, "kinds": dict(kinds), "nothing_works": nothing},
        "cpu_seconds": {
            "mean": float(np.mean(seconds)),
            "p95": float(np.quantile(seconds, 0.95)),
            "largest": float(np.max(seconds)),
        },
        "largest_gap_of_shares": additive,
        "groups": {
            "pairs": len(groups),
            "mean_rank_correlation": float(np.mean(groups)),
            "tenth_percentile": float(np.quantile(groups, 0.1)),
            "same_first": float(np.mean(first_same)),
        },
        "history": {"pairs": len(events), "mean_rank_correlation": float(np.mean(events or [np.nan]))},
    }


def main() -> None:
    """Measure, print, and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--agreements", type=int, default=200, help="pairs of the rank correlations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    model = load_model(given.artifacts, current_version(given.artifacts), torch.device("cpu"))
    figures = measure(model, given.pairs, given.agreements, given.seed)
    Console().print_json(json.dumps(figures))
    if given.output is not None:
        given.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
