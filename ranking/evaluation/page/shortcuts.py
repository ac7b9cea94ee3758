"""The table of a data set's shortcuts, for the report and the explorer; needs no library that draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: float | None) -> str:
    """Return a number with four digits, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def shortcut_rows(shortcuts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of the table of shortcuts: what, here, by chance."""
    rows = [
        ("choices on the day of the last event", _share(shortcuts["same_day"]), ""),
        ("choices that are in the user's history", _share(shortcuts["in_history"]), ""),
        (
            "choices that have followed the last item before",
            _share(shortcuts["targets_known_successors"]),
            _share(shortcuts["targets_known_successors_by_chance"]),
        ),
        (
            "recall@10 of the last item's most frequent successors",
            number(shortcuts["successors_recall@10"]),
            "",
        ),
    ]
    if shortcuts["mean_successors"] is not None:
        middle = f"{shortcuts['mean_successors']:.1f} ({shortcuts['median_successors']:g})"
        rows.append(("distinct successors of an item, mean (median)", middle, ""))
    text = shortcuts.get("text")
    if text:
        rows += [
            (
                f"choices among the {k} texts nearest to the last item's",
                _share(text[f"targets_in_nearest_{k}"]),
                _share(text[f"by_chance_{k}"]),
            )
            for k in (10, 100)
        ]
    return rows
