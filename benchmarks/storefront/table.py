"""All trials of a storefront, and their table beside that of another version."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.storefront import changes, lists, search
from benchmarks.storefront.shop import NEW_ITEMS, Row, Shop, Trial
from conf.errors import InputError
from features.data.pipeline_step import write_atomically
from shelfwise_client import ServiceError

TRIALS: Final[tuple[Trial, ...]] = (
    lists.new_items,
    lists.own_category,
    lists.probabilities,
    search.new_item,
    search.types,
    search.titles,
    search.reasons,
    search.intents,
    changes.session_without_kind,
    changes.without_text,
    lists.purchases,
    changes.event_kinds,
    changes.single_attributes,
)
"""In this order: trials with the largest changes come last."""


def trials(shop: Shop, console: Console) -> dict[str, Any]:
    """Run all trials; return a JSON object with a row for each.

    Raises:
        InputError: the new items were refused, so there is nothing to try.
    """
    status = shop.client.status()
    if refused := changes.upsert(shop):
        raise InputError(f"{len(refused)} of {len(NEW_ITEMS)} new items were refused: {refused[0]}")
    rows: list[Row] = []
    for trial in TRIALS:
        name = f"{trial.__module__.rpartition('_')[2]}.{trial.__name__}"
        began = time.monotonic()
        with console.status(name):
            try:
                rows += trial(shop)
            except ServiceError as error:
                rows.append(Row(name, name.replace("_", " "), f"failed: {error}"))
        console.print(f"{name}: {time.monotonic() - began:.0f} s", highlight=False)
    return {
        "model_version": status.model_version,
        "server_version": status.server_version,
        "items": status.item_count,
        "rows": [asdict(row) for row in rows],
    }


def read_result(path: Path, part: str = "rows") -> dict[str, Any]:
    """Read the result of another version.

    Args:
        path: of the JSON file.
        part: what it must have: `rows` of a storefront, `arms` of a replay.

    Raises:
        InputError: there is none at the path.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        if part not in found:
            raise ValueError(f"there are no {part}")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a result to compare with: {error}") from None
    return found


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=2) + "\n")


def cells(now: dict[str, Any], before: dict[str, Any] | None) -> list[tuple[str, ...]]:
    """Return the rows of the table: the trial, the result before (if given), and the result now."""
    if before is None:
        return [(row["tried"], row["seen"]) for row in now["rows"]]
    former = {row["key"]: row["seen"] for row in before["rows"]}
    return [(row["tried"], former.get(row["key"], ""), row["seen"]) for row in now["rows"]]


def header(before: bool) -> tuple[str, ...]:
    """Return the names of the table's columns."""
    return ("tried", "seen before", "seen now") if before else ("tried", "seen")


def print_rows(console: Console, now: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Print the table."""
    table = Table(
        *header(before is not None), title=f"storefront, model {now['model_version']}", show_lines=True
    )
    for row in cells(now, before):
        table.add_row(*row)
    console.print(table)


def markdown(rows: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return "\n".join(
        [*lines, *("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)]
    )
