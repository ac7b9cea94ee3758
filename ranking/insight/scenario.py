"""A request as a person writes it, with ids and expressions, and what a change makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from conf.errors import InputError, closest
from conf.schema import CandidateConfig, quota_names
from features.data.dataset import BoolArray, IntArray
from ranking.bundle.bundle import Bundle
from ranking.catalogue.attribute_codes import ValueCodes
from ranking.catalogue.filter_clauses import joined
from ranking.catalogue.filter_language import (
    AttributeKind,
    FilterError,
    attribute_kinds,
    compile_filter,
    evaluate,
)
from ranking.catalogue.live_catalogue import LiveCatalogue
from ranking.insight.changes import Change, Kind
from ranking.insight.counterfactuals import with_quotas
from ranking.insight.obstacles import Obstacle, Rule
from ranking.insight.question import Clause, Question, conjunction, filter_clauses
from ranking.recommender import Recommender
from ranking.rerank.rules import Boost, Cap, Pin, Rules
from ranking.types import History, Request


@dataclass(frozen=True)
class Scenario:
    """Options of a list, rules, and events that the history has or lacks besides what is stored."""

    k: int = 10
    filter: str = ""
    intent: str = ""
    exclude_seen: bool | None = None
    """None takes the bundle's."""
    diversity: float | None = None
    """None takes the bundle's."""
    novelty: float | None = None
    """None takes the bundle's."""
    at: int | None = None
    """Unix seconds that the list is made for; None takes the moment that is given with the history."""
    exclude: tuple[str, ...] = ()
    """Item ids."""
    caps: tuple[tuple[str, int], ...] = ()
    """Attribute, and most items with the same value."""
    pins: tuple[tuple[str, int], ...] = ()
    """Item id, and position from 1."""
    boosts: tuple[tuple[float, str], ...] = ()
    """Strength, and a filter of the items."""
    exploration: float = 0.0
    seed: int = 0
    """Of exploration."""
    events: tuple[tuple[str, str], ...] = ()
    """Event kind and item id of further events, now."""
    without: tuple[str, ...] = ()
    """Item ids whose events are taken out of the history."""
    quotas: tuple[tuple[str, int], ...] = ()
    """Setting of a source's quota, and the quota."""


@dataclass(frozen=True)
class Resolved:
    """A scenario in rows of a catalogue."""

    recommender: Recommender
    """With the scenario's quotas."""
    question: Question


def resolve(bundle: Bundle, history: History, now: int, item_id: str, scenario: Scenario) -> Resolved:
    """Return the question that a scenario asks about an item.

    Args:
        bundle: that makes the list.
        history: what is stored of the shopper.
        now: Unix seconds of the list where the scenario has no time.
        item_id: the item.
        scenario: the request.

    Raises:
        InputError: an unknown id or attribute, an invalid filter, or a value out of range, naming the field.

    """
    _check_ranges(scenario)
    clauses = _filter(bundle, scenario.filter)
    rerank = bundle.manifest.get("rerank", {})
    now = now if scenario.at is None else scenario.at
    intent = bundle.encode_queries([scenario.intent])[0] if scenario.intent else None
    diversity = scenario.diversity
    request = Request(
        history=_history(bundle, history, now, scenario),
        now=now,
        k=min(scenario.k, len(bundle.catalogue)),
        exclude=_rows(bundle, "exclude", scenario.exclude),
        allowed=conjunction(clauses),
        exclude_seen=bundle.exclude_seen if scenario.exclude_seen is None else scenario.exclude_seen,
        diversity=float(rerank.get("diversity", 0.0)) if diversity is None else diversity,
        novelty=scenario.novelty,
        intent=intent,
        query_text=scenario.intent,
        explain=True,
        rules=_rules(bundle, scenario),
    )
    question = Question(
        request,
        _row(bundle, "item", item_id),
        clauses,
        tuple(name for name, _ in scenario.caps),
        tuple(text for _, text in scenario.boosts),
    )
    return Resolved(with_quotas(bundle.recommender, _quotas(bundle, scenario)), question)


