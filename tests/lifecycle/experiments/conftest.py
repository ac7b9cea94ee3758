from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

START = datetime(2024, 5, 1, 12, tzinfo=UTC)
Row = tuple[str, float, str, str, str | None]
"""User, hours since `START`, kind, item, and `experiment=arm` of the list it came from."""
Written = Callable[..., Path]


@pytest.fixture
def events_file(tmp_path: Path) -> Written:
    """Write events as `export events` does; a list is one per user and hour."""

    def write(rows: Sequence[Row], **columns: Sequence[Any]) -> Path:
        user, hours, kind, item, arms = (list(part) for part in zip(*rows, strict=True))
        start = round(START.timestamp() * 1e6)
        times = pl.Series([start + round(at * 3.6e9) for at in hours], dtype=pl.Int64)
        frame = pl.DataFrame(
            {
                "user_id": user,
                "item_id": item,
                "event": kind,
                "timestamp": times.cast(pl.Datetime("us", "UTC")),
                "request_id": [
                    f"{u}/{int(h)}" if a else None for u, h, a in zip(user, hours, arms, strict=True)
                ],
                "surface": ["home" if a else None for a in arms],
                "experiments": pl.Series(arms, dtype=pl.String),
                **columns,
            }
        )
        path = tmp_path / "events.parquet"
        frame.write_parquet(path)
        return path

    return write


def crowd(
    users: int, arms: Sequence[str], clicks: Sequence[int], name: str = "home", impressions: int = 10
) -> list[Row]:
    """Return users of each arm in turn, who see ten items each.

    User n of an arm clicks `clicks[n % len(clicks)]`, and one more in every arm after the first.
    """
    rows: list[Row] = []
    for n in range(users):
        for number, arm in enumerate(arms):
            user, label = f"{arm}-{n}", f"{name}={arm}"
            rows += [(user, n % 240, "impression", f"i{k}", label) for k in range(impressions)]
            count = clicks[n % len(clicks)] + (number > 0)
            rows += [(user, n % 240 + 0.01, "click", f"i{k}", label) for k in range(count)]
    return rows
