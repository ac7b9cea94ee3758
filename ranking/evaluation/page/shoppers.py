"""Example shoppers: a history, the list that was made from it, and what the shopper chose next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from features.data.dataset import Dataset
from features.text.titles import shown_title, title_column
from ranking.evaluation.metrics import HEADLINE
from ranking.evaluation.query_table import RANKS

HISTORY_SHOWN: Final = 10
CHOSEN_SHOWN: Final = 10
WORST_SHOWN: Final = 8
LEAST_HISTORY: Final = 3
"""Events that the history of an example has, if enough users have as many."""
KINDS: Final = {"good": (0.9, 1.0), "typical": (0.45, 0.55), "bad": (0.0, 0.1)}
"""Kind of example -> the part of the users, ordered from worst to best list, that it is drawn from."""


@dataclass(frozen=True)
class Listed:
    """An item by its title, with what happened to it."""

    title: str
    rank: int | None = None
    """Place in the list; None where it is not in it."""
    hit: bool = False
    note: str = ""
    """Kind of event, or the stage at which a choice was lost."""


@dataclass(frozen=True)
class Shopper:
    """A shopper under a pseudonym: no id is in a report that is passed on."""

    name: str
    kind: str
    events: int
    """Length of the whole history."""
    history: list[Listed]
    """Newest events first."""
    listed: list[Listed]
    chosen: list[Listed]
    chosen_count: int
    recall: float


@dataclass(frozen=True)
class Worst:
    """A shopper whom the strongest baseline served better, or whose many choices were all missed."""

    name: str
    events: int
    chosen: int
    own: float
    rival: float | None
    """recall@10 of the system and of the strongest baseline."""
    stages: str
    """Where the choices were lost, the most frequent stage first."""
    examples: list[str]
    """Titles of missed choices."""


class Titles:
    """Titles by item id."""

    def __init__(self, dataset: Dataset) -> None:
        """Take the title attribute, or the beginning of the text."""
        frame = dataset.catalogue.frame
        column = title_column(frame.columns)
        titles = [None] * len(dataset.catalogue) if column is None else frame[column].to_list()
        self.by_row = [
            shown_title(title, text) or item
            for title, text, item in zip(titles, dataset.catalogue.texts, dataset.catalogue.ids, strict=True)
        ]
        self._row = {item: row for row, item in enumerate(dataset.catalogue.ids)}

    def of(self, item: str) -> str:
        """Return the title of an item."""
        return self.by_row[self._row[item]]


def _stage(lost_at: str | None) -> str:
    return "" if lost_at is None else lost_at.replace("_", " ")


def _chosen(row: dict[str, object], system: str, titles: Titles) -> list[Listed]:
    """Return what a user chose, found choices first, then in the order of the table."""
    targets, ranks = row["targets"], row[f"{system}/{RANKS}"]
    assert isinstance(targets, list)
    assert isinstance(ranks, list)
    lost = row.get("lost_at")
    stages = lost if isinstance(lost, list) else [None] * len(targets)
    found = [
        Listed(titles.of(item), int(rank) or None, 0 < rank <= HEADLINE, _stage(stage))
        for item, rank, stage in zip(targets, ranks, stages, strict=True)
    ]
    return sorted(found, key=lambda choice: choice.rank or 1000)


def examples(
    queries: pl.DataFrame, lists: pl.DataFrame, dataset: Dataset, system: str, seed: int
) -> list[Shopper]:
    """Return a good, a typical and a bad list, each drawn by the seed from its part of the users.

    Users are ordered by recall@10, then by the reciprocal rank of their first found choice; the parts are in
    `KINDS`. Drawn among those with a stored list and, if there are enough, a history of three events.

    Args:
        queries: `queries.parquet`.
        lists: `lists.parquet`.
        dataset: for histories and titles.
        system: whose lists are shown.
        seed: of the draw.
    """
    own = lists.filter(pl.col("system") == system)
    pool = queries.filter(pl.col("user_id").is_in(own["user_id"].unique().implode()))
    known = pool.filter(pl.col("history") >= LEAST_HISTORY)
    pool = (known if len(known) >= 10 else pool).sort(
        f"{system}/recall@{HEADLINE}", f"{system}/mrr", "user_id"
    )
    if pool.is_empty():
        return []
    rng, titles = np.random.default_rng(seed), Titles(dataset)
    found = []
    for number, (kind, (low, high)) in enumerate(KINDS.items()):
        first = min(int(low * len(pool)), len(pool) - 1)
        last = max(int(high * len(pool)), first + 1)
        row = pool.row(int(rng.integers(first, min(last, len(pool)))), named=True)
        shown = own.filter((pl.col("user_id") == row["user_id"]) & (pl.col("rank") <= HEADLINE)).sort("rank")
        targets = set(row["targets"])
        choices = _chosen(row, system, titles)
        begin = int(dataset.events.offsets[dataset.user_ids.index(row["user_id"])])
        newest = range(begin + row["history"] - 1, max(begin, begin + row["history"] - HISTORY_SHOWN) - 1, -1)
        found.append(
            Shopper(
                name=f"Shopper {'ABC'[number]}",
                kind=kind,
                events=row["history"],
                history=[
                    Listed(
                        titles.by_row[dataset.events.item[position]],
                        note=dataset.kinds[dataset.events.kind[position]],
                    )
                    for position in newest
                ],
                listed=[
                    Listed(titles.of(item), rank, item in targets)
                    for item, rank in shown.select("item_id", "rank").iter_rows()
                ],
                chosen=choices[:CHOSEN_SHOWN],
                chosen_count=len(choices),
                recall=row[f"{system}/recall@{HEADLINE}"],
            )
        )
    return found


def worst_order(queries: pl.DataFrame, system: str, rival: str | None) -> pl.DataFrame:
    """Return the queries from the worst on: most behind the rival, then most choices missed.

    Args:
        queries: `queries.parquet`.
        system: the measured system.
        rival: the baseline it is compared with; None orders by the number of missed choices alone.
    """
    own = pl.col(f"{system}/recall@{HEADLINE}")
    behind = pl.lit(0.0) if rival is None else pl.col(f"{rival}/recall@{HEADLINE}") - own
    missed = pl.col("targets").list.len() * (1 - own)
    # As counts of choices: a user with one choice would else always be the worst.
    ordered = queries.with_columns(behind=behind * pl.col("targets").list.len(), missed=missed)
    return ordered.sort("behind", "missed", "user_id", descending=[True, True, False])


def worst(queries: pl.DataFrame, dataset: Dataset, system: str, rival: str | None) -> list[Worst]:
    """Return the shoppers with the worst lists, in the order of `worst_order`."""
    titles = Titles(dataset)
    found = []
    for number, row in enumerate(
        worst_order(queries, system, rival).head(WORST_SHOWN).iter_rows(named=True), 1
    ):
        choices = _chosen(row, system, titles)
        missed = [choice for choice in choices if not choice.hit]
        stages: dict[str, int] = {}
        for choice in missed:
            if choice.note:
                stages[choice.note] = stages.get(choice.note, 0) + 1
        ordered = sorted(stages, key=lambda stage: -stages[stage])
        found.append(
            Worst(
                name=f"W{number}",
                events=row["history"],
                chosen=len(choices),
                own=row[f"{system}/recall@{HEADLINE}"],
                rival=None if rival is None else row[f"{rival}/recall@{HEADLINE}"],
                stages=", ".join(f"{stages[stage]} {stage}" for stage in ordered),
                examples=[choice.title for choice in missed[:3]],
            )
        )
    return found
