"""The report of a replay: exposure and hits of new items by age, time to the first exposure, and the cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.new_items.replay import DAY, DEPTH, Basket, Played
from benchmarks.storefront.shop import share
from conf.errors import InputError

TOPS: Final = (10, DEPTH)
AGES: Final = (("first day", 0, 1), ("day 2 to 7", 1, 7), ("day 8 to 31", 7, 31))
"""Name, and days since the first sale: from, to."""
SEEN_DAYS: Final = 7
"""Items that first sold within so many days of the end are excluded from the time to the first exposure."""


@dataclass
class _Count:
    """Counts of one age group."""

    lists: dict[int, int] = field(default_factory=lambda: dict.fromkeys(TOPS, 0))
    """Lists with such an item in the first k."""
    hit_lists: dict[int, int] = field(default_factory=lambda: dict.fromkeys(TOPS, 0))
    """Lists with such an item in the first k that is also in the basket."""
    places: int = 0
    """Impressions of such items in the first `DEPTH`."""
    hits: dict[int, int] = field(default_factory=lambda: dict.fromkeys(TOPS, 0))
    targets: int = 0
    """Such items that were chosen."""

    def numbers(self, lists: int) -> dict[str, float]:
        """Return shares and counts over a number of lists."""
        found: dict[str, float] = {"chosen": self.targets, "places": self.places}
        for k in TOPS:
            found[f"lists@{k}"] = share(self.lists[k], lists)
            found[f"hit_lists@{k}"] = self.hit_lists[k]
            found[f"recall@{k}"] = share(self.hits[k], self.targets)
        found["chosen_of_shown"] = share(self.hits[DEPTH], self.places)
        return found


def age_of(item: str, moment: int, born: dict[str, int]) -> str | None:
    """Return the age group of a new item at a moment; None for others, too old or not yet sold."""
    if item not in born or born[item] >= moment:
        return None
    days = (moment - born[item]) / DAY
    return next((name for name, low, high in AGES if low <= days < high), None)


def _groups(played: Played, basket: Basket, items: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    """Return age group -> (rank from 1, item) of a list's items."""
    found: dict[str, list[tuple[int, str]]] = {name: [] for name, _, _ in AGES}
    for place, item in enumerate(items, start=1):
        if (name := age_of(item, basket.time, played.born)) is not None:
            found[name].append((place, item))
    return found


def arm_numbers(played: Played, arm: str) -> dict[str, Any]:
    """Return the reported numbers of one arm."""
    counts = {name: _Count() for name, _, _ in AGES}
    first: dict[str, int] = {}
    recall: dict[int, list[float]] = {k: [] for k in TOPS}
    for basket, items in zip(played.baskets, played.lists[arm], strict=True):
        for k in TOPS:
            recall[k].append(share(len(basket.items & set(items[:k])), len(basket.items)))
        for item in basket.items:
            if (name := age_of(item, basket.time, played.born)) is not None:
                counts[name].targets += 1
        for name, shown in _groups(played, basket, items).items():
            count = counts[name]
            count.places += len(shown)
            for place, item in shown:
                first.setdefault(item, basket.time)
                for k in TOPS:
                    count.hits[k] += place <= k and item in basket.items
            for k in TOPS:
                count.lists[k] += any(place <= k for place, _ in shown)
                count.hit_lists[k] += any(place <= k and item in basket.items for place, item in shown)
    lists = len(played.baskets)
    shown_old = sum(len(items) for items in played.lists[arm]) - sum(c.places for c in counts.values())
    hits_all = sum(
        len(basket.items & set(items))
        for basket, items in zip(played.baskets, played.lists[arm], strict=True)
    )
    return {
        "lists": lists,
        **{f"recall@{k}": float(np.mean(values)) if values else 0.0 for k, values in recall.items()},
        "ages": {name: count.numbers(lists) for name, count in counts.items()},
        "chosen_of_shown_other": share(
            hits_all - sum(count.hits[DEPTH] for count in counts.values()), shown_old
        ),
        "first_place": first_place(played, first),
    }


def first_place(played: Played, first: dict[str, int]) -> dict[str, float | int | None]:
    """Return the time of new items from the first sale to the first exposure, and the share without any.

    Args:
        played: the replay.
        first: item -> Unix seconds of the first list that it was in.

    Returns:
        Number of items, the share that was in no list, and the median days over all of them (None where more
        than half were in no list).
    """
    measured = [item for item, time in played.born.items() if time <= played.end - SEEN_DAYS * DAY]
    days = [(first[item] - played.born[item]) / DAY if item in first else np.inf for item in measured]
    middle = float(np.median(days)) if days else np.inf
    return {
        "items": len(measured),
        "never": share(sum(np.isinf(day) for day in days), len(days)),
        "median_days": middle if np.isfinite(middle) else None,
    }


def report(played: Played) -> dict[str, Any]:
    """Return the numbers of every arm."""
    return {
        "baskets": len(played.baskets),
        "new_items": len(played.born),
        "rejects": played.rejects,
        "arms": {arm: arm_numbers(played, arm) for arm in played.lists},
    }


def beside(result: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return a result with another version's arms first.

    Raises:
        InputError: the other one is of another replay.
    """
    same = ("weeks", "baskets", "new_items")
    if any(result[name] != before.get(name) for name in same):
        differences = ", ".join(f"{name} {before.get(name)} and {result[name]}" for name in same)
        raise InputError(f"the results are of different replays: {differences}")
    former = {f"before: {arm}": numbers for arm, numbers in before["arms"].items()}
    return {**result, "arms": {**former, **result["arms"]}}


HEADER: Final = (
    "arm", "recall@10, @20", "age of the new item", "lists with one @10, @20", "lists with a hit @10, @20",
    "chosen", "recall of them @10, @20", "of places, chosen",
)  # fmt: skip


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of the table by arm and age."""
    found = []
    for arm, numbers in result["arms"].items():
        for index, (age, count) in enumerate(numbers["ages"].items()):
            overall = (arm, f"{numbers['recall@10']:.4f}, {numbers['recall@20']:.4f}")
            found.append((
                *(overall if index == 0 else ("", "")), age,
                f"{count['lists@10']:.1%}, {count['lists@20']:.1%}",
                f"{count['hit_lists@10']:,.0f}, {count['hit_lists@20']:,.0f}", f"{count['chosen']:,.0f}",
                f"{count['recall@10']:.3f}, {count['recall@20']:.3f}", f"{count['chosen_of_shown']:.2%}",
            ))  # fmt: skip
    return found


def facts(result: dict[str, Any]) -> list[str]:
    """Return a sentence per arm on the time to the first exposure, and the rejects."""
    found = [f"refused: {what}: {count}" for what, count in result["rejects"].items()]
    for arm, numbers in result["arms"].items():
        first = numbers["first_place"]
        days = first["median_days"]
        took = f"{first['never']:.0%} never" + ("" if days is None else f", median {days:.1f} days")
        found.append(
            f"{arm}: from the first sale to a first place in a top {DEPTH}, {first['items']:,} items: "
            f"{took}; other items were chosen in {numbers['chosen_of_shown_other']:.2%} of their places."
        )
    return found


def print_report(console: Console, result: dict[str, Any]) -> None:
    """Print the table and the facts below it."""
    table = Table(*HEADER, title=f"replay: {result['baskets']:,} lists, {result['new_items']:,} new items")
    for row in rows(result):
        table.add_row(*row)
    console.print(table)
    for fact in facts(result):
        console.print(fact, soft_wrap=True, highlight=False)