def changed(
    scenario: Scenario, change: Change, lifted: Sequence[Obstacle], asked: Question, ids: Sequence[str]
) -> Scenario:
    """Return the scenario with a change, as a person would write it.

    Args:
        scenario: that the question came from.
        change: of the question.
        lifted: rules that were lifted before the change.
        asked: the question before either.
        ids: of the catalogue.

    """
    made = without_obstacles(scenario, lifted, asked, ids)
    item = ids[asked.row]
    value, number = change.value, change.number
    match change.kind:
        case Kind.k:
            return replace(made, k=int(value))
        case Kind.diversity:
            return replace(made, diversity=value)
        case Kind.novelty:
            return replace(made, novelty=value)
        case Kind.intent:
            return replace(made, intent="")
        case Kind.cap:
            wider = [
                (name, int(value)) if n == number else (name, m) for n, (name, m) in enumerate(made.caps)
            ]
            return replace(made, caps=tuple(cap for cap in wider if cap[1] > 0))
        case Kind.pin:
            return replace(made, pins=tuple(p for p in made.pins if p[0] != ids[change.row]))
        case Kind.other_boost:
            return replace(made, boosts=tuple(b for n, b in enumerate(made.boosts) if n != number))
        case Kind.exploration:
            return replace(made, exploration=0.0)
        case Kind.boost:
            return replace(made, boosts=(*made.boosts, (value, only(item))))
        case Kind.quota:
            boosts = (*made.boosts, (change.boost, only(item))) if change.boost else made.boosts
            return replace(made, quotas=(*made.quotas, (change.name, int(value))), boosts=boosts)
        case Kind.event | Kind.companion:
            return replace(made, events=(*made.events, (change.name, ids[change.row])))
        case Kind.without_event:
            gone = ids[change.row]
            events = tuple(event for event in made.events if event[1] != gone)
            return replace(made, without=(*made.without, gone), events=events)
    return made


def without_obstacles(
    scenario: Scenario, lifted: Sequence[Obstacle], asked: Question, ids: Sequence[str]
) -> Scenario:
    """Return the scenario without rules that keep the item out; arguments as of `changed`."""
    gone = {obstacle.number for obstacle in lifted if obstacle.rule is Rule.filter}
    full = {obstacle.number for obstacle in lifted if obstacle.rule is Rule.cap}
    rules = {obstacle.rule for obstacle in lifted}
    kept = [clause.text for n, clause in enumerate(asked.clauses) if n not in gone]
    return replace(
        scenario,
        filter=joined(kept) if gone else scenario.filter,
        exclude=tuple(i for i in scenario.exclude if Rule.excluded not in rules or i != ids[asked.row]),
        exclude_seen=False if Rule.seen in rules else scenario.exclude_seen,
        caps=tuple(cap for n, cap in enumerate(scenario.caps) if n not in full),
    )


def only(item_id: str) -> str:
    """Return the filter that a single item passes."""
    escaped = item_id.replace("\\", "\\\\").replace('"', '\\"')
    return f'item_id = "{escaped}"'


def _check_ranges(scenario: Scenario) -> None:
    for name, value in (("k", scenario.k), *((f"caps {n}", v) for n, v in scenario.caps)):
        if value < 1:
            raise InputError(f"{name}: {value} is below 1")
    for name, low in (("diversity", 0.0), ("novelty", 0.0), ("exploration", 0.0)):
        share = getattr(scenario, name)
        if share is not None and not low <= share <= 1:
            raise InputError(f"{name}: {share:g} is not between 0 and 1")
    for strength, _ in scenario.boosts:
        if not 0 < abs(strength) <= 1:
            raise InputError(f"boost: {strength:g} is not between -1 and 1, or is 0")
    positions = [position for _, position in scenario.pins]
    if any(position < 1 for position in positions) or len(set(positions)) < len(positions):
        raise InputError("pin: positions count from 1, and each holds one item")


