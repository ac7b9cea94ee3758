"""Which events of a history matter for an item: each is really deleted, and the list made again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from features.data.dataset import BoolArray
from ranking.insight.question import Question
from ranking.insight.standing import scored_with
from ranking.recommender import Recommender
from ranking.stages import Stages
from ranking.types import History, Request

NEWEST: Final = 24
"""Distinct items of the history, newest first, whose events are deleted."""


@dataclass(frozen=True)
class HistoryEffect:
    """What the events of one item of the history do for the item in question."""

    row: int
    """Of the history's item."""
    events: int
    """Events of it, all of which are deleted."""
    kind: int
    """Kind code of the newest of them."""
    time: int
    """Unix seconds of the newest of them."""
    points: float
    """The final score with these events less the one without."""
    place: int | None
    """In the list that is made without them; None where it is not in it."""


def history_effects(
    recommender: Recommender, question: Question, mask: int, score: float
) -> tuple[HistoryEffect, ...]:
    """Return the effect of each of the newest items of a history, newest first.

    Args:
        recommender: that made the list.
        question: the item and the request; one that is not allowed has no effects to compare.
        mask: source mask that the item is scored with where it is no candidate.
        score: the item's final score with the whole history.

    """
    history = question.request.history
    rows = list(dict.fromkeys(history.items[::-1].tolist()))[:NEWEST]
    if not rows:
        return ()
    kept = [history.items != row for row in rows]
    lists = [replace(question.request, history=part(history, keep)) for keep in kept]
    scores, places = scores_and_places(recommender, lists, question.row, mask)
    found = []
    for row, keep, without, place in zip(rows, kept, scores, places, strict=True):
        newest = int(np.flatnonzero(~keep)[-1])
        found.append(
            HistoryEffect(
                row,
                int((~keep).sum()),
                int(history.kinds[newest]),
                int(history.times[newest]),
                round(score - without, 4),
                place,
            )
        )
    return tuple(found)


def part(history: History, keep: BoolArray) -> History:
    """Return the events of a history that a mask [length] keeps."""
    return History(history.items[keep], history.kinds[keep], history.times[keep])


def scores_and_places(
    recommender: Recommender, requests: list[Request], row: int, mask: int
) -> tuple[list[float], list[int | None]]:
    """Return the final score of an item and its place in the lists of several requests.

    Args:
        recommender: that makes the lists.
        requests: not longer than the quota of popular items, so that they are made in one block.
        row: the item.
        mask: source mask that it is scored with where it is no candidate.

    """
    scores: list[float] = []
    places: list[int | None] = []

    def watch(stages: Stages) -> None:
        if len(scores) < len(requests):  # the first retrieval of each list
            scores.extend(scored_with(recommender, stages, row, mask).scores().tolist())

    answers = recommender.recommend(requests, watch)
    for answer in answers:
        places.append(next((n for n, i in enumerate(answer.items, start=1) if i.row == row), None))
    return scores, places
