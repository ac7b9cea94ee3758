"""Requests and answers of the Recommender: dense rows only, no string ids, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from ranking.rerank.rules import Rules


def _no_rows() -> IntArray:
    return np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class History:
    """A user's (or session's) past events, oldest first."""

    items: IntArray  # [length] catalogue rows
    kinds: npt.NDArray[
        np.int8
    ]  # [length] event kind codes; `features.data.histories.INTEREST` for unknown ones
    times: LongArray  # [length] Unix seconds


@dataclass(frozen=True)
class Request:
    """One list to make."""

    history: History
    now: int
    """Unix seconds; recency is measured from here."""
    k: int = 10
    exclude: IntArray = field(default_factory=_no_rows)
    """Rows that must not appear."""
    allowed: BoolArray | None = None
    """[items] mask of rows that pass the caller's filter; None allows all."""
    exclude_seen: bool = False
    """Leave out the items of the history itself."""
    diversity: float = 0.0
    novelty: float | None = None
    """Budget for moving up items without behaviour, see `scoring.novelty`; None takes the model's own."""
    intent: FloatArray | None = None
    """[text dim] unit vector of what is looked for; None where nothing was said."""
    said: str = ""
    """The words of `intent`, by which items are looked up, too."""
    explain: bool = False
    rules: Rules | None = None
    """The shop's own rules; `search` does not know them."""

    def explored_by(self, seed: int) -> Request:
        """Return the same request with another seed of exploration."""
        return self if self.rules is None else replace(self, rules=replace(self.rules, seed=seed))


@dataclass(frozen=True)
class Reason:
    """Why an item is in the list."""

    kind: str
    """`bought_before`, `chosen_before`, `viewed_before`, `goes_with`, `reads_like`, `for_you`, `popular`,
    `matches_intent`, `pinned` or `exploration`."""
    because: int | None = None
    """Row of the history item that the reason points to."""


class Recommended(NamedTuple):
    """One item of a list; a tuple, because thousands are made in a second."""

    row: int
    score: float
    """Ranking score; comparable within one model version only."""
    p_click: float
    p_purchase: float
    """Calibrated probabilities from the ranking head; NaN where the bundle has none."""
    source: str
    """Name of the first candidate source that proposed it, see `ranking.sources.registry`; pinned or
    exploration where a rule of that name put the item there."""
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Recommendation:
    """The answer to one Request."""

    items: tuple[Recommended, ...]
    degradation: str
    """`none`, `session_only`, `text_only` or `popularity`: the rung of the fallback ladder that answered."""
