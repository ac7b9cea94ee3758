"""Join columns of two tables, and whether a cell has several ids."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from features.files.readers import readable
from features.ingest.cleaning import id_of
from features.ingest.id_lists import ids_in, separator_of
from features.ingest.id_matching import rules_between
from features.inspection.files import FileFacts
from features.inspection.profiles import ColumnProfile
from features.values.names import ITEM, KIND, PRICE, QUANTITY, TIME, USER, VALUE, name_score

_CANDIDATES = 12
_MANY = 20
"""Different values by which rows of a table may be known, even where each has several rows."""
_MATCHED = 0.9
"""Share of the unknown ids from which on case or zeros are what they differ in."""
_ALL = 0.99
"""Share of matching values above which cells are not searched for several ids."""


def values_of(facts: FileFacts, column: str) -> set[str]:
    """Return the distinct ids of a column of the whole file."""
    table = facts.scan()
    with readable(facts.path):
        found = (
            table.frame.select(id_of(table.frame, column).unique()).collect(engine="streaming").to_series()
        )
    return set(found.drop_nulls())


def ids(sample: pl.DataFrame, column: str) -> pl.Series:
    """Return a column of a sample parsed as ids, [rows]."""
    return sample.select(id_of(sample.lazy(), column)).to_series()


def _sampled(facts: FileFacts, column: str) -> set[str]:
    return set(ids(facts.sample, column).drop_nulls())


def joinable(column: ColumnProfile) -> bool:
    """Return whether a column may hold ids: no objects, amounts, times or links."""
    return (
        not column.nested
        and column.filled > 0
        and column.decimal < 0.5
        and column.written_time < 0.5
        and column.url < 0.5
    )


@dataclass(frozen=True)
class Joint:
    """The columns by which events name their items, and the share of the events looked at that do."""

    items: str
    events: str
    share: float
    several: bool = False
    """Whether cells of the events hold several ids."""
    match: tuple[str, ...] = ()
    """`data.match_ids`: what ids of both tables differ in."""


def _id_share(values: set[str], there: set[str]) -> tuple[float, bool, tuple[str, ...]]:
    """Return the share of values that are ids, whether cells hold several, and what spellings differ in."""
    share = len(values & there) / len(values) if values else 0.0
    if share >= _ALL:
        return share, False, ()
    cells = pl.Series(sorted(values - there), dtype=pl.String)
    known = pl.Series(sorted(there), dtype=pl.String)
    separator = separator_of(cells, known)
    if separator is not None:
        single = {*(values & there), *ids_in(cells, separator)}
        return len(single & there) / len(single), True, ()
    rules, _, _ = rules_between(cells, known, _MATCHED)
    return (_ALL if rules else share), False, rules


def holds_several(facts: FileFacts, column: str) -> bool:
    """Return whether cells of a table without a catalogue hold several ids that also occur alone."""
    return separator_of(pl.Series(sorted(_sampled(facts, column)), dtype=pl.String)) is not None


def find_joint(items: FileFacts, events: FileFacts) -> Joint | None:
    """Find the columns of two tables that hold the same ids: candidates by name, verified by values.

    Returns:
        The best pair, or None where no two columns have values in common.
    """
    taken = {events.roles.columns.get(role) for role in (USER, TIME, KIND, QUANTITY, VALUE)}
    price = items.roles.columns.get(PRICE)
    left = sorted(
        (
            n
            for n, c in items.columns.items()
            if joinable(c) and (c.distinct > 0.3 or c.values > _MANY) and n != price
        ),
        key=lambda n: -name_score(ITEM, n),
    )[:_CANDIDATES]
    right = sorted(
        (n for n, c in events.columns.items() if joinable(c) and n not in taken),
        key=lambda n: -name_score(ITEM, n),
    )[:_CANDIDATES]
    named = {column: _sampled(events, column) for column in right}
    best: tuple[float, Joint] | None = None
    for column in left:
        there = values_of(items, column)
        for other, values in named.items():
            share, several, match = _id_share(values, there)
            by_name = 0.25 * (name_score(ITEM, column) + name_score(ITEM, other))
            few = 0.3 if len(values) < 0.05 * len(there) and len(values) < 20 < len(there) else 0.0
            scored = (share + by_name - few if share else 0.0, Joint(column, other, share, several, match))
            if scored[0] > 0 and (best is None or scored[0] > best[0]):
                best = scored
    return best[1] if best is not None and best[1].share > 0.2 else None
