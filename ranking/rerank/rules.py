"""Merchandising rules of a list: caps, pins, boosts, exploration. Pure, like all of ranking.

Rules hold across pages: `Rules.shown` and `Rules.before` make a page continue the previous ones, whatever
changed in the model or the catalogue in between.
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
    """Limit on the items of a list with the same value of an attribute."""

    codes: IntArray  # [items] code of each row's value, -1 for none: not counted
    limit: int


@dataclass(frozen=True)
class Pin:
    """An item at a fixed position."""

    row: int
    position: int
    """From 1, counted over all pages."""


@dataclass(frozen=True)
class Boost:
    """Items that are promoted or demoted."""

    matches: BoolArray  # [items]
    strength: float
    """-1 to 1, in units of the distance between the best and the worst candidate: 1 puts items before all
    others, -1 behind them."""


@dataclass(frozen=True)
class Rules:
    """The rules of one list."""

    caps: tuple[Cap, ...] = ()
    pins: tuple[Pin, ...] = ()
    boosts: tuple[Boost, ...] = ()
    exploration: float = 0.0
    """Share of the positions reserved for items with few events."""
    seed: int = 0
    """Seed of the explored positions and items; the same for all pages of a list."""
    shown: IntArray = field(default_factory=_no_rows)
    """Rows of previous pages."""
    before: int = 0
    """Items of previous pages; `shown` may be shorter, without items that no longer exist."""


def values_at(values: npt.NDArray[Value], rows: IntArray, default: object) -> npt.NDArray[Value]:
    """Return values by row, [rows]; the default for rows beyond the values."""
    inside = rows < len(values)
    found = np.full(len(rows), default, dtype=values.dtype)
    found[inside] = values[rows[inside]]
    return found


def boosted(scores: FloatArray, rows: IntArray, boosts: tuple[Boost, ...]) -> FloatArray:
    """Return the scores with boosts added, [candidates]."""
    if not boosts or len(scores) == 0:
        return scores
    strength = np.zeros(len(rows))
    for boost in boosts:
        strength += boost.strength * values_at(boost.matches, rows, False)
    spread = float(scores.max() - scores.min())
    # Slightly more than the distance, so that full strength beats the best instead of a tie.
    unit = spread * 1.001 if spread > 0 else 1.0
    moved: FloatArray = (scores + unit * np.clip(strength, -1.0, 1.0)).astype(np.float64)
    return moved


def full_values(cap: Cap, rows: IntArray) -> IntArray:
    """Return the codes whose cap is exhausted by these rows."""
    codes = values_at(cap.codes, rows, -1)
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    return values[counts >= cap.limit].astype(np.int32)


def pending(
    rules: Rules, exclude: IntArray, allowed: BoolArray | None, hidden: BoolArray | None
) -> tuple[Pin, ...]:
    """Return the pins of this and later pages that filter, exclusions and deletions allow.

    `exclude_seen` does not apply to pins.
    """

    def is_allowed(row: int) -> bool:
        if hidden is not None and row < len(hidden) and hidden[row]:
            return False
        return (allowed is None or (row < len(allowed) and bool(allowed[row]))) and row not in exclude

    return tuple(pin for pin in rules.pins if pin.position > rules.before and is_allowed(pin.row))


def open_rows(rules: Rules, pins: tuple[Pin, ...], allowed: BoolArray | None, items: int) -> BoolArray | None:
    """Return the mask of allowed rows whose caps are not exhausted, [items]; None where all rows are.

    Retrieval searches inside it, so that a list is filled even where thousands of the nearest items share an
    exhausted value. Pins count from the start, or earlier items would take up their caps.
    """
    taken = np.concatenate([rules.shown, np.array([pin.row for pin in pins], dtype=np.int32)])
    for cap in rules.caps:
        full = full_values(cap, taken)
        if len(full):
            below_cap = np.ones(items, dtype=np.bool_)
            known = min(items, len(cap.codes))
            below_cap[:known] = ~np.isin(cap.codes[:known], full)
            allowed = below_cap if allowed is None else below_cap & allowed
    return allowed


def with_pins(candidates: Candidates, pins: list[tuple[Pin, ...]]) -> Candidates:
    """Return the candidates with pinned rows, which have no source, so that these are scored, too."""
    width = max((len(p) for p in pins), default=0)
    if width == 0:
        return candidates
    rows = np.full((len(pins), width), -1, dtype=np.int32)
    for query, pinned in enumerate(pins):
        rows[query, : len(pinned)] = [pin.row for pin in pinned]
    return Candidates(
        np.concatenate([candidates.rows, rows], axis=1),
        np.pad(candidates.sources, ((0, 0), (0, width))),
        np.pad(candidates.fused, ((0, 0), (0, width))),
    )
