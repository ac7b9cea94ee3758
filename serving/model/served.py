"""One state of the served model, with lookup structures derived from it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from features.data.dataset import BoolArray
from features.text.item_text import TextTemplate
from ranking.catalogue.attribute_codes import ValueCodes
from ranking.catalogue.filter_language import AttributeKind, MaskCache
from ranking.catalogue.item_order import ItemOrder
from serving.model.interfaces import Model
from serving.model.item_cards import ItemCards
from serving.model.shown_items import ShownItems

_MODEL_TEXT_CHARS: Final = 1000
"""Raw item text is cut to this many characters where the model does not say how long its texts were."""


@dataclass(frozen=True)
class Served:
    """One state of a model with derived data; a request uses one from beginning to end."""

    model: Model
    cards: ItemCards
    shown: ShownItems
    masks: MaskCache
    order: ItemOrder
    """The items in the order of their ids."""
    codes: ValueCodes
    """Codes of attributes with caps; valid in every state."""
    attributes: dict[str, AttributeKind]
    diversity: float
    """MMR trade-off of requests that set none."""
    template: TextTemplate
    """Template of item texts; empty for a model without one."""
    text_chars: int
    """Length to which the training texts were truncated."""
    since_us: int
    """When this model (not this state of it) was loaded, microseconds since 1970."""

    @classmethod
    def of(cls, model: Model) -> Served:
        """Derive the data from a model's items; takes a second for a million items."""
        return cls(
            model=model,
            cards=ItemCards(model.catalogue),
            shown=ShownItems(model.catalogue),
            masks=MaskCache(),
            order=ItemOrder(),
            codes=ValueCodes(),
            attributes=model.catalogue.kinds,
            diversity=float(model.manifest.get("rerank", {}).get("diversity", 0.0)),
            template=_template(model),
            text_chars=int(model.manifest.get("template", {}).get("max_text_chars", _MODEL_TEXT_CHARS)),
            since_us=time.time_ns() // 1000,
        )

    def next(self, model: Model) -> Served:
        """Return the data of a new state of the same model."""
        self.shown.extend(model.catalogue)
        if model.catalogue.declared is not self.model.catalogue.declared:
            return replace(self, model=model, attributes=model.catalogue.kinds)
        return replace(self, model=model)

    def same_model(self, other: Served) -> bool:
        """Return whether both are states of one loaded model, so that their catalogue rows agree."""
        return self.shown is other.shown

    def cached_mask(self, expression: str) -> BoolArray | None:
        """Return the mask of a filter, [items], if it is cached for this state."""
        return self.model.catalogue.cached_mask(self.masks, self.model.version, expression)

    def mask(self, expression: str) -> BoolArray:
        """Return the mask of a filter, [items]; too slow for the event loop.

        Raises:
            FilterError: an invalid filter.
        """
        return self.model.catalogue.mask(self.masks, self.model.version, expression)


def _template(model: Model) -> TextTemplate:
    template = model.manifest.get("template")
    return TextTemplate(()) if template is None else TextTemplate.from_info(template)