def _filter(bundle: Bundle, expression: str) -> tuple[Clause, ...]:
    try:
        return filter_clauses(bundle.catalogue.frame, expression)
    except FilterError as error:
        raise InputError(f"filter: {error}") from error


def _row(bundle: Bundle, name: str, item_id: str) -> int:
    row = bundle.catalogue.row(item_id)
    if row is None:
        raise InputError(
            f"{name}: no item '{item_id}' in the catalogue{closest(item_id, bundle.catalogue.ids)}"
        )
    return row


def _rows(bundle: Bundle, name: str, item_ids: Sequence[str]) -> IntArray:
    return np.array([_row(bundle, name, item_id) for item_id in item_ids], dtype=np.int32)


def _history(bundle: Bundle, stored: History, now: int, scenario: Scenario) -> History:
    """Return the stored history without some items and with further events, which are the newest."""
    keep = ~np.isin(stored.items, _rows(bundle, "without", scenario.without))
    rows = _rows(bundle, "event", [item for _, item in scenario.events])
    codes = [_kind(bundle, kind) for kind, _ in scenario.events]
    return History(
        np.concatenate([stored.items[keep], rows]).astype(np.int32),
        np.concatenate([stored.kinds[keep], codes]).astype(np.int8),
        np.concatenate([stored.times[keep], np.full(len(rows), now)]).astype(np.int64),
    )


def _kind(bundle: Bundle, kind: str) -> int:
    if kind not in bundle.kinds:
        known = ", ".join(bundle.kinds)
        raise InputError(f"event: the bundle has no kind '{kind}'; it has {known}")
    return bundle.kinds.index(kind)


def _rules(bundle: Bundle, scenario: Scenario) -> Rules | None:
    if not (scenario.caps or scenario.pins or scenario.boosts or scenario.exploration):
        return None
    return Rules(
        caps=tuple(Cap(_codes(bundle, name), limit) for name, limit in scenario.caps),
        pins=tuple(Pin(_row(bundle, "pin", item), position) for item, position in scenario.pins),
        boosts=tuple(Boost(_mask(bundle, text), strength) for strength, text in scenario.boosts),
        exploration=scenario.exploration,
        seed=scenario.seed,
    )


def _codes(bundle: Bundle, attribute: str) -> IntArray:
    kinds = attribute_kinds(bundle.catalogue.frame.schema)
    if attribute not in kinds:
        raise InputError(f"cap: unknown attribute '{attribute}'{closest(attribute, kinds)}")
    if kinds[attribute] is AttributeKind.list:
        raise InputError(f"cap: '{attribute}' is a list; caps count attributes with one value per item")
    return ValueCodes().of(LiveCatalogue(bundle.catalogue), attribute)


def _mask(bundle: Bundle, expression: str) -> BoolArray:
    frame = bundle.catalogue.frame
    try:
        return evaluate(frame, compile_filter(frame.schema, expression))
    except FilterError as error:
        raise InputError(f"boost: filter '{expression}': {error}") from error


def _quotas(bundle: Bundle, scenario: Scenario) -> CandidateConfig | None:
    if not scenario.quotas:
        return None
    for name, quota in scenario.quotas:
        if name not in quota_names():
            raise InputError(f"quota: no source has the quota '{name}'{closest(name, quota_names())}")
        if quota < 0:
            raise InputError(f"quota: {name}: {quota} is below 0")
    return replace(bundle.recommender.config, **dict(scenario.quotas))


def settings_of(scenario: Scenario) -> dict[str, object]:
    """Return the fields of a scenario that differ from the defaults."""
    usual = Scenario()
    values = {f.name: getattr(scenario, f.name) for f in fields(scenario)}
    return {name: value for name, value in values.items() if value != getattr(usual, name)}
