"""The whole answer about one item of one list: trace, effects of the history, and what would change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ranking.insight.counterfactuals import Counterfactuals, counterfactuals
from ranking.insight.history_effect import HistoryEffect, history_effects
from ranking.insight.obstacles import without
from ranking.insight.question import Question
from ranking.insight.trace import Trace, trace
from ranking.recommender import Recommender


@dataclass(frozen=True)
class Explanation:
    """The answer to a question."""

    trace: Trace
    effects: tuple[HistoryEffect, ...]
    """Of the newest items of the history, newest first."""
    changes: Counterfactuals


def explain_item(recommender: Recommender, question: Question, kinds: Sequence[str]) -> Explanation:
    """Return why an item is in a list, or why not, and what would change that.

    Args:
        recommender: that makes the list.
        question: the item and the request.
        kinds: event kinds of the model, strongest first.

    """
    found = trace(recommender, question)
    allowed = without(question, found.obstacles) or question
    mask = source_mask(recommender, found)
    effects = history_effects(recommender, allowed, mask, found.standing.score)
    return Explanation(found, effects, counterfactuals(recommender, found, effects, kinds))


def source_mask(recommender: Recommender, found: Trace) -> int:
    """Return the source mask that the item of a trace is scored with where no source proposes it."""
    proposing = [source.source for source in found.sources if source.proposes]
    names = proposing or ([found.assumed] if found.assumed else [])
    return sum(1 << bit for bit, name in enumerate(recommender.sources.names) if name in names)
