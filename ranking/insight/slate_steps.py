"""The fifth stage of a trace: which re-ranking rule moved an item, and who stands where it would have stood.

The rules are applied one after the other to the same scored candidates by the function that serving calls:
boosts, diversity, caps, exploration, pins. The last step is the list itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ranking.insight.standing import place_of, without_rows
from ranking.recommender import Recommender
from ranking.rerank.rules import Rules, boosted
from ranking.stages import Ranked, Stages
from ranking.types import Request


@dataclass(frozen=True)
class Step:
    """The place of an item after one more rule."""

    rule: str
    """`score` (by score alone), `boosts`, `diversity`, `caps`, `exploration` or `pins`."""
    place: int | None
    """From 1; None where the page lacks it. By score and boosts it is counted behind the last place, too."""
    instead: int | None
    """Row of the item that this rule puts at the place that the item had before; None where the place is the
    same, or was behind the last one."""


@dataclass(frozen=True)
class _Setting:
    """Rules that are in force up to a step."""

    rule: str
    diversity: float
    rules: Rules


def slate_steps(
    recommender: Recommender, stages: Stages, ranked: Ranked, row: int, before: int = 0
) -> tuple[Step, ...]:
    """Return the steps that have an effect in this request, in order, the one by score first.

    Args:
        recommender: that made the list.
        stages: of a block with a single request.
        ranked: its candidates; the item may have been added to them.
        row: the item.
        before: items of previous pages; a further retrieval of the same page counts from there, too.

    """
    request = stages.filtered.requests[0]
    rules = request.rules or Rules()
    pinned = np.array([pin.row for pin in rules.pins], dtype=np.int32)
    free = without_rows(ranked, pinned)
    earlier_rounds = rules.before - before
    steps: list[Step] = []
    previous: int | None = None
    for setting in _settings(request.diversity, rules):
        last = setting.rule == "pins"
        used = replace(request, diversity=setting.diversity, rules=setting.rules)
        rows = _slate(recommender, used, ranked if last else free, stages.final)
        place = _place(rows, row)
        if setting.rule in ("score", "boosts"):  # exact behind the last place, too
            place = _place_behind(free, setting, row) if place is None else place
        instead = None
        if previous is not None and place != previous and previous <= len(rows):
            instead = rows[previous - 1]
        steps.append(Step(setting.rule, None if place is None else place + earlier_rounds, instead))
        previous = place
    return tuple(steps)


def _settings(diversity: float, rules: Rules) -> list[_Setting]:
    """Return the rules in force after each step that has an effect."""
    now = replace(rules, caps=(), pins=(), boosts=(), exploration=0.0)
    settings = [_Setting("score", 0.0, now)]
    if rules.boosts:
        now = replace(now, boosts=rules.boosts)
        settings.append(_Setting("boosts", 0.0, now))
    if diversity > 0:
        settings.append(_Setting("diversity", diversity, now))
    if rules.caps:
        now = replace(now, caps=rules.caps)
        settings.append(_Setting("caps", diversity, now))
    if rules.exploration > 0:
        now = replace(now, exploration=rules.exploration)
        settings.append(_Setting("exploration", diversity, now))
    if rules.pins:
        settings.append(_Setting("pins", diversity, replace(now, pins=rules.pins)))
    return settings


def _slate(recommender: Recommender, request: Request, ranked: Ranked, final: bool) -> list[int]:
    """Return the rows of a slate."""
    [slate] = recommender.rerank([request], ranked, final)
    return [int(ranked.candidates.rows[0, item.candidate]) for item in slate.items]


def _place(rows: list[int], row: int) -> int | None:
    return rows.index(row) + 1 if row in rows else None


def _place_behind(ranked: Ranked, setting: _Setting, row: int) -> int | None:
    """Return the place of an item among all candidates by boosted score; None for a pinned one."""
    rows, scores = ranked.candidates.rows[0], ranked.scores[0]
    real = rows >= 0
    if not (rows == row).any():
        return None
    moved = boosted(scores[real], rows[real], setting.rules.boosts)
    return place_of(rows[real], moved, row)
