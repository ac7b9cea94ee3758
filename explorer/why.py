"""`shelfwise why`: an explanation of one item of one list, in plain words or as JSON."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from conf.errors import InputError
from conf.explorer import OutputFormat, WhyConfig
from encoders.device import resolve_device
from explorer.model import LoadedModel, load_model
from explorer.problems import closest_ids
from ranking.bundle.store import current_version
from ranking.insight.attribution import Attribution
from ranking.insight.explanation import Explanation, explain_item
from ranking.insight.record import as_record
from ranking.insight.scenario import Scenario, resolve
from ranking.insight.words import LOST, PASSED, Names, Words, in_words
from ranking.types import History

_SIGNS: Final = {PASSED: "[green]✓[/green]", LOST: "[red]✗[/red]"}
EFFECTS: Final = 5
"""Items of the history that are printed."""
GROUPS: Final = 8
"""Groups of features that are printed."""
BAR: Final = 20
"""Cells of the longest bar."""


def why(config: WhyConfig, console: Console) -> None:
    """Print why an item is in a list, or why not.

    Raises:
        InputError: no bundle, an unknown shopper or item, or a wrong value.

    """
    if config.item is None:
        raise InputError("item: name the item to explain, item=ID")
    store = Path(config.artifacts)
    model = load_model(store, current_version(store), resolve_device(config.device))
    history, scenario = _history(model, config), scenario_of(config)
    _check_item(model, config.item)
    asked = resolve(model.bundle, history, model.now, config.item, scenario)
    explanation = explain_item(asked.recommender, asked.question, model.bundle.kinds)
    names = Names(model.bundle.catalogue.ids, model.items.title)
    if config.format is OutputFormat.json:
        record = {"user": config.user, **as_record(explanation, scenario, names, model.bundle.kinds)}
        console.print(
            json.dumps(record, indent=2, ensure_ascii=False), markup=False, highlight=False, soft_wrap=True
        )
        return
    print_explanation(explanation, names, console)


def scenario_of(config: WhyConfig) -> Scenario:
    """Return the request of a configuration."""
    at = None
    if config.request_time is not None:
        try:
            found = datetime.fromisoformat(config.request_time)
        except ValueError as error:
            raise InputError(
                f"request_time: '{config.request_time}' is not an ISO time, for example 2024-05-31T12:00:00"
            ) from error
        at = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    return Scenario(
        k=config.k,
        filter=config.filter,
        intent=config.intent,
        exclude_seen=config.exclude_seen,
        diversity=config.diversity,
        novelty=config.novelty,
        at=at,
        exclude=tuple(config.exclude),
        caps=tuple(config.caps.items()),
        pins=tuple(_pin(text) for text in config.pins),
        boosts=tuple((boost.strength, boost.filter) for boost in config.boosts),
        exploration=config.exploration,
        seed=config.seed,
        events=tuple(_event(text) for text in config.events),
        without=tuple(config.without),
        quotas=tuple(config.quotas.items()),
    )


def _pin(text: str) -> tuple[str, int]:
    item, _, position = text.rpartition(":")
    if not item or not (position.isascii() and position.isdigit()):
        raise InputError(f"pins: '{text}' is not ITEM:POSITION, for example pins=[85123A:1]")
    return item, int(position)


def _event(text: str) -> tuple[str, str]:
    kind, _, item = text.partition(":")
    if not item:
        raise InputError(f"events: '{text}' is not KIND:ITEM, for example events=[purchase:85123A]")
    return kind, item


def _history(model: LoadedModel, config: WhyConfig) -> History:
    if config.user is None:
        return model.shoppers.history("")
    user = model.stored_id(config.user, os.environ.get(config.privacy.key_env, ""))
    if model.shoppers.position(user) is None:
        near = closest_ids(config.user, model.shoppers.ids)
        raise InputError(f"user: no shopper '{config.user}' in the stored histories{_did_you_mean(near)}")
    return model.shoppers.history(user)


def _check_item(model: LoadedModel, item: str) -> None:
    if model.bundle.catalogue.row(item) is None:
        near = closest_ids(item, model.bundle.catalogue.ids) or [
            model.bundle.catalogue.ids[row] for row in model.items.find(item, 5)
        ]
        raise InputError(f"item: no item '{item}' in the catalogue{_did_you_mean(near)}")


def _did_you_mean(ids: list[str]) -> str:
    return f"; did you mean {', '.join(ids)}?" if ids else ""


def print_explanation(explanation: Explanation, names: Names, console: Console) -> None:
    """Print an explanation in plain words."""
    words = in_words(explanation, names)
    console.print(f"[bold]{escape(words.headline)}[/bold]", highlight=False)
    for number, stage in enumerate(words.stages, start=1):
        sign = _SIGNS.get(stage.outcome, "[dim]·[/dim]")
        said = "" if stage.outcome == PASSED else f" [dim]({stage.outcome})[/dim]"
        console.print(f"\n{sign} [bold]{number}. {escape(stage.title)}[/bold]{said}", highlight=False)
        for line in stage.lines:
            _indented(line, console)
        if stage.name == "ranking" and explanation.trace.attribution is not None:
            _print_features(explanation.trace.attribution, console)
    console.print(f"\n[bold]{escape(words.final)}[/bold]", highlight=False)
    _print_history(explanation, names, console)
    _print_changes(explanation, words, console)


def _print_features(found: Attribution, console: Console) -> None:
    """Print the shares of the groups of features as bars."""
    average = f"the {found.baseline:.3f} of the average of {found.background} candidates"
    _indented(f"What moved the score of {found.score:.3f}, from {average}:", console)
    table = Table(box=None, pad_edge=True)
    table.add_column("points", justify="right")
    table.add_column("")
    table.add_column("what")
    most = max((abs(share.points) for share in found.shares), default=1.0)
    for share in found.shares[:GROUPS]:
        cells = max(round(BAR * abs(share.points) / most), 1) if most else 0
        colour = "green" if share.points > 0 else "red"
        table.add_row(f"{share.points:+.3f}", f"[{colour}]{'█' * cells}[/{colour}]", escape(share.label))
    console.print(Padding(table, (0, 0, 0, 3), expand=False))


def _print_history(explanation: Explanation, names: Names, console: Console) -> None:
    moving = [effect for effect in explanation.effects if effect.points]
    effects = sorted(moving, key=lambda effect: -abs(effect.points))[:EFFECTS]
    if not effects:
        return
    console.print("\n[bold]What the history does[/bold] [dim](each deleted, and the list made again)[/dim]")
    for effect in effects:
        moved = ""
        if effect.place != explanation.trace.place and not explanation.trace.obstacles:
            place = "leaves the list" if effect.place is None else f"is at place {effect.place}"
            moved = f"; without it the item {place}"
        _indented(f"{effect.points:+.3f}  {names.of(effect.row)}{moved}", console)


def _indented(text: str, console: Console) -> None:
    """Print a line that stays indented where it is wrapped."""
    console.print(Padding(escape(text), (0, 0, 0, 3), expand=False), highlight=False)


def _print_changes(explanation: Explanation, words: Words, console: Console) -> None:
    listed = explanation.trace.place is not None
    title = "What would move it" if listed else "What would bring it in"
    console.print(f"\n[bold]{title}[/bold] [dim](each change carried out)[/dim]")
    for change in words.changes:
        place = "it is not in the list" if change.place is None else f"it is at place {change.place}"
        _indented(f"{change.text}: {place}", console)
    if words.unchanged:
        _indented(words.unchanged, console)
