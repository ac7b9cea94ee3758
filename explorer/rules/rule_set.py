"""The rules of a form, in the shape in which a shop uses them: the defaults of a surface.

They are checked by the code that checks a server's requests, so an error has the server's own words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from google.protobuf import json_format

from explorer.model import LoadedModel
from explorer.problems import PageError
from ranking.catalogue.attribute_codes import ValueCodes
from ranking.catalogue.filter_language import FilterError, attribute_kinds, compile_filter, evaluate
from ranking.catalogue.live_catalogue import LiveCatalogue
from ranking.rerank.rules import Boost, Cap, Pin, Rules
from serving.api import validation
from serving.api.list_rules import check_rules
from serving.core.errors import ApiError
from shelfwise_client.v1 import recommendations_pb2 as pb


@dataclass(frozen=True)
class RuleSet:
    """Rules of a list, checked against a catalogue."""

    message: pb.SurfaceDefaults
    """What is set; as the entry of a surface."""
    diversity: float
    """The message's, or the bundle's."""
    novelty: float
    rules: Rules | None
    """None where the message has no rules."""
    unknown: tuple[str, ...]
    """Pinned ids that the catalogue lacks; they are left out."""

    @property
    def empty(self) -> bool:
        """Whether nothing is set."""
        return not self.message.ListFields()

    def fields(self) -> dict[str, Any]:
        """Return the fields as JSON, in the names of the proto, without defaults."""
        found: dict[str, Any] = json_format.MessageToDict(self.message, preserving_proto_field_name=True)
        return found

    def surface_entry(self, surface: str) -> str:
        """Return the YAML of an entry for `serve surfaces=FILE`."""
        text: str = yaml.safe_dump({surface: self.fields()}, sort_keys=False, allow_unicode=True)
        return text

    def request_fields(self) -> str:
        """Return the same as fields of a Recommend request, JSON."""
        return json.dumps(self.fields(), indent=2, ensure_ascii=False)


def bundle_rules(model: LoadedModel) -> RuleSet:
    """Return what a bundle does by itself."""
    return rule_set(model, pb.SurfaceDefaults())


def read_rules(values: Mapping[str, Sequence[str]], model: LoadedModel) -> RuleSet:
    """Return the rules of an address.

    Args:
        values: query parameters, each with all its values: `diversity`, `novelty`, `exploration`;
            `cap_attribute` with `cap_max`, `pin_item` with `pin_position`, `boost_filter` with
            `boost_strength`, by position. Rows with an empty first field are left out.
        model: whose catalogue they apply to.

    Raises:
        PageError: a rule that a server would refuse, in its words.

    """
    message = pb.SurfaceDefaults()
    for name, own in _bundle_values(model).items():
        text = _first(values, name)
        if text and (value := _number(name, text)) != own:
            setattr(message, name, value)
    if (share := _number("exploration", _first(values, "exploration") or "0")) != 0:
        message.rules.exploration.share = share
    for index, (attribute, most) in enumerate(_rows(values, "cap_attribute", "cap_max")):
        message.rules.caps.add(attribute=attribute, max_items=_whole(f"rules.caps[{index}].max_items", most))
    for index, (item, position) in enumerate(_rows(values, "pin_item", "pin_position")):
        message.rules.pins.add(item_id=item, position=_whole(f"rules.pins[{index}].position", position))
    for index, (expression, strength) in enumerate(_rows(values, "boost_filter", "boost_strength")):
        path = f"rules.boosts[{index}].strength"
        message.rules.boosts.add(filter=expression, strength=_number(path, strength))
    return rule_set(model, message)


def rule_set(model: LoadedModel, message: pb.SurfaceDefaults) -> RuleSet:
    """Check the defaults of a surface and resolve them to rows of a catalogue.

    Raises:
        PageError: a server would refuse them; in its words.

    """
    frame = model.bundle.catalogue.frame
    try:
        for name in ("diversity", "novelty"):
            if message.HasField(name):
                validation.share(name, getattr(message, name))
        check_rules(message.rules, attribute_kinds(frame.schema))
    except ApiError as error:
        raise _refused(error.message) from error
    catalogue, codes = LiveCatalogue(model.bundle.catalogue), ValueCodes()
    boosts = []
    for index, boost in enumerate(message.rules.boosts):
        try:
            matches = evaluate(frame, compile_filter(frame.schema, boost.filter))
        except FilterError as error:
            raise _refused(f"rules.boosts[{index}].filter: {error}") from error
        boosts.append(Boost(matches, boost.strength))
    pins, unknown = [], []
    for pin in message.rules.pins:
        row = model.bundle.catalogue.row(pin.item_id)
        if row is None:
            unknown.append(pin.item_id)
        else:
            pins.append(Pin(row, pin.position))
    rules = Rules(
        caps=tuple(Cap(codes.of(catalogue, cap.attribute), cap.max_items) for cap in message.rules.caps),
        pins=tuple(pins),
        boosts=tuple(boosts),
        exploration=message.rules.exploration.share,
    )
    own = _bundle_values(model)
    return RuleSet(
        message,
        message.diversity if message.HasField("diversity") else own["diversity"],
        message.novelty if message.HasField("novelty") else own["novelty"],
        rules if message.rules.ListFields() else None,
        tuple(unknown),
    )


def matches(rules: RuleSet) -> list[tuple[str, int]]:
    """Return the filter of each boost, and how many items it names."""
    found = () if rules.rules is None else rules.rules.boosts
    texts = [boost.filter for boost in rules.message.rules.boosts]
    return [(text, int(np.count_nonzero(b.matches))) for text, b in zip(texts, found, strict=True)]


def _bundle_values(model: LoadedModel) -> dict[str, float]:
    rerank = model.bundle.manifest.get("rerank", {})
    return {name: float(rerank.get(name, 0.0)) for name in ("diversity", "novelty")}


def _refused(message: str) -> PageError:
    return PageError(400, "These rules are not valid", message)


def _first(values: Mapping[str, Sequence[str]], name: str) -> str:
    return next((text.strip() for text in values.get(name, ())), "")


def _rows(values: Mapping[str, Sequence[str]], name: str, other: str) -> list[tuple[str, str]]:
    firsts = [text.strip() for text in values.get(name, ())]
    seconds = [text.strip() for text in values.get(other, ())]
    seconds += [""] * (len(firsts) - len(seconds))
    return [(first, second) for first, second in zip(firsts, seconds, strict=False) if first]


def _number(path: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _refused(f"{path}: “{text[:40]}” is not a number") from None


def _whole(path: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise _refused(f"{path}: “{text[:40]}” is not a whole number")
