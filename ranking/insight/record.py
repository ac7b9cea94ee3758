"""An explanation as one object for programs: plain numbers, texts and ids."""

from __future__ import annotations

import math
from typing import Any

from ranking.insight.explanation import Explanation
from ranking.insight.scenario import Scenario, changed, settings_of, without_obstacles
from ranking.insight.words import Names, in_words, standing_numbers


def as_record(explanation: Explanation, scenario: Scenario, names: Names, kinds: list[str]) -> dict[str, Any]:
    """Return everything that an explanation says.

    Args:
        explanation: of an item.
        scenario: the request, as it was written.
        names: of the catalogue.
        kinds: event kinds, strongest first.

    """
    found, changes, words = explanation.trace, explanation.changes, in_words(explanation, names)
    question, shares = found.question, found.attribution
    written = []
    for change in words.changes:
        if changes.lifted_place is not None:
            after = without_obstacles(scenario, changes.lifted, question, names.ids)
        else:
            after = changed(scenario, change.change, changes.lifted, question, names.ids)
        written.append({"text": change.text, "place": change.place, "request": settings_of(after)})
    return {
        "item_id": names.ids[question.row],
        "title": names.title(question.row),
        "request": settings_of(scenario),
        "headline": words.headline,
        "place": found.place,
        "lost_at": None if found.lost is None else found.lost.value,
        "conclusion": words.final,
        "stages": [
            {"name": s.name, "title": s.title, "outcome": s.outcome, "lines": list(s.lines)}
            for s in words.stages
        ],
        "sources": [
            {
                "source": s.source,
                "place": s.place,
                "quota": s.quota,
                "proposes": s.proposes,
                "reason": s.reason,
            }
            for s in found.sources
        ],
        "score": {name: _finite(value) for name, value in standing_numbers(found.standing).items()},
        "assumed_source": found.assumed,
        "features": None
        if shares is None
        else {
            "score": shares.score,
            "baseline": shares.baseline,
            "candidates_of_baseline": shares.background,
            "groups": [
                {
                    "label": share.label,
                    "points": share.points,
                    "deleted": share.deleted,
                    "features": [{"name": n, "value": v, "baseline": b} for n, v, b in share.features],
                }
                for share in shares.shares
            ],
        },
        "history": [
            {
                "item_id": names.ids[effect.row],
                "title": names.title(effect.row),
                "events": effect.events,
                "newest": {"event": kinds[effect.kind] if effect.kind >= 0 else None, "time": effect.time},
                "points": effect.points,
                "place_without": effect.place,
            }
            for effect in explanation.effects
        ],
        "changes": written,
        "changes_note": words.unchanged,
        "list": [
            {"item_id": names.ids[item.row], "title": names.title(item.row), "score": item.score}
            for item in found.items
        ],
    }


def _finite(value: float | int | None) -> float | int | None:
    """Return a number, None for NaN, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else value
