"""Requests with rules and assumptions in addresses: every state of an explanation is a link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from explorer.lists import ListOptions
from explorer.problems import PageError
from ranking.insight.scenario import Scenario

MAX_K: Final = 500
"""Longest list that is explained."""
MAX_ENTRIES: Final = 20
"""Most values of one parameter."""
RULES: Final = ("exclude", "cap", "pin", "boost", "event", "without", "quota")
"""Parameters that can stand in an address several times."""

Value = TypeVar("Value")


def read_scenario(values: QueryParams) -> Scenario:
    """Return the request of an address.

    Raises:
        PageError: a value that is none, naming the parameter.

    """
    usual = {name: text for name, text in values.items() if name not in ("k", *RULES)}
    options = ListOptions.of(usual)
    return Scenario(
        k=whole_number("k", values.get("k", "").strip() or "10", 1, MAX_K),
        filter=options.filter,
        intent=options.intent,
        exclude_seen=options.exclude_seen,
        diversity=options.diversity,
        novelty=options.novelty,
        at=options.at,
        exclude=_entries(values, "exclude", str),
        caps=_entries(values, "cap", _name_and_number("cap", "ATTRIBUTE:2")),
        pins=_entries(values, "pin", _name_and_number("pin", "ITEM:1")),
        boosts=_entries(values, "boost", _boost),
        exploration=_share("exploration", values.get("exploration", "").strip() or "0"),
        seed=whole_number("rules_seed", values.get("rules_seed", "").strip() or "0", 0, 2**31 - 1),
        events=_entries(values, "event", _event),
        without=_entries(values, "without", str),
        quotas=_entries(values, "quota", _name_and_number("quota", "item_to_item:400", 0)),
    )


def parameters(scenario: Scenario) -> list[tuple[str, str]]:
    """Return the parameters of an address that stand for a request, those that differ from the defaults."""
    usual, found = Scenario(), list[tuple[str, str]]()
    for name in ("k", "filter", "intent", "diversity", "novelty", "exploration"):
        value = getattr(scenario, name)
        if value != getattr(usual, name):
            found.append((name, f"{value:g}" if isinstance(value, float) else str(value)))
    if scenario.exclude_seen is not None:
        found.append(("exclude_seen", "yes" if scenario.exclude_seen else "no"))
    if scenario.at is not None:
        found.append(("at", _iso(scenario.at)))
    if scenario.seed:
        found.append(("rules_seed", str(scenario.seed)))
    return found + rule_parameters(scenario)


def rule_parameters(scenario: Scenario) -> list[tuple[str, str]]:
    """Return the parameters of the rules and assumptions of a request."""
    return [
        *(("exclude", item) for item in scenario.exclude),
        *(("cap", f"{name}:{limit}") for name, limit in scenario.caps),
        *(("pin", f"{item}:{position}") for item, position in scenario.pins),
        *(("boost", f"{strength:g}:{text}") for strength, text in scenario.boosts),
        *(("event", f"{kind}:{item}") for kind, item in scenario.events),
        *(("without", item) for item in scenario.without),
        *(("quota", f"{name}:{quota}") for name, quota in scenario.quotas),
    ]


def why_address(user: str, item: str, scenario: Scenario) -> str:
    """Return the address of an explanation, without host."""
    return f"/why?{urlencode([('user', user), ('item', item), *parameters(scenario)])}"


def without_entry(scenario: Scenario, name: str, number: int) -> Scenario:
    """Return a request without one of its rules or assumptions.

    Args:
        scenario: the request.
        name: the parameter, one of `RULES`.
        number: of its value, from 0.

    """
    fields = {"cap": "caps", "pin": "pins", "boost": "boosts", "event": "events", "quota": "quotas"}
    field = fields.get(name, name)
    kept = tuple(value for n, value in enumerate(getattr(scenario, field)) if n != number)
    changes: dict[str, Any] = {field: kept}
    return replace(scenario, **changes)


def _entries(values: QueryParams, name: str, read: Callable[[str], Value]) -> tuple[Value, ...]:
    texts = [text.strip() for text in values.getlist(name) if text.strip()]
    if len(texts) > MAX_ENTRIES:
        raise wrong_value(name, f"{len(texts)} values", f"at most {MAX_ENTRIES} of them")
    return tuple(read(text) for text in texts)


def _name_and_number(parameter: str, example: str, least: int = 1) -> Callable[[str], tuple[str, int]]:
    def read(text: str) -> tuple[str, int]:
        name, _, number = text.rpartition(":")
        if not name:
            raise wrong_value(parameter, text, f"like {example}")
        return name, whole_number(parameter, number, least, 10**6)

    return read


def _boost(text: str) -> tuple[float, str]:
    strength, _, expression = text.partition(":")
    try:
        found = float(strength)
    except ValueError:
        found = 0.0
    if not expression or not 0 < abs(found) <= 1:
        raise wrong_value("boost", text, "like 0.3:price < 5, with a strength from -1 to 1")
    return found, expression


def _event(text: str) -> tuple[str, str]:
    kind, _, item = text.partition(":")
    if not item:
        raise wrong_value("event", text, "like purchase:ITEM")
    return kind, item


def whole_number(name: str, text: str, least: int, most: int) -> int:
    """Return a parameter that is a whole number within bounds; raises a PageError for any other."""
    if text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most:
        return int(text)
    raise wrong_value(name, text, f"a whole number from {least} to {most:,}")


def _share(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0.0 <= value <= 1.0:
        return value
    raise wrong_value(name, text, "a number from 0 to 1")


def wrong_value(name: str, text: str, needed: str) -> PageError:
    """Return the error of an address with a value that is none."""
    return PageError(400, "This address has a wrong value", f"{name}: “{text[:80]}” is not {needed}.")


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
