"""Items in responses: title, snippet, scores and reasons, written into messages."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message

from features.data.dataset import FloatArray, IntArray
from features.text.titles import shortened, shown_title, title_column
from ranking.catalogue.live_catalogue import LiveCatalogue
from ranking.types import Reason, Recommendation
from shelfwise_client.v1 import recommendations_pb2 as pb

SNIPPET_CHARS: Final = 160
_CACHE_SIZE: Final = 32_768
"""Items whose title and snippet are cached; a few hundred bytes each."""


class ItemCards:
    """Titles and snippets of items, for all states of a catalogue."""

    def __init__(self, catalogue: LiveCatalogue) -> None:
        """Find the title column, if there is one."""
        self._catalogue = catalogue
        self._column = title_column(catalogue.base.attributes)
        frame = catalogue.base.frame
        titles = None if self._column is None else frame[self._column].cast(str, strict=False)
        texts = catalogue.base.texts

        # Not a method: the cache would refer to its owner, a cycle that keeps a replaced model in memory.
        @lru_cache(_CACHE_SIZE)
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

        Messages are filled in place, field by field: keyword arguments and a list of finished messages, which
        a response copies, take five times as long.

        Args:
            items: of the response.
            answer: the list.
            intent: the request's intent, for reasons.
            explain: whether to add reasons.
            fields: of the read mask; None for all.
            before: number of items on earlier pages.
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
            message.propensity = item.propensity
            if explain:
                message.reasons.extend([self._reason(reason, intent) for reason in item.reasons])
            message.list_position = position
            _apply_read_mask(message, fields)

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
            _apply_read_mask(message, fields)

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


def _apply_read_mask(message: Message, fields: frozenset[str] | None) -> None:
    """Clear every field that the read mask leaves out."""
    if fields is not None:
        for field in message.DESCRIPTOR.fields:
            if field.name not in fields:
                message.ClearField(field.name)
