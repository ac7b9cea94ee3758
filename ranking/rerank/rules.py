"""The shop's own rules for a list: caps, pins, boosts, places for exploration. Pure, like all of ranking.

A list is cut into pages, so every rule knows what came before: `Rules.shown` and `Rules.before` make the
second page continue the first one, whatever the model or the catalogue did in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from features.candidates.features import Candidates
from features.data.dataset import BoolArray, FloatArray, IntArray

Value = TypeVar("Value", bound=np.generic)


def _no_rows() -> IntArray:
    return np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class Cap:
    """At most so many items of a list have the same value of an attribute."""

    codes: IntArray  # [items] code of each row's value, -1 where it has none: such items are not counted
    limit: int


@dataclass(frozen=True)
class Pin:
    """An item at a given place."""

    row: int
    position: int
    """From 1, counted over all pages."""


@dataclass(frozen=True)
class Boost:
    """Items that are moved up or down."""

    matches: BoolArray  # [items]
    strength: float
    """-1 to 1, in units of the distance between the best and the worst candidate: 1 puts items before all
    others, -1 behind them."""


@dataclass(frozen=True)
class Rules:
    """What holds for one list."""

    caps: tuple[Cap, ...] = ()
    pins: tuple[Pin, ...] = ()
    boosts: tuple[Boost, ...] = ()
    exploration: float = 0.0
    """Share of the places that go to items of which little is known."""
    seed: int = 0
    """Decides which places and items are explored; the same for all pages of a list."""
    shown: IntArray = field(default_factory=_no_rows)
    """Rows of the pages before."""
    before: int = 0
    """Items of the pages before; not the length of `shown`, which leaves out items that no longer exist."""


def values_at(values: npt.NDArray[Value], rows: IntArray, default: object) -> npt.NDArray[Value]:
    """Return values by row; rows that were added after the values were made have the default."""
    inside = rows < len(values)
    found = np.full(len(rows), default, dtype=values.dtype)
    found[inside] = values[rows[inside]]
    return found


def boosted(scores: FloatArray, rows: IntArray, boosts: tuple[Boost, ...]) -> FloatArray:
    """Return the scores that order candidates once boosts are added, [candidates]."""
    if not boosts or len(scores) == 0:
        return scores
    strength = np.zeros(len(rows))
    for boost in boosts:
        strength += boost.strength * values_at(boost.matches, rows, False)
    spread = float(scores.max() - scores.min())
    # A little more than the distance, so that full strength passes the best and does not tie with it.
    unit = spread * 1.001 if spread > 0 else 1.0
    moved: FloatArray = (scores + unit * np.clip(strength, -1.0, 1.0)).astype(np.float64)
    return moved


def full_values(cap: Cap, rows: IntArray) -> IntArray:
    """Return the codes of which a list with these rows can take no more."""
    codes = values_at(cap.codes, rows, -1)
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    return values[counts >= cap.limit].astype(np.int32)


def pending(
    rules: Rules, exclude: IntArray, allowed: BoolArray | None, hidden: BoolArray | None
) -> tuple[Pin, ...]:
    """Return the pins that are still to come and may: a pin obeys filter, exclusions and deletions.

    It does not obey `exclude_seen`: the shop has decided to show it.
    """

    def may(row: int) -> bool:
        if hidden is not None and row < len(hidden) and hidden[row]:
            return False
        return (allowed is None or (row < len(allowed) and bool(allowed[row]))) and row not in exclude

    return tuple(pin for pin in rules.pins if pin.position > rules.before and may(pin.row))


def open_rows(rules: Rules, pins: tuple[Pin, ...], allowed: BoolArray | None, items: int) -> BoolArray | None:
    """Return the mask of rows whose values have room, [items], within `allowed`; None where all have.

    Retrieval searches inside it, so that a list goes on where thousands of the nearest items are of a value
    that is used up. Pins count from the beginning, or the items before them would take their room.
    """
    taken = np.concatenate([rules.shown, np.array([pin.row for pin in pins], dtype=np.int32)])
    for cap in rules.caps:
        full = full_values(cap, taken)
        if len(full):
            room = np.ones(items, dtype=np.bool_)
            known = min(items, len(cap.codes))
            room[:known] = ~np.isin(cap.codes[:known], full)
            allowed = room if allowed is None else room & allowed
    return allowed


def with_pins(candidates: Candidates, pins: list[tuple[Pin, ...]]) -> Candidates:
    """Add pinned rows to the candidates, from no source, so that they are scored like the others."""
    width = max((len(p) for p in pins), default=0)
    if width == 0:
        return candidates
    rows = np.full((len(pins), width), -1, dtype=np.int32)
    for query, wanted in enumerate(pins):
        rows[query, : len(wanted)] = [pin.row for pin in wanted]
    return Candidates(
        np.concatenate([candidates.rows, rows], axis=1),
        np.pad(candidates.sources, ((0, 0), (0, width))),
        np.pad(candidates.fused, ((0, 0), (0, width))),
    )
