"""Between the wire and the model: string ids and messages on one side, catalogue rows on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Final

import numpy as np
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from features.dataset import FloatArray, IntArray
from features.titles import shortened, shown_title, title_column
from ranking.live_catalogue import LiveCatalogue
from ranking.requests import History, Reason, Recommendation
from serving.kinds import DEFAULT_KIND, history_codes
from serving.model import Model
from serving.problems import invalid
from serving.proto.shelfwise.v1 import recommendations_pb2 as pb
from serving.user_state import MICROS, PastEvent
from serving.validation import MAX_SESSION_EVENTS, event_kind, keep_fields, micros, optional_id

SNIPPET_CHARS: Final = 160
_KEPT_CARDS: Final = 32_768
"""Items whose title and snippet are kept once they have been made; a few hundred bytes each."""
_DEGRADATIONS: Final = {
    "none": pb.DEGRADATION_NONE,
    "session_only": pb.DEGRADATION_SESSION_ONLY,
    "text_only": pb.DEGRADATION_TEXT_ONLY,
    "popularity": pb.DEGRADATION_POPULARITY,
}


@dataclass(frozen=True)
class SessionEvents:
    """The events of a session context that the model knows, oldest first."""

    items: list[str]
    kinds: list[str]
    times_us: list[int]
    unknown: list[str]
    """Item ids that the model does not know, each once."""


def session_events(session: pb.SessionContext, model: Model, now_us: int) -> SessionEvents:
    """Check and resolve the events of a session.

    Raises:
        Problem: too many events, an empty or too long item id, a kind that no event can have, or an
            impossible time.
    """
    if len(session.events) > MAX_SESSION_EVENTS:
        raise invalid("session.events", f"{len(session.events)} events; send the latest {MAX_SESSION_EVENTS}")
    found = SessionEvents([], [], [], [])
    known = model.kinds
    unknown: dict[str, None] = {}
    for index, event in enumerate(session.events):
        path = f"session.events[{index}]"
        if not optional_id(f"{path}.item_id", event.item_id):
            raise invalid(f"{path}.item_id", "is empty")
        kind = event_kind(f"{path}.event", event.event, known) if event.event else DEFAULT_KIND
        time_us = micros(f"{path}.event_time", event.event_time) if event.HasField("event_time") else now_us
        if model.catalogue.row(event.item_id) is None:
            unknown[event.item_id] = None
            continue
        found.items.append(event.item_id)
        found.kinds.append(kind)
        found.times_us.append(time_us)
    found.unknown.extend(unknown)
    return found


def merge_history(
    model: Model, stored: Sequence[PastEvent], session: SessionEvents, now: int, limit: int
) -> tuple[History, int]:
    """Join stored and session events into one history of the items that the model knows.

    Events whose kinds mean nothing to it are left out, see `serving.kinds`.

    Args:
        model: gives rows and kind codes.
        stored: oldest first.
        session: oldest first; an event that is stored too (same item, kind and second) counts once.
        now: Unix seconds; no event counts as later than this, whatever the sender's clock said.
        limit: most events kept, the latest.

    Returns:
        The history, and how many of its events were stored ones.
    """
    codes = history_codes(model.kinds)
    rows = model.catalogue.find([event[0] for event in stored])
    events = [  # (second, row, kind code, 1 if stored)
        (second if (second := time_us // MICROS) < now else now, row, code, 1)
        for (_, kind, time_us), row in zip(stored, rows, strict=True)
        if row is not None and (code := codes.get(kind)) is not None
    ]
    told = {event[:3] for event in events} if session.items else set()
    for item_id, kind, time_us in zip(session.items, session.kinds, session.times_us, strict=True):
        row, second, code = model.catalogue.row(item_id), min(time_us // MICROS, now), codes.get(kind)
        if row is not None and code is not None and (second, row, code) not in told:
            events.append((second, row, code, 0))
    events.sort(key=itemgetter(0))  # ties keep their order, session last
    # Column by column: numpy takes twice as long to find out what a list of tuples is.
    seconds, items, kinds, used = zip(*events[-limit:], strict=True) if events else ((), (), (), ())
    history = History(
        items=np.array(items, np.int32), kinds=np.array(kinds, np.int8), times=np.array(seconds, np.int64)
    )
    return history, sum(used)


def degradation(answered: str, stored: int, history: int, available: bool) -> pb.Degradation:
    """Name the rung of the fallback ladder.

    Args:
        answered: what the recommender said; it sees one history and cannot tell stored from session events.
        stored: events of the history that came from the store.
        history: events of the history.
        available: whether the store could be read.
    """
    if not available:
        return pb.DEGRADATION_HISTORY_UNAVAILABLE
    if answered == "none" and not history:
        return pb.DEGRADATION_TEXT_ONLY
    if answered == "none" and not stored:
        return pb.DEGRADATION_SESSION_ONLY
    return _DEGRADATIONS[answered]


class ItemCards:
    """Titles and snippets of a catalogue's items, of any of its states."""

    def __init__(self, catalogue: LiveCatalogue) -> None:
        """Find the title column, if there is one."""
        self._catalogue = catalogue
        self._column = title_column(catalogue.base.attributes)
        frame = catalogue.base.frame
        titles = None if self._column is None else frame[self._column].cast(str, strict=False)
        texts = catalogue.base.texts

        # Not a method: the cache would hold what holds it, and a former model stayed in memory for long.
        @lru_cache(_KEPT_CARDS)
        def of_bundle(row: int) -> tuple[str, str]:
            return _card(None if titles is None else titles[row], texts[row])

        self._of_bundle = of_bundle

    def card(self, row: int) -> tuple[str, str]:
        """Return title (the attribute, or else the beginning of the text) and snippet."""
        later = self._catalogue.later(row)
        if later is None:
            return self._of_bundle(row)
        return _card(None if self._column is None else later.values.get(self._column), later.text)

    def recommended(
        self,
        items: RepeatedCompositeFieldContainer[pb.RecommendedItem],
        answer: Recommendation,
        intent: str,
        explain: bool,
        fields: frozenset[str] | None,
        before: int,
    ) -> None:
        """Add the items of a list to a response.

        They are made in their place and field by field: keyword arguments and a list of finished messages,
        which a response copies, take five times as long.

        Args:
            items: of the response.
            answer: the list.
            intent: its words, for reasons.
            explain: whether reasons are wanted.
            fields: of the read mask; None for all.
            before: how many items are on other pages.
        """
        ids, card = self._catalogue.ids, self.card
        for position, item in enumerate(answer.items, start=before + 1):
            message = items.add()
            message.item_id = ids[item.row]
            message.title, message.snippet = card(item.row)
            message.score = item.score
            if not math.isnan(item.p_click):
                message.p_click = item.p_click
            if not math.isnan(item.p_purchase):
                message.p_purchase = item.p_purchase
            message.source = item.source
            if explain:
                message.reasons.extend([self._reason(reason, intent) for reason in item.reasons])
            message.list_position = position
            keep_fields(message, fields)

    def similar(
        self,
        items: RepeatedCompositeFieldContainer[pb.SimilarItem],
        rows: IntArray,
        cosines: FloatArray,
        fields: frozenset[str] | None,
        before: int,
    ) -> None:
        """Add the items of a similarity list to a response; see `recommended`."""
        pairs = zip(rows.tolist(), cosines.tolist(), strict=True)
        for position, (row, cosine) in enumerate(pairs, start=before + 1):
            message = items.add()
            message.item_id = self._catalogue.ids[row]
            message.title, message.snippet = self.card(row)
            message.similarity = cosine
            message.list_position = position
            keep_fields(message, fields)

    def _reason(self, reason: Reason, intent: str) -> pb.Reason:
        because = None if reason.because is None else self._catalogue.ids[reason.because]
        title = "" if reason.because is None else f' "{self.card(reason.because)[0]}"'
        sentences = {
            "bought_before": "Bought before",
            "chosen_before": "Chosen before",
            "viewed_before": "Looked at before",
            "goes_with": f"Goes with{title or ' what you chose'}",
            "reads_like": f"Similar to{title or ' what you chose'}",
            "for_you": "Picked for you",
            "popular": "Popular right now",
            "matches_intent": f'Matches "{shortened(intent, 80)}"',
            "pinned": "Chosen by the shop",
            "exploration": "Something new",
        }
        text = sentences.get(reason.kind, reason.kind.replace("_", " ").capitalize())
        return pb.Reason(kind=reason.kind, because_item_id=because, text=text)


def _card(title: object, text: str) -> tuple[str, str]:
    return shown_title(title, text), shortened(text, SNIPPET_CHARS)
