"""The users whose lists two systems make most differently, with both lists."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from features.data.dataset import Catalogue
from features.text.titles import shown_title, title_column
from ranking.comparison.measured import Measured
from ranking.comparison.window import Window
from ranking.evaluation.list_overlap import overlap_at, rank_biased_overlap
from ranking.evaluation.stage_recall import HEADLINE

SORTED_BY: Final = f"ndcg@{HEADLINE}"
HISTORY: Final = 5
"""Newest history items that are shown."""


class Titles:
    """Titles of a catalogue's rows, and of rows beyond it."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Take the catalogue's title column, or the beginning of the texts."""
        self.catalogue = catalogue
        column = title_column(catalogue.attributes)
        self.titles = catalogue.frame[column] if column else None

    def of(self, row: int, others: dict[int, str]) -> dict[str, Any]:
        """Return `item_id` and `title` of a row."""
        if row >= len(self.catalogue):
            return {"item_id": others.get(row, ""), "title": "not in the dataset"}
        title = None if self.titles is None else self.titles[row]
        return {
            "item_id": self.catalogue.ids[row],
            "title": shown_title(title, self.catalogue.texts[row]),
        }


def shopper(window: Window, a: Measured, b: Measured, query: int, titles: Titles) -> dict[str, Any]:
    """Return one user's history, targets and first ten items of both systems.

    Args:
        window: the queries.
        a: the present system.
        b: the new one.
        query: position of the user's query.
        titles: of the dataset's catalogue.
    """
    queries, events = window.queries, window.dataset.events
    user, end = int(queries.user[query]), int(queries.end[query])
    begin = max(int(events.offsets[user]), end - HISTORY)
    targets = queries.targets[queries.target_offsets[query] : queries.target_offsets[query + 1]].tolist()
    places: dict[str, dict[int, int]] = {"a": {}, "b": {}}
    for key, system in (("b", a), ("a", b)):  # where the other system has the item
        rows = system.answer.items[query].tolist()
        places[key] = {row: place for place, row in reversed(list(enumerate(rows, 1))) if row >= 0}

    def listed(key: str, system: Measured) -> list[dict[str, Any]]:
        return [
            {**titles.of(row, system.others), "target": row in targets, "other_place": places[key].get(row)}
            for row in system.answer.items[query, :HEADLINE].tolist()
            if row >= 0
        ]

    one = np.array([query])
    return {
        "user_id": window.dataset.user_ids[user],
        "events": end - int(events.offsets[user]),
        "history": [titles.of(int(row), {}) for row in events.item[begin:end][::-1]],
        "targets": [titles.of(int(row), {}) for row in targets[:HEADLINE]],
        "targets_in_all": len(targets),
        f"overlap@{HEADLINE}": float(overlap_at(a.answer.items[one], b.answer.items[one], HEADLINE)[0]),
        "rank_biased_overlap": float(rank_biased_overlap(a.answer.items[one], b.answer.items[one])[0]),
        "metrics": {
            name: {"a": float(a.answer.values[name][query]), "b": float(b.answer.values[name][query])}
            for name in (f"recall@{HEADLINE}", SORTED_BY)
        },
        "a": listed("a", a),
        "b": listed("b", b),
    }


def most_changed(window: Window, a: Measured, b: Measured, count: int) -> dict[str, list[dict[str, Any]]]:
    """Return the users whose lists differ most, and those who lose and gain most.

    Args:
        window: the queries.
        a: the present system.
        b: the new one.
        count: users of each kind.

    Returns:
        `changed` by rank-biased overlap, smallest first; `lost` and `gained` by the change of ndcg@10. Ties
        are in the order of the queries.
    """
    titles = Titles(window.dataset.catalogue)
    biased = rank_biased_overlap(a.answer.items, b.answer.items)
    gain = b.answer.values[SORTED_BY] - a.answer.values[SORTED_BY]
    orders = {
        "changed": [q for q in np.argsort(biased, kind="stable")[:count] if biased[q] < 1],
        "lost": [q for q in np.argsort(gain, kind="stable")[:count] if gain[q] < 0],
        "gained": [q for q in np.argsort(-gain, kind="stable")[:count] if gain[q] > 0],
    }
    return {
        name: [shopper(window, a, b, int(query), titles) for query in order] for name, order in orders.items()
    }
