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
    """A request for one list."""

    history: History
    now: int
    """Unix seconds; recency is measured from here."""
    k: int = 10
    exclude: IntArray = field(default_factory=_no_rows)
    """Rows that must not appear."""
    allowed: BoolArray | None = None
    """[items] mask of rows that pass the caller's filter; None allows all."""
    filter: str = ""
    """The filter behind `allowed`, in the project's language, for an engine that tests it itself; the mask
    decides."""
    exclude_seen: bool = False
    """Leave out the items of the history."""
    diversity: float = 0.0
    novelty: float | None = None
    """Budget for promoting items without events, see `scoring.novelty`; None takes the model's."""
    intent: FloatArray | None = None
    """[text dim] unit vector of `query_text`; None without a text query."""
    query_text: str = ""
    """The text query, also matched word by word."""
    explain: bool = False
    rules: Rules | None = None
    """Merchandising rules; `search` ignores them."""

    def explored_by(self, seed: int) -> Request:
        """Return the same request with another exploration seed."""
        return self if self.rules is None else replace(self, rules=replace(self.rules, seed=seed))


@dataclass(frozen=True)
class Reason:
    """A reason for an item of a list."""

    kind: str
    """`bought_before`, `chosen_before`, `viewed_before`, `goes_with`, `reads_like`, `for_you`, `popular`,
    `matches_intent`, `pinned` or `exploration`."""
    because: int | None = None
    """Row of the history item that the reason refers to."""


class RecommendedItem(NamedTuple):
    """One item of a list; a tuple, because thousands are created per second."""

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
    propensity: float = 1.0
    """See `ranking.rerank.slate.SlateItem`; 1 in a list without exploration."""


@dataclass(frozen=True)
class Recommendation:
    """The answer to one Request."""

    items: tuple[RecommendedItem, ...]
    degradation: str
    """`none`, `candidates_unavailable`, `text_only` or `popularity`: the degradation level."""
