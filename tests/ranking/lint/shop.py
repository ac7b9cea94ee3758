"""A made-up shop without leaks, into which tests plant one each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from conf.schema import EvaluationConfig, LintConfig, SplitConfig, SplitKind
from features.data import schema
from features.data.dataset import Dataset
from features.data.splits import make_split
from ranking.lint.findings import Finding
from ranking.lint.linter import lint
from ranking.lint.material import Material
from ranking.lint.worth import Yardstick
from tests.synthetic import DAY, START, make_dataset

TOPICS = 8
DAYS = 300
TEST_START = START + 270 * DAY
VALID_START = START + 240 * DAY

Row = tuple[str, str, str, int]
"""User, item, kind, time."""


@dataclass(frozen=True)
class Shop:
    """Raw rows; every test changes a copy."""

    rows: list[Row]
    items: pl.DataFrame
    columns: dict[tuple[str, str, int], dict[str, object]] = field(default_factory=dict)
    """Optional columns of the event of a user, an item and a time."""

    def with_rows(self, rows: Sequence[Row]) -> Shop:
        return replace(self, rows=list(rows))

    def adding(self, rows: Sequence[Row]) -> Shop:
        return replace(self, rows=[*self.rows, *rows])

    def with_texts(self, texts: dict[str, str]) -> Shop:
        ids = self.items[schema.ITEM_ID].to_list()
        given = [texts.get(i, t) for i, t in zip(ids, self.items[schema.TEXT].to_list(), strict=True)]
        return replace(self, items=self.items.with_columns(pl.Series(schema.TEXT, given)))

    def with_column(self, name: str, values: Sequence[object]) -> Shop:
        return replace(self, items=self.items.with_columns(pl.Series(name, values)))

    def dataset(self) -> Dataset:
        """Sort by user and time; equal times keep the order of the rows."""
        ordered = sorted(self.rows, key=lambda row: (row[0], row[3]))
        return make_dataset(ordered, self.items)

    def material(self, kind: SplitKind = SplitKind.global_time, **changes: object) -> Material:
        split = SplitConfig(kind)
        if kind is SplitKind.global_time:
            test, valid = (str(np.datetime64(t, "s")) for t in (TEST_START, VALID_START))
            split = SplitConfig(kind, test_start=test, valid_start=valid)
        config = LintConfig(split=split, evaluation=EvaluationConfig(bootstrap=300), **changes)  # type: ignore[arg-type]
        dataset = self.dataset()
        columns = None
        if self.columns:
            ordered = sorted(self.rows, key=lambda row: (row[0], row[3]))
            names = sorted({name for values in self.columns.values() for name in values})
            columns = pl.DataFrame(
                {
                    name: [
                        self.columns.get((user, item, time), {}).get(name) for user, item, _, time in ordered
                    ]
                    for name in names
                },
                strict=False,
            )
        return Material.of(dataset, make_split(dataset, split, []), config, columns)


def clean_shop(users: int = 300, items: int = 200, seed: int = 0) -> Shop:
    """Draw a shop: a user keeps to a topic and buys each item once, at a second of its own, at random."""
    rng = np.random.default_rng(seed)
    ids = sorted(f"{n:08x}" for n in rng.choice(1 << 31, size=items, replace=False))
    topic = rng.permutation(np.arange(items) % TOPICS)
    words = [f"word{n}" for n in range(600)]
    texts = [
        " ".join([f"topic{topic[row]}", *rng.choice(words, size=4, replace=False)]) for row in range(items)
    ]
    names = [f"u{n:08x}" for n in rng.choice(1 << 31, size=users, replace=False)]
    rows: list[Row] = []
    for number, name in enumerate(names):
        own = np.flatnonzero(topic == number % TOPICS)
        count = int(rng.integers(8, 15))
        chosen = rng.choice(own, size=count, replace=False)
        times = np.sort(rng.integers(0, DAYS * DAY, size=count))
        rows += [(name, ids[i], "purchase", START + int(t)) for i, t in zip(chosen, times, strict=True)]
    frame = pl.DataFrame({schema.ITEM_ID: ids, schema.TEXT: texts, "title": texts})
    return Shop(rows, frame)


def found(material: Material, check: str) -> Finding:
    """Return the one finding of a check, measured."""
    [finding] = [finding for finding in measured(material) if finding.check == check]
    return finding


def measured(material: Material) -> list[Finding]:
    return lint(material, Yardstick(material, 0, 0, 300))


def items_of(shop: Shop) -> list[str]:
    ids: list[str] = shop.items[schema.ITEM_ID].to_list()
    return ids


def users_of(shop: Shop) -> list[str]:
    return list(dict.fromkeys(row[0] for row in shop.rows))


def before(shop: Shop, user: str, time: int) -> list[Row]:
    """Return a user's rows before a time, oldest first."""
    return sorted((row for row in shop.rows if row[0] == user and row[3] < time), key=lambda row: row[3])
