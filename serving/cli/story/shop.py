"""A finished run's data for the demonstration: titles, histories and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml  # type: ignore[import-untyped]

from conf.errors import InputError
from features.data import schema
from features.text.titles import shown_title, title_column
from features.text.words import content_words, words
from ranking.bundle.bundle import CONFIG, HISTORIES
from ranking.bundle.catalogue_file import read_catalogue
from ranking.bundle.store import VERSIONS, current_version

SEED = 0
"""Seed of samples of users."""


@dataclass(frozen=True)
class Shop:
    """Items and histories of the published bundle."""

    titles: Mapping[str, str]
    """Item id -> title."""
    bought: Mapping[str, list[str]]
    """User id -> items of the stored history, oldest first."""
    now: datetime
    """A second after the last stored event: the request time of lists."""

    def title(self, item: str) -> str:
        """Return an item's title, or its id where there is none."""
        return self.titles.get(item, item)

    def sample(self, users: Iterable[str], limit: int) -> list[str]:
        """Return at most `limit` users, drawn without replacement with a fixed seed."""
        pool = sorted(users)
        if len(pool) <= limit:
            return pool
        drawn = np.random.default_rng(SEED).choice(len(pool), size=limit, replace=False)
        return [pool[index] for index in sorted(drawn)]

    def middling(self) -> list[str]:
        """Return the users whose number of distinct items is between the quartiles of all users."""
        sizes = {user: len(set(items)) for user, items in self.bought.items()}
        low, high = np.quantile(list(sizes.values()), (0.25, 0.75))
        return [user for user, size in sizes.items() if low <= size <= high]

    def titles_with(self, text: str) -> dict[str, int]:
        """Count the titles that have each word of a text, little words left out, as search compares them."""
        wanted = dict.fromkeys(content_words(text), 0)
        for title in self.titles.values():
            for word in wanted.keys() & set(words(title)):
                wanted[word] += 1
        return wanted


def read_shop(artifacts: Path) -> Shop:
    """Read a store's current bundle and its histories.

    Raises:
        InputError: no published bundle, or no histories.
    """
    catalogue = read_catalogue(artifacts, current_version(artifacts)).frame
    column = title_column(catalogue.columns)
    chosen = [schema.ITEM_ID, schema.TEXT, *([column] if column else [])]
    titles = {
        row[0]: shown_title(row[2] if column else None, row[1])
        for row in catalogue.select(chosen).iter_rows()
    }
    histories = pl.read_parquet(artifacts / HISTORIES)
    if histories.is_empty():
        raise InputError(f"{artifacts / HISTORIES}: no events, so there are no shoppers to show")
    ordered = histories.sort(schema.USER_ID, schema.TIMESTAMP, schema.ORDER, maintain_order=True)
    grouped = ordered.group_by(schema.USER_ID, maintain_order=True).agg(schema.ITEM_ID)
    last = histories.select(pl.col(schema.TIMESTAMP).max()).item()
    return Shop(titles, dict(grouped.iter_rows()), datetime.fromtimestamp(last + 1, UTC))


def read_settings(artifacts: Path) -> dict[str, Any]:
    """Return the settings that a store's current bundle was made with."""
    file = artifacts / VERSIONS / current_version(artifacts) / CONFIG
    settings: dict[str, Any] = yaml.safe_load(file.read_text())
    return settings


def read_metrics(work: Path) -> dict[str, Any] | None:
    """Return a run's metrics, or None where nothing was measured."""
    return _read_json(work / "evaluation" / "metrics.json")


def read_training(work: Path) -> dict[str, Any]:
    """Return the report of a run's encoder training; empty where there is none."""
    return _read_json(work / "encoder" / "training.json") or {}


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found
