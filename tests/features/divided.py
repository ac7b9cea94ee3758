"""Small shops to divide, and what is asked of their parts."""

from __future__ import annotations

import numpy as np

from conf.schema import SplitConfig, SplitKind
from features.data.splits import Queries
from tests.synthetic import DAY, START, EventRow

LEAVE_ONE_OUT = SplitConfig(kind=SplitKind.leave_one_out)
ITEMS = [f"i{n}" for n in range(10)]


def bought(user: str, *items: int, start: int = 0) -> list[EventRow]:
    return [(user, f"i{item}", "purchase", start + 10 * place) for place, item in enumerate(items)]


def asked(queries: Queries) -> list[tuple[int, int, int, list[int]]]:
    """User, end of the history, time and sorted targets of every query."""
    return [
        (
            int(queries.user[q]),
            int(queries.end[q]),
            int(queries.time[q]),
            sorted(queries.targets[queries.target_offsets[q] : queries.target_offsets[q + 1]].tolist()),
        )
        for q in range(len(queries))
    ]


def days(*moments: tuple[str, int, int]) -> list[EventRow]:
    """Events of (user, item, day)."""
    return [(user, f"i{item}", "purchase", START + day * DAY) for user, item, day in moments]


def dates(valid: int, test: int) -> SplitConfig:
    stamps = [str(np.datetime64(START + day * DAY, "s")) for day in (valid, test)]
    return SplitConfig(valid_start=stamps[0], test_start=stamps[1], ranker_fraction=0.1)
