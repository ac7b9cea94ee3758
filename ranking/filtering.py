"""The first stage of a list: the rows that it may hold, decided before candidates are retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.data.dataset import BoolArray
from features.data.histories import HistoryBatch
from ranking.rerank.rules import Pin, open_rows, pending
from ranking.retrieval.limits import Limits, excluded_keys
from ranking.stage_timing import timed
from ranking.types import Request
from ranking.words.text_match import TextMatch, TextQuery


@dataclass(frozen=True)
class Filtered:
    """A batch of requests with the limits of each list."""

    requests: list[Request]
    batch: HistoryBatch
    """Their histories."""
    limits: Limits
    pins: list[tuple[Pin, ...]] | None
    """Of each list; None where no request has rules."""
    intents: list[TextQuery | None]
    """The text query of each request; None without one."""


@timed("limits")
def filter_requests(
    requests: Sequence[Request],
    batch: HistoryBatch,
    texts: TextMatch,
    hidden: BoolArray | None,
    items: int,
) -> Filtered:
    """Decide what each list may hold; sources apply these limits inside their searches.

    Left out are rows outside the filter, exclusions, seen items where requested, deleted items, pinned items
    (their positions are fixed) and values whose caps are exhausted.

    Args:
        requests: of the batch.
        batch: their histories.
        texts: resolves intents.
        hidden: [items] mask of rows that must never appear; None where there are none.
        items: catalogue size.

    """
    requests, pins = list(requests), None
    if any(r.rules is not None for r in requests):
        pins = [() if r.rules is None else pending(r.rules, r.exclude, r.allowed, hidden) for r in requests]
        requests = [_within_rules(r, p, items) for r, p in zip(requests, pins, strict=True)]
    excluded = excluded_keys(batch, [r.exclude for r in requests], [r.exclude_seen for r in requests], items)
    limits = Limits(excluded, [r.allowed for r in requests], hidden, [r.filter for r in requests])
    intents = [None if r.intent is None else texts.query(r.intent, r.query_text) for r in requests]
    return Filtered(requests, batch, limits, pins, intents)


def _within_rules(request: Request, pins: tuple[Pin, ...], items: int) -> Request:
    """Return the request without pinned items and values whose caps are exhausted: neither is retrieved."""
    if request.rules is None:
        return request
    return replace(
        request,
        rules=replace(request.rules, pins=pins),
        exclude=np.union1d(request.exclude, [pin.row for pin in pins]).astype(np.int32),
        allowed=open_rows(request.rules, pins, request.allowed, items),
    )
