"""The rules of a request: validated, and resolved from ids and expressions to catalogue rows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Final

from conf.errors import closest
from ranking.catalogue.filter_language import AttributeKind
from ranking.rerank.rules import Boost, Cap, Pin, Rules
from serving.api.filter_masks import RowSelector
from serving.api.validation import optional_id
from serving.core.errors import invalid
from serving.model.served import Served
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_CAPS: Final = 10
MAX_PINS: Final = 100
MAX_BOOSTS: Final = 20
MAX_POSITION: Final = 2000
"""As many items as can be paged through."""


async def list_rules(
    message: pb.ListRules, served: Served, selector: RowSelector, seed: int
) -> tuple[Rules | None, list[str]]:
    """Return the rules of a request, None where it has none, and the pinned ids that the model does not know.

    Args:
        message: rules of the request.
        served: model with its items and attributes.
        selector: computes filter masks and attribute codes.
        seed: for exploration that sets none.

    Raises:
        ApiError: an invalid rule.
    """
    check_rules(message, served.attributes)
    if not (message.caps or message.pins or message.boosts or message.HasField("exploration")):
        return None, []
    catalogue = served.model.catalogue
    pins, unknown = [], []
    for pin in message.pins:
        row = catalogue.row(pin.item_id)
        if row is None:
            unknown.append(pin.item_id)
        else:
            pins.append(Pin(row, pin.position))
    caps = [Cap(await selector.codes(served, cap.attribute), cap.max_items) for cap in message.caps]
    boosts = []
    for index, boost in enumerate(message.boosts):
        matches = await selector.mask(served, boost.filter, f"rules.boosts[{index}].filter")
        assert matches is not None
        boosts.append(Boost(matches, boost.strength))
    exploration = message.exploration
    rules = Rules(
        caps=tuple(caps),
        pins=tuple(pins),
        boosts=tuple(boosts),
        exploration=exploration.share,
        seed=exploration.seed if exploration.HasField("seed") else seed,
    )
    return rules, unknown


def check_rules(message: pb.ListRules, known: Mapping[str, AttributeKind]) -> None:
    """Validate rules, except the filters of boosts.

    Args:
        message: rules of a request.
        known: attributes of the catalogue.

    Raises:
        ApiError: naming the field.
    """
    for name, count, limit in (
        ("caps", len(message.caps), MAX_CAPS),
        ("pins", len(message.pins), MAX_PINS),
        ("boosts", len(message.boosts), MAX_BOOSTS),
    ):
        if count > limit:
            raise invalid(f"rules.{name}", f"{count:,} of them; at most {limit}")
    for index, cap in enumerate(message.caps):
        path = f"rules.caps[{index}]"
        _attribute(f"{path}.attribute", cap.attribute, known)
        _within(f"{path}.max_items", cap.max_items)
    _distinct("rules.caps", "attribute", (cap.attribute for cap in message.caps))
    for index, pin in enumerate(message.pins):
        path = f"rules.pins[{index}]"
        if not optional_id(f"{path}.item_id", pin.item_id):
            raise invalid(f"{path}.item_id", "is empty")
        _within(f"{path}.position", pin.position)
    _distinct("rules.pins", "item_id", (pin.item_id for pin in message.pins))
    _distinct("rules.pins", "position", (pin.position for pin in message.pins))
    for index, boost in enumerate(message.boosts):
        path = f"rules.boosts[{index}]"
        if not boost.filter.strip():
            raise invalid(f"{path}.filter", "is empty; say which items, as in `filter`")
        if not (math.isfinite(boost.strength) and 0 < abs(boost.strength) <= 1):
            raise invalid(f"{path}.strength", f"{boost.strength:g} is not between -1 and 1, or is 0")
    if message.HasField("exploration"):
        share = message.exploration.share
        if not (math.isfinite(share) and 0 < share <= 1):
            raise invalid("rules.exploration.share", f"{share:g} is not above 0 and at most 1")


def _attribute(path: str, name: str, known: Mapping[str, AttributeKind]) -> None:
    kind = known.get(name)
    if kind is None:
        what = f"unknown attribute '{name[:64]}'{closest(name[:64], known)}" if name else "is empty"
        raise invalid(path, f"{what}; GetStatus lists the attributes")
    if kind is AttributeKind.list:
        raise invalid(path, f"'{name}' is a list; caps count attributes with one value per item")


def _within(path: str, value: int) -> None:
    if not 1 <= value <= MAX_POSITION:
        raise invalid(path, f"{value} is not between 1 and {MAX_POSITION:,}")


def _distinct(path: str, field: str, values: Iterable[Hashable]) -> None:
    seen: dict[Hashable, int] = {}
    for index, value in enumerate(values):
        first = seen.setdefault(value, index)
        if first != index:
            raise invalid(f"{path}[{index}].{field}", f"the same as that of {path}[{first}]")
